// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxErrno is the kernel's MAX_ERRNO: larger values are cut by seccomp(2).
const maxErrno = 4095

// The kernel takes 4096 instructions; a profile that needs more rules than
// this cannot fit whatever libseccomp does.
const maxRules = 65536

// Validate checks a section of a bundle as the runtime specification
// describes it and names the field that is wrong.
func Validate(sp *specs.LinuxSeccomp) error {
	if sp == nil {
		return nil
	}
	if err := validAction("defaultAction", sp.DefaultAction, sp.DefaultErrnoRet); err != nil {
		return err
	}
	for i, a := range sp.Architectures {
		if !slices.Contains(architectures[:], a) {
			return fmt.Errorf("seccomp.architectures[%d]: %q is unknown", i, a)
		}
	}
	for i, f := range sp.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv:
		default:
			return fmt.Errorf("seccomp.flags[%d]: %q is unknown", i, f)
		}
	}
	rules := 0
	for i, c := range sp.Syscalls {
		if err := validCall(fmt.Sprintf("syscalls[%d]", i), c); err != nil {
			return err
		}
		if c.Action == specs.ActNotify && sp.ListenerPath == "" {
			return fmt.Errorf("seccomp.syscalls[%d].action: SCMP_ACT_NOTIFY needs seccomp.listenerPath", i)
		}
		if rules += len(c.Names); rules > maxRules {
			return fmt.Errorf("seccomp.syscalls: more than %d rules", maxRules)
		}
	}
	return nil
}

func validCall(where string, c specs.LinuxSyscall) error {
	if len(c.Names) == 0 {
		return fmt.Errorf("seccomp.%s.names is empty", where)
	}
	for _, name := range c.Names {
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return fmt.Errorf("seccomp.%s.names: %q is not the name of a system call", where, name)
		}
	}
	if err := validAction(where+".action", c.Action, c.ErrnoRet); err != nil {
		return err
	}
	for i, a := range c.Args {
		if a.Index > 5 {
			return fmt.Errorf("seccomp.%s.args[%d].index: %d, but system calls have arguments 0 to 5", where, i, a.Index)
		}
		if !slices.Contains(operators[:], a.Op) {
			return fmt.Errorf("seccomp.%s.args[%d].op: %q is unknown", where, i, a.Op)
		}
	}
	return nil
}

func validAction(where string, a specs.LinuxSeccompAction, ret *uint) error {
	if !slices.Contains(actions[:], a) {
		return fmt.Errorf("seccomp.%s: %q is unknown", where, a)
	}
	if ret == nil {
		return nil
	}
	if a != specs.ActErrno && a != specs.ActTrace {
		return fmt.Errorf("seccomp.%s: %s takes no error number", where, a)
	}
	if *ret > maxErrno {
		return fmt.Errorf("seccomp.%s: error number %d is more than %d", where, *ret, maxErrno)
	}
	return nil
}

var actions = [...]specs.LinuxSeccompAction{
	specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno,
	specs.ActTrace, specs.ActAllow, specs.ActLog, specs.ActNotify,
}

var operators = [...]specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
	specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

var architectures = [...]specs.Arch{
	specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
	specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64,
	specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390,
	specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64,
	specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// Known are the words Validate takes, for a runtime that has to list them.
func Known() ([]specs.LinuxSeccompAction, []specs.LinuxSeccompOperator, []specs.Arch) {
	return actions[:], operators[:], architectures[:]
}
