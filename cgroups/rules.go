// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// devicesV1 are rules in the words of the devices controller.
func devicesV1(rules []specs.LinuxDeviceCgroup) []setting {
	number := func(n *int64) string {
		if n == nil || *n == -1 {
			return "*"
		}
		return strconv.FormatInt(*n, 10)
	}
	var out []setting
	for _, d := range bothKinds(rules) {
		file := map[bool]string{true: "devices.allow", false: "devices.deny"}[d.Allow]
		out = append(out, one(file, fmt.Sprintf("%s %s:%s %s", d.Type, number(d.Major), number(d.Minor), d.Access))...)
	}
	return out
}

// bothKinds spells rules for all devices that are not about all of them, or not
// about every access, as one for each kind: the kernel reads nothing behind an
// a, and would allow everything.
func bothKinds(rules []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	any := func(n *int64) bool { return n == nil || *n == -1 }
	var out []specs.LinuxDeviceCgroup
	for _, d := range rules {
		every := strings.Contains(d.Access, "r") && strings.Contains(d.Access, "w") && strings.Contains(d.Access, "m")
		if d.Type != "a" || any(d.Major) && any(d.Minor) && every {
			out = append(out, d)
			continue
		}
		char, block := d, d
		char.Type, block.Type = "c", "b"
		out = append(out, char, block)
	}
	return out
}

// defaultDevices are what every OCI runtime gives every app: any node may be
// made (making is not opening), and the harmless ones opened.
func defaultDevices() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
	}
	const any = -1
	return []specs.LinuxDeviceCgroup{
		rule("c", any, any, "m"),
		rule("b", any, any, "m"),
		rule("c", 1, 3, "rwm"),     // null
		rule("c", 1, 5, "rwm"),     // zero
		rule("c", 1, 7, "rwm"),     // full
		rule("c", 1, 8, "rwm"),     // random
		rule("c", 1, 9, "rwm"),     // urandom
		rule("c", 5, 0, "rwm"),     // tty
		rule("c", 5, 2, "rwm"),     // ptmx
		rule("c", 136, any, "rwm"), // pts
	}
}

// deviceRules returns the whole policy: nothing, then what the bundle says,
// then the defaults, which a bundle cannot take away. Never empty, since both
// kernels read no rules as no restriction.
func deviceRules(bundle []specs.LinuxDeviceCgroup) ([]specs.LinuxDeviceCgroup, error) {
	out := []specs.LinuxDeviceCgroup{{Allow: false, Type: "a", Access: "rwm"}}
	for i, d := range bundle {
		if d.Type == "" {
			d.Type = "a"
		}
		if d.Access == "" {
			d.Access = "rwm"
		}
		if d.Type != "a" && d.Type != "b" && d.Type != "c" {
			return nil, fmt.Errorf("linux.resources.devices[%d].type: %q is not a, b or c", i, d.Type)
		}
		for _, c := range d.Access {
			if c != 'r' && c != 'w' && c != 'm' {
				return nil, fmt.Errorf("linux.resources.devices[%d].access: %q has other letters than r, w and m", i, d.Access)
			}
		}
		out = append(out, d)
	}
	return append(out, defaultDevices()...), nil
}
