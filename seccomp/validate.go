// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"errors"
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
	if sp.DefaultAction == specs.ActNotify {
		return errors.New("seccomp.defaultAction: cannot be SCMP_ACT_NOTIFY: the process that loads the filter could not say so")
	}
	if sp.ListenerMetadata != "" && sp.ListenerPath == "" {
		return errors.New("seccomp.listenerMetadata: needs seccomp.listenerPath (config-linux.md, Seccomp)")
	}
	for i, a := range sp.Architectures {
		if !slices.Contains(architectures[:], a) {
			return fmt.Errorf("seccomp.architectures[%d]: %q is unknown", i, a)
		}
	}
	for i, f := range sp.Flags {
		switch f {
		case flagTSync, specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow:
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if !Notifies(sp) {
				return fmt.Errorf("seccomp.flags[%d]: %s needs a system call with SCMP_ACT_NOTIFY", i, f)
			}
		default:
			return fmt.Errorf("seccomp.flags[%d]: %q is unknown", i, f)
		}
	}
	rules := 0
	for i, c := range sp.Syscalls {
		if err := validCall(fmt.Sprintf("syscalls[%d]", i), c); err != nil {
			return err
		}
		if err := validNotify(sp, i); err != nil {
			return err
		}
		if rules += len(c.Names); rules > maxRules {
			return fmt.Errorf("seccomp.syscalls: more than %d rules", maxRules)
		}
	}
	return nil
}

// validNotify: the listener is handed over by write(2), when the filter is in
// force and nobody yet could answer for it.
func validNotify(sp *specs.LinuxSeccomp, i int) error {
	c := sp.Syscalls[i]
	switch {
	case c.Action != specs.ActNotify:
	case sp.ListenerPath == "":
		return fmt.Errorf("seccomp.syscalls[%d].action: SCMP_ACT_NOTIFY needs seccomp.listenerPath", i)
	case slices.Contains(c.Names, "write"):
		return fmt.Errorf("seccomp.syscalls[%d].names: write cannot have SCMP_ACT_NOTIFY: it is what the listener is handed over by", i)
	}
	return nil
}

// Notifies tells whether an agent is to be notified of system calls.
func Notifies(sp *specs.LinuxSeccomp) bool {
	return sp != nil && slices.ContainsFunc(sp.Syscalls, func(c specs.LinuxSyscall) bool { return c.Action == specs.ActNotify })
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
