// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// simulate runs a filter on one system call and returns its verdict.
func simulate(t testing.TB, program []byte, arch, nr uint32, args ...uint64) uint32 {
	t.Helper()
	if len(program)%8 != 0 {
		t.Fatalf("a program of %d bytes", len(program))
	}
	var code []bpf.Instruction
	for p := program; len(p) > 0; p = p[8:] {
		code = append(code, bpf.RawInstruction{
			Op: binary.NativeEndian.Uint16(p), Jt: p[2], Jf: p[3], K: binary.NativeEndian.Uint32(p[4:]),
		}.Disassemble())
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	// struct seccomp_data. The interpreter reads words as they come from the
	// network; the kernel reads the machine's own, so the words' order within
	// an argument stays the machine's (little-endian here) and their bytes are
	// turned.
	data := binary.BigEndian.AppendUint32(nil, nr)
	data = binary.BigEndian.AppendUint32(data, arch)
	data = append(data, make([]byte, 8)...) // instruction pointer
	for i := range 6 {
		var arg uint64
		if i < len(args) {
			arg = args[i]
		}
		data = binary.BigEndian.AppendUint32(data, uint32(arg))
		data = binary.BigEndian.AppendUint32(data, uint32(arg>>32))
	}
	verdict, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)
}

func errno(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }
