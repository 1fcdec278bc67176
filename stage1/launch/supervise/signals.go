// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const signalSize = 8 // of the kernel's sigset_t

// openSignals blocks what is to be forwarded and opens a signalfd for it. The
// mask is inherited from gantry, so that nothing was lost on the way. With
// orphans the end of a child is a signal to read, too.
func openSignals(orphans bool) (int, error) {
	set := ^uint64(0)
	for _, sig := range []unix.Signal{
		unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGSYS,
		unix.SIGURG, unix.SIGCHLD, 32, 33, 34, // the runtime's own
	} {
		set &^= 1 << (sig - 1)
	}
	if orphans {
		set |= 1 << (unix.SIGCHLD - 1)
	}
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK,
		uintptr(unsafe.Pointer(&set)), 0, signalSize, 0, 0); errno != 0 {
		return -1, errno
	}
	// Background writes and terminal settings must not stop us.
	set &^= 1<<(unix.SIGPIPE-1) | 1<<(unix.SIGTTIN-1) | 1<<(unix.SIGTTOU-1)
	fd, _, errno := unix.RawSyscall6(unix.SYS_SIGNALFD4, ^uintptr(0),
		uintptr(unsafe.Pointer(&set)), signalSize, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// readSignals takes all pending signals and deals with each.
func (s *supervisor) readSignals() {
	var info unix.SignalfdSiginfo
	const size = int(unsafe.Sizeof(info))
	for {
		b := unsafe.Slice((*byte)(unsafe.Pointer(&info)), size)
		n, err := unix.Read(s.signals, b)
		if err != nil || n != size {
			return
		}
		s.signal(unix.Signal(info.Signo))
	}
}

// signal does what a signal to us means: almost always, the app gets it.
func (s *supervisor) signal(sig unix.Signal) {
	switch {
	case sig == unix.SIGCHLD && s.Orphans:
		s.reapOrphans()
	case sig == unix.SIGWINCH && s.Pty >= 0:
		resize(s.Pty) // which tells the app
	case sig == unix.SIGTSTP:
		s.suspend()
	case sig == unix.SIGCONT:
		if s.tty != nil {
			s.tty.raw()
		}
		if s.Pty >= 0 {
			resize(s.Pty)
		}
		_ = s.kill(sig)
	default:
		_ = s.kill(sig)
	}
}

// suspend is job control: the shell sees a stopped job, and fg goes on. With
// a terminal of its own the app goes on running: ^Z went to it and not here.
func (s *supervisor) suspend() {
	if s.tty != nil {
		s.tty.restore()
	} else {
		// As process 1 of its namespace it would ignore SIGTSTP.
		_ = s.kill(unix.SIGSTOP)
	}
	_ = unix.Kill(unix.Getpid(), unix.SIGSTOP)
}

// dieBy ends this process by the signal the app died by, without a core
// file. As process 1, which no signal ends, it exits like a shell.
func dieBy(sig unix.Signal) {
	// A limit of 0 would not keep a program that core_pattern pipes to from
	// being told of a crash of ours.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	var action [32]byte // all zero: SIG_DFL, no flags, empty mask
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, signalSize, 0, 0)
	set := uint64(1) << (sig - 1)
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_UNBLOCK, uintptr(unsafe.Pointer(&set)), 0, signalSize, 0, 0)
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), sig)
	unix.Exit(128 + int(sig))
}
