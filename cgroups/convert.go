// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// setting is one control file and what goes into it.
type setting struct{ file, value string }

var errNotOnV2 = errors.New("cgroup v2 has no such limit")

// toV2 says a limit in cgroup v2's words: as the library's resources where it
// knows the limit, as plain settings where it does not.
func toV2(l limit) (*cgroup2.Resources, []setting, error) {
	r := &l.res
	switch l.name {
	case "memory-swappiness", "oom-kill-disable", "cpu-realtime":
		return nil, nil, errNotOnV2
	case "memory-swap":
		// v1 counts memory and swap together, v2 swap alone.
		only := *r.Memory.Swap - *r.Memory.Limit
		return &cgroup2.Resources{Memory: &cgroup2.Memory{Swap: &only}}, nil, nil
	case "cpu-burst":
		return nil, []setting{{"cpu.max.burst", strconv.FormatUint(*r.CPU.Burst, 10)}}, nil
	case "cpu-idle":
		return nil, []setting{{"cpu.idle", strconv.FormatInt(*r.CPU.Idle, 10)}}, nil
	case "blkio-weight-device":
		return nil, weightDevices(r.BlockIO.WeightDevice), nil
	case "unified":
		var s []setting
		for file, value := range r.Unified {
			s = append(s, setting{file, value})
		}
		return nil, s, nil
	}
	return cgroup2.ToResources(r), nil, nil
}

func weightDevices(devices []specs.LinuxWeightDevice) []setting {
	var out []setting
	for _, d := range devices {
		if d.Weight != nil {
			out = append(out, setting{"io.bfq.weight", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight)})
		}
	}
	return out
}

// ioWeight is a blkio weight (10 to 1000) on the scale of io.weight (1 to
// 10000), by the formula of the runtime specification's users (runc, crun).
func ioWeight(blkio uint16) uint64 {
	if blkio < 10 {
		return 1
	}
	return 1 + (uint64(blkio)-10)*9999/990
}

// toV1 returns what the library's v1 controllers do not know, nil for the
// limits they do.
func toV1(l limit) []setting {
	switch l.name {
	case "cpu-burst":
		return []setting{{"cpu.cfs_burst_us", strconv.FormatUint(*l.res.CPU.Burst, 10)}}
	case "cpu-idle":
		return []setting{{"cpu.idle", strconv.FormatInt(*l.res.CPU.Idle, 10)}}
	}
	return nil
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
