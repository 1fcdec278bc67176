// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"strings"
)

// Mode says which network an app gets. The zero value is None: a pod that was
// given no network has none.
type Mode int

// The modes.
const (
	None Mode = iota // a namespace of its own with only lo
	Host             // the caller's network
)

// String returns the mode as Parse reads it.
func (m Mode) String() string {
	switch m {
	case None:
		return "none"
	case Host:
		return "host"
	}
	return fmt.Sprintf("mode %d", int(m))
}

// podman's and docker's names for networks this build does not make: somebody
// who types one of them knows what they want and deserves to hear that it is
// not here, rather than that it is misspelt.
var elsewhere = [...]string{"default", "bridge", "slirp4netns", "pasta", "private", "container", "ns", "pod"}

// Parse reads the value of --net.
func Parse(s string) (Mode, error) {
	switch s {
	case "none":
		return None, nil
	case "host":
		return Host, nil
	case "":
		return None, fmt.Errorf("network mode is empty: this version has none and host")
	}
	kind, _, _ := strings.Cut(s, ":")
	for _, name := range elsewhere {
		if kind == name {
			return None, fmt.Errorf("network mode %q is not in this version of gantry: it has none (only lo) and host (the network of this machine)", s)
		}
	}
	return None, fmt.Errorf("network mode %q is unknown: there are none (only lo) and host (the network of this machine)", s)
}
