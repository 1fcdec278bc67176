// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// instruction is one of an eBPF program, as the kernel reads it (struct
// bpf_insn, little endian). A library with an assembler costs every start of gantry more than
// these thirty lines of program are worth.
type instruction struct {
	code      uint8
	registers uint8 // source << 4 | destination
	offset    int16
	immediate int32
}

// Operations of eBPF that device rules need (instruction-set.rst).
const (
	loadWord   = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	move       = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_K
	moveFrom   = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	and        = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	shiftRight = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	ifEqual    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	ifNot      = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
	leave      = unix.BPF_JMP | unix.BPF_EXIT
)

// What the program keeps in which register; the first is the verdict, in the
// second the kernel hands over struct bpf_cgroup_dev_ctx.
const (
	verdict = iota
	scratch
	kind
	wanted
	major
	minor
)

// attachDeviceFilter puts device rules on a unified group. It stays as long
// as the group does.
func attachDeviceFilter(dir *os.File, rules []specs.LinuxDeviceCgroup) error {
	program, err := deviceFilter(rules)
	if err != nil {
		return err
	}
	fd, err := loadDeviceFilter(program)
	if err != nil {
		return fmt.Errorf("load device program: %w", err)
	}
	defer unix.Close(fd)
	attach := struct{ target, program, kind, flags uint32 }{
		uint32(dir.Fd()), uint32(fd), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI,
	}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach)); err != nil {
		return fmt.Errorf("attach device program: %w", err)
	}
	return nil
}

func loadDeviceFilter(program []instruction) (int, error) {
	license := [...]byte{'A', 'p', 'a', 'c', 'h', 'e', 0}
	load := struct {
		kind, count             uint32
		instructions, license   uint64
		logLevel, logSize       uint32
		log                     uint64
		kernelVersion, progFlag uint32
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(program))}
	load.instructions = uint64(uintptr(unsafe.Pointer(&program[0])))
	load.license = uint64(uintptr(unsafe.Pointer(&license)))
	var fd int
	err := retry(func() (err error) {
		fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
		return err
	})
	runtime.KeepAlive(program)
	runtime.KeepAlive(&license)
	return fd, err
}

// retry goes on where a signal came, and where the kernel counts programs as
// locked memory (before 5.11) lifts that limit meanwhile.
func retry(do func() error) error {
	err := do()
	for err == unix.EINTR || err == unix.EAGAIN {
		err = do()
	}
	var was unix.Rlimit
	if err != unix.EPERM || unix.Prlimit(0, unix.RLIMIT_MEMLOCK, nil, &was) != nil {
		return err
	}
	no := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &no, nil) != nil {
		return err
	}
	err = do()
	return errors.Join(err, unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &was, nil))
}

func bpf(command uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// deviceFilter compiles rules to a BPF_CGROUP_DEVICE program: the last rule
// that fits decides, none means no.
//
// An allow rule fits when all of the wanted accesses are in it: where any one
// were enough (as in the compiler of containerd/cgroups 3.1.3), a read-only
// rule would let O_RDWR through.
func deviceFilter(rules []specs.LinuxDeviceCgroup) ([]instruction, error) {
	program := []instruction{
		{loadWord, scratch<<4 | kind, 0, 0},
		{and, kind, 0, 0xffff},
		{loadWord, scratch<<4 | wanted, 0, 0},
		{shiftRight, wanted, 0, 16},
		{loadWord, scratch<<4 | major, 4, 0},
		{loadWord, scratch<<4 | minor, 8, 0},
	}
	for _, rule := range slices.Backward(mergeRules(rules)) {
		one, err := deviceRule(rule)
		if err != nil {
			return nil, err
		}
		program = append(program, one...)
	}
	return append(program, instruction{move, verdict, 0, 0}, instruction{code: leave}), nil
}

// deviceRule returns the instructions that decide if the rule fits, and jump
// behind themselves if it does not.
func deviceRule(d specs.LinuxDeviceCgroup) ([]instruction, error) {
	var access int32
	for _, c := range d.Access {
		access |= map[rune]int32{'r': unix.BPF_DEVCG_ACC_READ, 'w': unix.BPF_DEVCG_ACC_WRITE, 'm': unix.BPF_DEVCG_ACC_MKNOD}[c]
	}
	const all = unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE | unix.BPF_DEVCG_ACC_MKNOD
	says := int32(0)
	out := []instruction{{moveFrom, wanted<<4 | scratch, 0, 0}}
	if d.Allow { // fits when nothing is wanted beyond the rule
		says = 1
		out = append(out, instruction{and, scratch, 0, all &^ access}, instruction{ifNot, scratch, 0, 0})
	} else { // fits when anything is wanted that the rule forbids
		out = append(out, instruction{and, scratch, 0, access}, instruction{ifEqual, scratch, 0, 0})
	}
	switch d.Type {
	case "c":
		out = append(out, instruction{ifNot, kind, 0, unix.BPF_DEVCG_DEV_CHAR})
	case "b":
		out = append(out, instruction{ifNot, kind, 0, unix.BPF_DEVCG_DEV_BLOCK})
	}
	for _, n := range []struct {
		number   *int64
		register uint8
	}{{d.Major, major}, {d.Minor, minor}} {
		if n.number == nil || *n.number == -1 {
			continue
		}
		if *n.number < 0 || *n.number > math.MaxInt32 {
			return nil, fmt.Errorf("device number %d is out of range", *n.number)
		}
		out = append(out, instruction{ifNot, n.register, 0, int32(*n.number)})
	}
	out = append(out, instruction{move, verdict, 0, says}, instruction{code: leave})
	for i := range out {
		if out[i].code == ifNot || out[i].code == ifEqual {
			out[i].offset = int16(len(out) - i - 1)
		}
	}
	return out, nil
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
