// SPDX-License-Identifier: Apache-2.0

package child

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// born is a process that begins as a copy of this one. It shares nothing with
// it: who may trace it, inside the pod, gets hold of a copy that has no more than
// the app.
//
// In the copy there is one thread with a Go runtime made for several: until its
// execve no stack may grow there and nothing may be preempted. So all it needs is
// ready before it is born, it does nothing but system calls, and everything it
// calls is nosplit.
type born struct {
	report     [2]int // pipe: what failed, or nothing when the execve succeeds
	pidfd      int32
	failure    failure
	open, shut uint64 // signal masks: the former one, and all
}

// failure is what goes over the pipe.
type failure struct{ stage, errno uint32 }

const maskSize = 8 // of the kernel's sigset_t

// clone makes the process, in which pid is 0 and all signals are blocked.
//
//go:nosplit
//go:norace
func (b *born) clone(flags uintptr) (pid uintptr, errno unix.Errno) {
	b.shut = ^uint64(0)
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&b.shut)), uintptr(unsafe.Pointer(&b.open)), maskSize, 0, 0)
	flags |= unix.CLONE_PIDFD | uintptr(unix.SIGCHLD)
	pid, _, errno = unix.RawSyscall6(unix.SYS_CLONE, flags, 0, uintptr(unsafe.Pointer(&b.pidfd)), 0, 0, 0)
	if errno != 0 || pid != 0 {
		b.unblock()
	}
	return pid, errno
}

// unblock has the process get the signals that were not blocked before.
//
//go:nosplit
//go:norace
func (b *born) unblock() {
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&b.open)), 0, maskSize, 0, 0)
}

// tell writes the stage and a value to the pipe.
//
//go:nosplit
//go:norace
func (b *born) tell(value uint32) {
	b.failure.errno = value
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(b.report[1]), uintptr(unsafe.Pointer(&b.failure)), unsafe.Sizeof(b.failure))
}

// end ends the process.
//
//go:nosplit
//go:norace
func (b *born) end(status uintptr) {
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, status, 0, 0)
	}
}

// hear reads what the process told; ok is false when its execve, or its end, has
// closed the pipe.
func (b *born) hear() (said failure, ok bool, err error) {
	var buf [unsafe.Sizeof(failure{})]byte
	n, err := readAll(b.report[0], buf[:])
	if err != nil || n == 0 {
		return failure{}, false, err
	}
	return failure{binary.NativeEndian.Uint32(buf[:4]), binary.NativeEndian.Uint32(buf[4:])}, true, nil
}

func readAll(fd int, b []byte) (int, error) {
	for {
		if n, err := unix.Read(fd, b); err != unix.EINTR {
			return n, err
		}
	}
}
