// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"errors"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The prologue in front of a program that allows everything: what it does not
// answer is allowed.
func TestPrologue(t *testing.T) {
	all := []newest{{specs.ArchX86_64, 450}, {specs.ArchX86, 440}, {specs.ArchX32, x32Bit | 547}, {specs.ArchAARCH64, 430}}
	const (
		allow  = unix.SECCOMP_RET_ALLOW
		nosys  = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		x86    = unix.AUDIT_ARCH_I386
		x86_64 = unix.AUDIT_ARCH_X86_64
	)
	for _, tt := range []struct {
		name  string
		known []newest
		arch  uint32
		nr    uint32
		want  uint32
	}{
		{"first call", all, x86_64, 0, allow},
		{"newest call", all, x86_64, 450, allow},
		{"next call", all, x86_64, 451, nosys},
		{"last before x32", all, x86_64, x32Bit - 1, nosys},
		{"first x32", all, x86_64, x32Bit, allow},
		{"newest x32", all, x86_64, x32Bit | 547, allow},
		{"next x32", all, x86_64, x32Bit | 548, nosys},
		{"the number -1", all, x86_64, 0xffffffff, nosys},
		{"i386 has its own line", all, x86, 440, allow},
		{"i386 above", all, x86, 441, nosys},
		{"arm64", all, unix.AUDIT_ARCH_AARCH64, 430, allow},
		{"arm64 above", all, unix.AUDIT_ARCH_AARCH64, 431, nosys},
		{"an architecture not in the profile is not ours to answer", all, unix.AUDIT_ARCH_S390X, 9999, allow},
		{"x32 calls without x32 are left to libseccomp, which kills", all[:2], x86_64, x32Bit | 9999, allow},
		{"x86_64 above, without x32", all[:2], x86_64, 451, nosys},
		{"x32 alone leaves x86_64", all[2:3], x86_64, 9999, allow},
		{"x32 alone", all[2:3], x86_64, x32Bit | 9999, nosys},
		{"nothing known", nil, x86_64, 9999, allow},
	} {
		program := encode(append(prologue(tt.known), unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW}))
		if got := simulate(t, program, tt.arch, tt.nr); got != tt.want {
			t.Errorf("%s: %#x on %#x gives %#x, want %#x", tt.name, tt.nr, tt.arch, got, tt.want)
		}
	}
}

// Every architecture the specification knows at once: the jumps still reach.
func TestPrologueOfAllArchitectures(t *testing.T) {
	var known []newest
	for _, a := range []specs.Arch{
		specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS,
		specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC,
		specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
	} {
		if _, ok := auditArch(a); !ok {
			t.Errorf("%s has no audit word", a)
		}
		known = append(known, newest{a, 100})
	}
	program := encode(append(prologue(known), unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW}))
	for _, n := range known {
		word, _ := auditArch(n.arch)
		if word == unix.AUDIT_ARCH_X86_64 {
			continue // 100 means two things there
		}
		if got := simulate(t, program, word, 100); got != unix.SECCOMP_RET_ALLOW {
			t.Errorf("%s: 100 gives %#x", n.arch, got)
		}
		if got := simulate(t, program, word, 101); got != errno(unix.ENOSYS) {
			t.Errorf("%s: 101 gives %#x", n.arch, got)
		}
	}
}

func TestWantsPrologue(t *testing.T) {
	nosys, perm := uint(unix.ENOSYS), uint(unix.EPERM)
	for _, tt := range []struct {
		action specs.LinuxSeccompAction
		ret    *uint
		want   bool
	}{
		{specs.ActErrno, nil, true},
		{specs.ActErrno, &perm, true},
		{specs.ActErrno, &nosys, false},
		{specs.ActKill, nil, true},
		{specs.ActKillProcess, nil, true},
		{specs.ActTrap, nil, true},
		{specs.ActAllow, nil, false},
		{specs.ActLog, nil, false},
		{specs.ActTrace, nil, false},
		{specs.ActNotify, nil, false},
	} {
		got := wantsPrologue(&specs.LinuxSeccomp{DefaultAction: tt.action, DefaultErrnoRet: tt.ret})
		if got != tt.want {
			t.Errorf("%s: %v, want %v", tt.action, got, tt.want)
		}
	}
}

func TestTooLong(t *testing.T) {
	sp := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	if _, err := withPrologue(sp, nil, make([]byte, 8*maxInstructions)); err == nil {
		t.Error("a program the kernel would refuse passed")
	}
}

func TestWithoutLibseccomp(t *testing.T) {
	_, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow})
	if Version() == "" != errors.Is(err, ErrNoLibseccomp) {
		t.Errorf("Version %q, Compile: %v", Version(), err)
	}
}
