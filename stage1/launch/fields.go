// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// checkFields refuses values that contradict each other or that the kernel
// would take for something else.
func checkFields(spec *specs.Spec) error {
	for _, check := range []func(*specs.Spec) error{
		checkTexts, checkNumbers, checkLimits, checkResources, checkPaths, checkMounts, checkNetDevices, checkIntelRdt,
	} {
		if err := check(spec); err != nil {
			return err
		}
	}
	return noNUL(spec.Process)
}

func checkTexts(spec *specs.Spec) error {
	for _, name := range [][2]string{{"hostname", spec.Hostname}, {"domainname", spec.Domainname}} {
		const longest = 64 // __NEW_UTS_LEN
		if len(name[1]) > longest || strings.ContainsRune(name[1], 0) {
			return fmt.Errorf("%s: %q is longer than %d bytes, or contains a NUL byte", name[0], name[1], longest)
		}
	}
	if _, empty := spec.Annotations[""]; empty {
		return errors.New("annotations: a key is empty")
	}
	return nil
}

func checkNumbers(spec *specs.Spec) error {
	p := spec.Process
	switch box := p.ConsoleSize; {
	case p.OOMScoreAdj != nil && (*p.OOMScoreAdj < -1000 || *p.OOMScoreAdj > 1000):
		return fmt.Errorf("process.oomScoreAdj: %d is not from -1000 to 1000", *p.OOMScoreAdj)
	case p.User.Umask != nil && *p.User.Umask > 0o777:
		return fmt.Errorf("process.user.umask: %#o is not a mask of permissions", *p.User.Umask)
	case box != nil && max(box.Height, box.Width) > math.MaxUint16:
		return fmt.Errorf("process.consoleSize: %d by %d is more than %d", box.Height, box.Width, math.MaxUint16)
	}
	return nil
}

func checkLimits(spec *specs.Spec) error {
	seen := map[string]int{}
	for i, r := range spec.Process.Rlimits {
		if first, twice := seen[r.Type]; twice {
			return fmt.Errorf("process.rlimits[%d].type: %s is there already, in process.rlimits[%d]", i, r.Type, first)
		}
		seen[r.Type] = i
		if r.Soft > r.Hard {
			return fmt.Errorf("process.rlimits[%d].soft: %d is more than the hard limit of %d", i, r.Soft, r.Hard)
		}
	}
	return nil
}

// checkResources: below zero only -1 has a meaning, which is no limit. The kernel
// takes some others for very large ones.
func checkResources(spec *specs.Spec) error {
	r := spec.Linux.Resources
	if r == nil {
		return nil
	}
	for _, n := range resourceNumbers(r) {
		if n.value != nil && *n.value < -1 {
			return fmt.Errorf("linux.resources.%s: %d is neither a number from 0 on nor -1, which is no limit", n.field, *n.value)
		}
	}
	return nil
}

type resourceNumber struct {
	field string
	value *int64
}

func resourceNumbers(r *specs.LinuxResources) []resourceNumber {
	var all []resourceNumber
	if m := r.Memory; m != nil {
		all = append(all, resourceNumber{"memory.limit", m.Limit}, resourceNumber{"memory.reservation", m.Reservation},
			resourceNumber{"memory.swap", m.Swap}, resourceNumber{"memory.kernelTCP", m.KernelTCP})
	}
	if c := r.CPU; c != nil {
		all = append(all, resourceNumber{"cpu.quota", c.Quota}, resourceNumber{"cpu.realtimeRuntime", c.RealtimeRuntime})
	}
	return all
}

func checkPaths(spec *specs.Spec) error {
	for _, list := range []struct {
		field string
		paths []string
	}{{"linux.maskedPaths", spec.Linux.MaskedPaths}, {"linux.readonlyPaths", spec.Linux.ReadonlyPaths}} {
		for i, name := range list.paths {
			if !path.IsAbs(name) || strings.ContainsRune(name, 0) {
				return fmt.Errorf("%s[%d]: %q is not an absolute path", list.field, i, name)
			}
		}
	}
	for i, d := range spec.Linux.Devices {
		if !path.IsAbs(d.Path) || strings.ContainsRune(d.Path, 0) {
			return fmt.Errorf("linux.devices[%d].path: %q is not an absolute path", i, d.Path)
		}
	}
	return nil
}

func checkMounts(spec *specs.Spec) error {
	for i, m := range spec.Mounts {
		field := fmt.Sprintf("mounts[%d]", i)
		if m.Destination == "" {
			return fmt.Errorf("%s.destination: is missing", field)
		}
		err := noNULs(map[string][]string{field + ".options": m.Options})
		if err == nil && strings.ContainsRune(m.Destination+m.Source+m.Type, 0) {
			err = fmt.Errorf("%s: contains a NUL byte", field)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkIntelRdt: closID is one name below the root of resctrl, where the
// kernel has names of its own.
func checkIntelRdt(spec *specs.Spec) error {
	rdt := spec.Linux.IntelRdt
	if rdt == nil {
		return nil
	}
	switch rdt.ClosID {
	case ".", "..", "info", "mon_groups", "mon_data":
		return fmt.Errorf("linux.intelRdt.closID: %q is not the name of a class", rdt.ClosID)
	}
	switch {
	case rdt.ClosID != "/" && strings.ContainsAny(rdt.ClosID, "/\n\x00"):
		return fmt.Errorf("linux.intelRdt.closID: %q is not the name of a class", rdt.ClosID)
	case strings.ContainsAny(rdt.L3CacheSchema, "\n\x00"):
		return errors.New("linux.intelRdt.l3CacheSchema: contains a newline or a NUL byte")
	case rdt.MemBwSchema != "" && (!strings.HasPrefix(rdt.MemBwSchema, "MB:") || strings.ContainsAny(rdt.MemBwSchema, "\n\x00")):
		return fmt.Errorf("linux.intelRdt.memBwSchema: %q does not begin with MB:, or contains a newline", rdt.MemBwSchema)
	}
	for i, line := range rdt.Schemata {
		if strings.ContainsAny(line, "\n\x00") {
			return fmt.Errorf("linux.intelRdt.schemata[%d]: contains a newline or a NUL byte", i)
		}
	}
	return nil
}
