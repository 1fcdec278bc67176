// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A profile cannot know the system calls that come after it. Denying them
// with EPERM breaks programs: a C library that tries clone3 and gets ENOSYS
// falls back to clone, with EPERM it gives up. So the filter begins with a
// prologue that answers ENOSYS, as a kernel without the call would, for
// numbers above the highest the profile names; libseccomp's program decides
// the rest. Names newer than libseccomp itself have no number there and are
// above that line too. runc does the same since 1.0.0-rc94.

// newest is the highest system call number a profile names for one
// architecture.
type newest struct {
	arch   specs.Arch
	number uint32
}

// x32Bit marks the calls of the x32 ABI, which share AUDIT_ARCH_X86_64.
const x32Bit = 0x4000_0000

// auditArch returns the architecture word of struct seccomp_data.
func auditArch(a specs.Arch) (uint32, bool) {
	n, ok := auditArches()[a]
	return n, ok
}

func auditArches() map[specs.Arch]uint32 {
	return map[specs.Arch]uint32{
		specs.ArchX86:         unix.AUDIT_ARCH_I386,
		specs.ArchX86_64:      unix.AUDIT_ARCH_X86_64,
		specs.ArchX32:         unix.AUDIT_ARCH_X86_64,
		specs.ArchARM:         unix.AUDIT_ARCH_ARM,
		specs.ArchAARCH64:     unix.AUDIT_ARCH_AARCH64,
		specs.ArchMIPS:        unix.AUDIT_ARCH_MIPS,
		specs.ArchMIPS64:      unix.AUDIT_ARCH_MIPS64,
		specs.ArchMIPS64N32:   unix.AUDIT_ARCH_MIPS64N32,
		specs.ArchMIPSEL:      unix.AUDIT_ARCH_MIPSEL,
		specs.ArchMIPSEL64:    unix.AUDIT_ARCH_MIPSEL64,
		specs.ArchMIPSEL64N32: unix.AUDIT_ARCH_MIPSEL64N32,
		specs.ArchPPC:         unix.AUDIT_ARCH_PPC,
		specs.ArchPPC64:       unix.AUDIT_ARCH_PPC64,
		specs.ArchPPC64LE:     unix.AUDIT_ARCH_PPC64LE,
		specs.ArchS390:        unix.AUDIT_ARCH_S390,
		specs.ArchS390X:       unix.AUDIT_ARCH_S390X,
		specs.ArchPARISC:      unix.AUDIT_ARCH_PARISC,
		specs.ArchPARISC64:    unix.AUDIT_ARCH_PARISC64,
		specs.ArchRISCV64:     unix.AUDIT_ARCH_RISCV64,
		specs.ArchLOONGARCH64: unix.AUDIT_ARCH_LOONGARCH64,
		specs.ArchM68K:        unix.AUDIT_ARCH_M68K,
		specs.ArchSH:          unix.AUDIT_ARCH_SH,
		specs.ArchSHEB:        unix.AUDIT_ARCH_SH,
	}
}

// wantsPrologue reports whether unknown calls would be denied as if they were
// known: a profile that lets them through, hands them to somebody, or says
// ENOSYS by itself is left alone.
func wantsPrologue(sp *specs.LinuxSeccomp) bool {
	switch sp.DefaultAction {
	case specs.ActErrno:
		return sp.DefaultErrnoRet == nil || *sp.DefaultErrnoRet != uint(unix.ENOSYS)
	case specs.ActKill, specs.ActKillThread, specs.ActKillProcess, specs.ActTrap:
		return true
	}
	return false
}

// prologue returns the program to put before libseccomp's. It ends by falling
// through; every jump in it goes forward, and none of libseccomp's goes back.
//
//	    ld   arch
//	    jeq  ARCH, 0, next      one block per architecture
//	    ld   nr
//	    jge  0x40000000, x32    x86_64 only
//	    jgt  NEWEST, enosys, filter
//	x32: jgt NEWEST_X32, enosys, filter
//	next: …
//	    ja   filter
//	enosys: ret ERRNO|ENOSYS
//	filter:
func prologue(known []newest) []unix.SockFilter {
	blocks := blocksOf(known)
	length := 1 // ld arch
	for _, b := range blocks {
		length += len(b.code)
	}
	enosys := length + 1 // after the ja
	out := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offsetArch}}
	for _, b := range blocks {
		for _, ins := range b.code {
			at := len(out)
			ins.Jt, ins.Jf = resolve(ins.Jt, at, enosys), resolve(ins.Jf, at, enosys)
			out = append(out, ins)
		}
	}
	return append(out,
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: 1},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
	)
}

// Offsets in struct seccomp_data, and jump targets not yet known.
const (
	offsetNr   = 0
	offsetArch = 4

	toEnosys = 254
	toFilter = 255
)

func resolve(jump uint8, at, enosys int) uint8 {
	switch jump {
	case toEnosys:
		return uint8(enosys - at - 1)
	case toFilter:
		return uint8(enosys + 1 - at - 1)
	}
	return jump
}

type block struct{ code []unix.SockFilter }

// blocksOf returns one block per architecture word, x86_64 and x32 in one.
// Jumps are 8 bits wide: with five instructions a block, the twenty
// architectures there are stay far below.
func blocksOf(known []newest) []block {
	var out []block
	var done []uint32
	for _, n := range known {
		word, ok := auditArch(n.arch)
		if !ok || slices.Contains(done, word) {
			continue
		}
		done = append(done, word)
		load := unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offsetNr}
		var code []unix.SockFilter
		if word == unix.AUDIT_ARCH_X86_64 {
			code = append([]unix.SockFilter{load}, x86Block(known)...)
		} else {
			code = []unix.SockFilter{load, jump(unix.BPF_JGT, n.number, toEnosys, toFilter)}
		}
		match := jump(unix.BPF_JEQ, word, 0, uint8(len(code)))
		out = append(out, block{append([]unix.SockFilter{match}, code...)})
	}
	return out
}

// x86Block decides for the two ABIs behind AUDIT_ARCH_X86_64. Where the
// profile does not have one of them, libseccomp's program kills its calls,
// and that must stay so.
func x86Block(known []newest) []unix.SockFilter {
	native, x32 := highest(known, specs.ArchX86_64), highest(known, specs.ArchX32)
	one := func(n *newest) unix.SockFilter {
		if n == nil {
			return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: toFilter, Jf: toFilter}
		}
		return jump(unix.BPF_JGT, n.number, toEnosys, toFilter)
	}
	return []unix.SockFilter{jump(unix.BPF_JGE, x32Bit, 1, 0), one(native), one(x32)}
}

func highest(known []newest, arch specs.Arch) *newest {
	i := slices.IndexFunc(known, func(n newest) bool { return n.arch == arch })
	if i < 0 {
		return nil
	}
	return &known[i]
}

func jump(op uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jt: yes, Jf: no}
}

// encode lays instructions out as the kernel and libseccomp do.
func encode(program []unix.SockFilter) []byte {
	out := make([]byte, 0, 8*len(program))
	for _, ins := range program {
		out = binary.NativeEndian.AppendUint16(out, ins.Code)
		out = append(out, ins.Jt, ins.Jf)
		out = binary.NativeEndian.AppendUint32(out, ins.K)
	}
	return out
}

// maxInstructions is BPF_MAXINSNS.
const maxInstructions = 4096

// withPrologue puts the prologue before a program.
func withPrologue(sp *specs.LinuxSeccomp, known []newest, program []byte) ([]byte, error) {
	if wantsPrologue(sp) {
		program = append(encode(prologue(known)), program...)
	}
	if n := len(program) / 8; n > maxInstructions {
		return nil, fmt.Errorf("the profile needs %d instructions, and the kernel takes %d", n, maxInstructions)
	}
	return program, nil
}
