// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// signals carries signals over the clone and the in-place exec. Before the
// clone they end the launch; from then on they are blocked on all threads
// and stay pending until the supervisor reads them.
type signals struct {
	seen    chan os.Signal
	blocked bool
}

// watch begins to collect signals. A signal the caller ignores (nohup) stays
// ignored.
func watch() *signals {
	s := &signals{}
	s.notify()
	return s
}

func (s *signals) notify() {
	s.seen = make(chan os.Signal, 64)
	for _, sig := range []os.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH,
	} {
		if !signal.Ignored(sig) {
			signal.Notify(s.seen, sig)
		}
	}
}

// block blocks signals on all threads, and tells whether one that ends a
// launch had come before.
func (s *signals) block() (interrupted bool, err error) {
	if err := setMask(unix.SIG_BLOCK); err != nil {
		return false, err
	}
	s.blocked = true
	for _, sig := range s.drain() {
		if sig != unix.SIGWINCH {
			interrupted = true
		}
	}
	// A thread the runtime starts later is born unblocked: what it catches
	// must not kill us.
	s.notify()
	return interrupted, nil
}

// drain ends the collection and returns what came. Stop waits for signals on
// their way to the channel.
func (s *signals) drain() []syscall.Signal {
	signal.Stop(s.seen)
	var came []syscall.Signal
	for {
		select {
		case sig := <-s.seen:
			if n, ok := sig.(syscall.Signal); ok {
				came = append(came, n)
			}
		default:
			return came
		}
	}
}

// giveBack undoes block after a launch that failed: what is pending reaches
// the handlers of the caller.
func (s *signals) giveBack() {
	signal.Stop(s.seen)
	if s.blocked {
		s.blocked = false
		_ = setMask(unix.SIG_UNBLOCK)
	}
}

// pend makes all signals received so far pending on this thread, which is
// about to execve: pending signals and the mask survive it.
//
// The Go runtime unblocks SIGHUP, SIGINT, SIGQUIT and SIGTERM on every thread
// it starts, also while gantry-stage1 starts, when nobody listens yet. From
// here on it is kept from that: docs/adr tells why and what was tried.
func (s *signals) pend() error {
	if err := setMask(unix.SIG_BLOCK); err != nil {
		return err
	}
	if err := freezeMasks(); err != nil {
		return err
	}
	for _, sig := range s.drain() {
		if err := unix.Tgkill(os.Getpid(), unix.Gettid(), sig); err != nil {
			return err
		}
	}
	return nil
}

// freezeMasks loads a filter on all threads that answers
// rt_sigprocmask(SIG_SETMASK), the form the Go runtime uses, with success and
// does nothing. SIG_BLOCK and SIG_UNBLOCK, which we use, work as ever.
func freezeMasks() error {
	const nr, arch, how = 0, 4, 16 // offsets in struct seccomp_data
	load := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: k}
	}
	unless := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: k}
	}
	answer := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	code := []unix.SockFilter{
		load(arch), unless(auditArch(), 5),
		load(nr), unless(unix.SYS_RT_SIGPROCMASK, 3),
		load(how), unless(unix.SIG_SETMASK, 1),
		answer(unix.SECCOMP_RET_ERRNO),
		answer(unix.SECCOMP_RET_ALLOW),
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(code)
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}

func auditArch() uint32 {
	if runtime.GOARCH == "arm64" {
		return unix.AUDIT_ARCH_AARCH64
	}
	return unix.AUDIT_ARCH_X86_64
}

// setMask blocks or unblocks all signals but the synchronous ones and
// SIGURG, with which the runtime interrupts its own threads.
func setMask(how uintptr) error {
	set := ^uint64(0)
	for _, sig := range []syscall.Signal{
		unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGSYS, unix.SIGURG,
	} {
		set &^= 1 << (sig - 1)
	}
	pointer := uintptr(unsafe.Pointer(&set))
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_RT_SIGPROCMASK, how, pointer, 0, unsafe.Sizeof(set), 0, 0)
	if errors.Is(errno, unix.ENOTSUP) {
		// A build with cgo (the race detector) has no such call; tests do
		// without the guarantee.
		_, _, errno = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, how, pointer, 0, unsafe.Sizeof(set), 0, 0)
	}
	runtime.KeepAlive(&set)
	if errno != 0 {
		return os.NewSyscallError("rt_sigprocmask", errno)
	}
	return nil
}
