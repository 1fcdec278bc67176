// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"
	"math"
	"os"
	"slices"

	"github.com/cilium/ebpf/asm"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// attachDeviceFilter puts device rules on a unified group. It stays as long
// as the group does.
func attachDeviceFilter(dir *os.File, rules []specs.LinuxDeviceCgroup) error {
	program, err := deviceFilter(rules)
	if err != nil {
		return err
	}
	_, err = cgroup2.LoadAttachCgroupDeviceFilter(program, "Apache", int(dir.Fd()))
	return err
}

// deviceFilter compiles rules to a BPF_CGROUP_DEVICE program: the last rule
// that fits decides, none means no.
//
// The library has a compiler too (cgroup2.DeviceFilter, 3.1.3). It takes an
// allow rule as fitting when any one of the wanted accesses is in it, so a
// read-only rule lets O_RDWR through; here all of them have to be.
func deviceFilter(rules []specs.LinuxDeviceCgroup) (asm.Instructions, error) {
	program := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.And.Imm32(asm.R2, 0xffff), // R2: type
		asm.LoadMem(asm.R3, asm.R1, 0, asm.Word),
		asm.RSh.Imm32(asm.R3, 16),                // R3: wanted access
		asm.LoadMem(asm.R4, asm.R1, 4, asm.Word), // R4: major
		asm.LoadMem(asm.R5, asm.R1, 8, asm.Word), // R5: minor
	}
	rules = mergeRules(rules)
	for i, rule := range slices.Backward(rules) {
		one, err := deviceRule(rule, fmt.Sprintf("next-%d", i))
		if err != nil {
			return nil, err
		}
		if i != len(rules)-1 { // every block but the first is jumped to
			one[0] = one[0].WithSymbol(fmt.Sprintf("next-%d", i+1))
		}
		program = append(program, one...)
	}
	return append(program,
		asm.Mov.Imm32(asm.R0, 0).WithSymbol("next-0"),
		asm.Return(),
	), nil
}

// deviceRule returns the instructions that decide if the rule fits and go to
// next if it does not.
func deviceRule(d specs.LinuxDeviceCgroup, next string) (asm.Instructions, error) {
	var access int32
	for _, c := range d.Access {
		access |= map[rune]int32{'r': unix.BPF_DEVCG_ACC_READ, 'w': unix.BPF_DEVCG_ACC_WRITE, 'm': unix.BPF_DEVCG_ACC_MKNOD}[c]
	}
	const all = unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE | unix.BPF_DEVCG_ACC_MKNOD
	verdict := int32(0)
	out := asm.Instructions{asm.Mov.Reg32(asm.R1, asm.R3)}
	if d.Allow { // fits when nothing is wanted beyond the rule
		verdict = 1
		out = append(out, asm.And.Imm32(asm.R1, all&^access), asm.JNE.Imm(asm.R1, 0, next))
	} else { // fits when anything is wanted that the rule forbids
		out = append(out, asm.And.Imm32(asm.R1, access), asm.JEq.Imm(asm.R1, 0, next))
	}
	switch d.Type {
	case "c":
		out = append(out, asm.JNE.Imm(asm.R2, unix.BPF_DEVCG_DEV_CHAR, next))
	case "b":
		out = append(out, asm.JNE.Imm(asm.R2, unix.BPF_DEVCG_DEV_BLOCK, next))
	}
	for _, n := range []struct {
		number *int64
		reg    asm.Register
	}{{d.Major, asm.R4}, {d.Minor, asm.R5}} {
		if n.number == nil || *n.number == -1 || d.Type == "a" {
			continue
		}
		if *n.number < 0 || *n.number > math.MaxInt32 {
			return nil, fmt.Errorf("device number %d is out of range", *n.number)
		}
		out = append(out, asm.JNE.Imm(n.reg, int32(*n.number), next))
	}
	return append(out, asm.Mov.Imm32(asm.R0, verdict), asm.Return()), nil
}

// mergeRules joins neighbouring allow rules for the same device: "r" and then
// "w" together allow O_RDWR, as they do on v1.
func mergeRules(rules []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	var out []specs.LinuxDeviceCgroup
	for _, d := range rules {
		if n := len(out) - 1; n >= 0 && d.Allow && out[n].Allow && sameDevice(out[n], d) {
			out[n].Access += d.Access
			continue
		}
		out = append(out, d)
	}
	return out
}

func sameDevice(a, b specs.LinuxDeviceCgroup) bool {
	number := func(n *int64) int64 {
		if n == nil {
			return -1
		}
		return *n
	}
	return a.Type == b.Type && number(a.Major) == number(b.Major) && number(a.Minor) == number(b.Minor)
}
