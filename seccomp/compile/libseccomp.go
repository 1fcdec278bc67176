// SPDX-License-Identifier: Apache-2.0

//go:build cgo && libseccomp

package compile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Version returns the version of libseccomp this is linked with.
func Version() string {
	major, minor, micro := libseccomp.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}

// Compile returns the filter of a valid section as an array of struct
// sock_filter.
func Compile(sp *specs.LinuxSeccomp) ([]byte, error) {
	c, err := newCompiler(sp)
	if err != nil {
		return nil, err
	}
	defer c.filter.Release()
	for i, call := range sp.Syscalls {
		if err := c.add(call); err != nil {
			return nil, fmt.Errorf("seccomp.syscalls[%d]: %w", i, err)
		}
	}
	program, err := export(c.filter)
	if err != nil {
		return nil, fmt.Errorf("generate filter: %w", err)
	}
	return withPrologue(sp, c.known(), program)
}

// export returns the program by way of a file in memory: writing to memory
// itself came with libseccomp 2.6.
func export(f *libseccomp.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "filter")
	defer file.Close()
	if err := f.ExportBPF(file); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(file)
}

type compiler struct {
	filter  *libseccomp.ScmpFilter
	deflt   libseccomp.ScmpAction
	allows  bool // the default lets calls through
	arches  []specs.Arch
	tokens  []libseccomp.ScmpArch
	highest []int64 // per architecture, -1: none
}

func newCompiler(sp *specs.LinuxSeccomp) (*compiler, error) {
	deflt, err := action(sp.DefaultAction, sp.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	c := &compiler{deflt: deflt}
	switch sp.DefaultAction {
	case specs.ActAllow, specs.ActLog:
		c.allows = true
	}
	if c.filter, err = libseccomp.NewFilter(deflt); err != nil {
		return nil, fmt.Errorf("make filter: %w", err)
	}
	if err := c.prepare(sp); err != nil {
		c.filter.Release()
		return nil, err
	}
	return c, nil
}

func (c *compiler) prepare(sp *specs.LinuxSeccomp) error {
	native, err := libseccomp.GetNativeArch()
	if err != nil {
		return fmt.Errorf("find native architecture: %w", err)
	}
	// The native architecture is always in, whatever the profile lists: the
	// program that installs the filter has to go on running.
	if err := c.addArch(ociArch(native), native); err != nil {
		return err
	}
	for _, name := range sp.Architectures {
		token, err := tokenOf(name)
		if err != nil {
			return fmt.Errorf("seccomp.architectures: libseccomp %s does not know %s", Version(), name)
		}
		if token == native {
			continue
		}
		if err := c.addArch(name, token); err != nil {
			return err
		}
	}
	// gantry-init sets no_new_privs where it is wanted; the filter itself
	// carries no attributes.
	if err := c.filter.SetNoNewPrivsBit(false); err != nil {
		return fmt.Errorf("leave no_new_privs alone: %w", err)
	}
	// A binary tree over the call's number: the depth of a decision is the
	// logarithm of the number of rules (libseccomp 2.5).
	if err := c.filter.SetOptimize(2); err != nil {
		var version libseccomp.VersionError
		if !errors.As(err, &version) {
			return fmt.Errorf("optimise filter: %w", err)
		}
	}
	return nil
}

func (c *compiler) addArch(name specs.Arch, token libseccomp.ScmpArch) error {
	if err := c.filter.AddArch(token); err != nil {
		return fmt.Errorf("add architecture %s: %w", name, err)
	}
	c.arches = append(c.arches, name)
	c.tokens = append(c.tokens, token)
	c.highest = append(c.highest, -1)
	return nil
}

// tokenOf returns libseccomp's architecture for the specification's name.
func tokenOf(name specs.Arch) (libseccomp.ScmpArch, error) {
	return libseccomp.GetArchFromString(strings.ToLower(strings.TrimPrefix(string(name), "SCMP_ARCH_")))
}

// ociArch is the way back. The binding's own names are those of Go (amd64).
func ociArch(token libseccomp.ScmpArch) specs.Arch {
	for name := range auditArches() {
		if t, err := tokenOf(name); err == nil && t == token {
			return name
		}
	}
	return specs.Arch(token.String())
}

// known returns the highest numbers that were named.
func (c *compiler) known() []newest {
	var out []newest
	for i, n := range c.highest {
		if n >= 0 {
			out = append(out, newest{c.arches[i], uint32(n)})
		}
	}
	return out
}

// add adds one rule for each of its names.
func (c *compiler) add(call specs.LinuxSyscall) error {
	act, err := action(call.Action, call.ErrnoRet)
	if err != nil {
		return err
	}
	sets, err := conditions(call.Args)
	if err != nil {
		return err
	}
	for _, name := range call.Names {
		found := c.see(name)
		if act == c.deflt {
			continue // libseccomp refuses rules that say nothing new
		}
		if !found {
			// Allowing what does not exist is nothing; forbidding it would
			// be a promise we cannot keep.
			if c.allows && call.Action != specs.ActAllow && call.Action != specs.ActLog {
				return fmt.Errorf("libseccomp %s does not know the system call %q and cannot forbid it", Version(), name)
			}
			continue
		}
		if err := c.addOne(name, act, sets); err != nil {
			return fmt.Errorf("add rule for %s: %w", name, err)
		}
	}
	return nil
}

// see notes a name's numbers and reports whether any architecture has it.
func (c *compiler) see(name string) bool {
	found := false
	for i, token := range c.tokens {
		n, err := libseccomp.GetSyscallFromNameByArch(name, token)
		if err != nil {
			continue
		}
		found = true
		// Negative numbers stand for calls another architecture has.
		c.highest[i] = max(c.highest[i], int64(n))
	}
	return found
}

func (c *compiler) addOne(name string, act libseccomp.ScmpAction, sets [][]libseccomp.ScmpCondition) error {
	call, err := libseccomp.GetSyscallFromName(name)
	if err != nil {
		return nil // not on the native architecture, which libseccomp goes by
	}
	if len(sets) == 0 {
		return c.filter.AddRule(call, act)
	}
	for _, set := range sets {
		if err := c.filter.AddRuleConditional(call, act, set); err != nil {
			return err
		}
	}
	return nil
}

// conditions returns the rules a list of arguments makes: one rule with all
// conditions, or, when an argument is compared twice, one rule for each. The
// latter is how runc reads such lists, and profiles rely on it.
func conditions(args []specs.LinuxSeccompArg) ([][]libseccomp.ScmpCondition, error) {
	var all []libseccomp.ScmpCondition
	var twice bool
	seen := map[uint]bool{}
	for i, a := range args {
		twice = twice || seen[a.Index]
		seen[a.Index] = true
		op, ok := operator(a.Op)
		if !ok {
			return nil, fmt.Errorf("args[%d].op: %q is unknown", i, a.Op)
		}
		values := []uint64{a.Value}
		if a.Op == specs.OpMaskedEqual {
			values = append(values, a.ValueTwo)
		}
		condition, err := libseccomp.MakeCondition(a.Index, op, values...)
		if err != nil {
			return nil, fmt.Errorf("args[%d]: %w", i, err)
		}
		all = append(all, condition)
	}
	if len(all) == 0 {
		return nil, nil
	}
	if !twice {
		return [][]libseccomp.ScmpCondition{all}, nil
	}
	var sets [][]libseccomp.ScmpCondition
	for _, condition := range all {
		sets = append(sets, []libseccomp.ScmpCondition{condition})
	}
	return sets, nil
}

func operator(op specs.LinuxSeccompOperator) (libseccomp.ScmpCompareOp, bool) {
	found, ok := map[specs.LinuxSeccompOperator]libseccomp.ScmpCompareOp{
		specs.OpNotEqual:     libseccomp.CompareNotEqual,
		specs.OpLessThan:     libseccomp.CompareLess,
		specs.OpLessEqual:    libseccomp.CompareLessOrEqual,
		specs.OpEqualTo:      libseccomp.CompareEqual,
		specs.OpGreaterEqual: libseccomp.CompareGreaterEqual,
		specs.OpGreaterThan:  libseccomp.CompareGreater,
		specs.OpMaskedEqual:  libseccomp.CompareMaskedEqual,
	}[op]
	return found, ok
}

func action(a specs.LinuxSeccompAction, ret *uint) (libseccomp.ScmpAction, error) {
	code := int16(unix.EPERM)
	if ret != nil {
		code = int16(*ret)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return libseccomp.ActKillThread, nil
	case specs.ActKillProcess:
		return libseccomp.ActKillProcess, nil
	case specs.ActTrap:
		return libseccomp.ActTrap, nil
	case specs.ActErrno:
		return libseccomp.ActErrno.SetReturnCode(code), nil
	case specs.ActTrace:
		return libseccomp.ActTrace.SetReturnCode(code), nil
	case specs.ActAllow:
		return libseccomp.ActAllow, nil
	case specs.ActLog:
		return libseccomp.ActLog, nil
	case specs.ActNotify:
		return libseccomp.ActNotify, nil
	}
	return libseccomp.ActInvalid, fmt.Errorf("action %q is unknown", a)
}
