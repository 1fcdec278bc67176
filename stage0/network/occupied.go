// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns/publish"
)

// Occupied is a port of the host that somebody has, and which pod of ours that
// is, if it is one.
type Occupied struct {
	*publish.Occupied
	UUID string
}

// Hint says what to do.
func (o *Occupied) Hint() string {
	switch {
	case o.UUID != "":
		return fmt.Sprintf("pod %.8s publishes it: 'gantry stop %.8s' frees it, or publish another port", o.UUID, o.UUID)
	case errors.Is(o.Err, unix.EADDRINUSE):
		return fmt.Sprintf("'ss -lnp sport = :%d' shows who has it; publish another port, or none before the ':' to have a free one chosen", o.Port.HostPort)
	case errors.Is(o.Err, unix.EADDRNOTAVAIL):
		return "the address is none of this host's: 'ip address' shows those there are"
	}
	return ""
}

// occupied looks for the port among those of running pods.
func (e Env) occupied(o *publish.Occupied) error {
	dirs, _ := filepath.Glob(filepath.Join(e.Pods, "run", "*"))
	for _, dir := range dirs {
		uuid := filepath.Base(dir)
		r, err := ReadRecord(dir)
		if err != nil || !e.Alive(uuid) {
			continue
		}
		for _, p := range r.Ports {
			for i := range p.Len() {
				if one := p.At(i); one.Protocol == o.Port.Protocol && one.HostPort == o.Port.HostPort {
					return &Occupied{o, uuid}
				}
			}
		}
	}
	return &Occupied{o, ""}
}
