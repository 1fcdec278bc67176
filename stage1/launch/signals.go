// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/catch"
)

// signals carries signals over the clone and the in-place exec. Before the
// clone they end the launch; those that come later are kept and given to the
// supervisor.
type signals struct {
	*catch.Signals
	kept []syscall.Signal // taken from it by pending
}

// watch begins to collect signals. A signal the caller ignores (nohup) stays
// ignored.
func watch() (*signals, error) {
	set := catch.Set(0)
	for _, sig := range []syscall.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
		unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP, unix.SIGIO, unix.SIGPWR,
	} {
		set |= 1 << (sig - 1)
	}
	// Also what init systems use as stop signals: left to itself the Go runtime
	// drops them.
	for sig := syscall.Signal(firstRealTime); sig <= lastRealTime; sig++ {
		set |= 1 << (sig - 1)
	}
	caught, err := catch.Start(set)
	return &signals{Signals: caught}, err
}

// Real-time signals that neither the C library nor the Go runtime keeps.
const firstRealTime, lastRealTime = 35, 64

// interrupted tells whether a signal that ends a launch has come, and from
// here on keeps what comes for the app.
func (s *signals) interrupted() bool {
	return slices.ContainsFunc(s.drain(), ends)
}

// ends tells whether a signal asks for the end of a launch.
func ends(sig syscall.Signal) bool {
	return sig != unix.SIGWINCH && sig != unix.SIGCONT && sig != unix.SIGTSTP
}

// pending tells whether one that ends a launch has come since the clone. It
// stays the app's, should there be one.
func (s *signals) pending() bool {
	s.kept = s.drain()
	return slices.ContainsFunc(s.kept, ends)
}

// drain returns what came and begins a new collection.
func (s *signals) drain() []syscall.Signal {
	came := append(s.kept, s.Drain()...)
	s.kept = nil
	return came
}

// giveBack leaves signals to the caller's handlers again.
func (s *signals) giveBack() { s.Stop() }

// pend makes all signals received so far pending on this thread, which is
// about to execve: pending signals and the mask survive it.
//
// The Go runtime unblocks SIGHUP, SIGINT, SIGQUIT and SIGTERM on every thread
// it starts, also while gantry-stage1 starts, when nobody listens yet. From
// here on it is kept from that: docs/adr tells why and what was tried.
func (s *signals) pend() error {
	// SIGURG too: the runtime interrupts its threads with it.
	if err := setMask(unix.SIG_BLOCK, forwarded()|urgent); err != nil {
		return err
	}
	// Threads that are born between this and the freezing have them unblocked,
	// and must be let be: a signal of the runtime's own would find them without
	// the mask that protects their beginning. What they get, they pass on.
	s.Forward()
	// Where we may not load a filter a signal of this one moment may end the
	// pod; that is no reason to end it for certain. It waits for the handlers
	// that had begun before.
	_ = freezeMasks()
	for _, sig := range s.drain() {
		if err := unix.Tgkill(os.Getpid(), unix.Gettid(), sig); err != nil {
			return err
		}
	}
	return nil
}

// freezeMasks loads a filter on all threads that answers
// rt_sigprocmask(SIG_SETMASK), the form the Go runtime uses, with success and
// does nothing. SIG_BLOCK and SIG_UNBLOCK, which we use, work as ever. It stays
// with the supervisor and the hooks it runs, and is about calls from where our
// own executables lie: those of others are above, where the kernel puts what can
// lie anywhere.
func freezeMasks() error {
	const nr, arch, at, how = 0, 4, 8, 16 // offsets in struct seccomp_data
	const ours = 64 << 20
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
		load(arch), unless(auditArch(), 9),
		load(nr), unless(unix.SYS_RT_SIGPROCMASK, 7),
		load(how), unless(unix.SIG_SETMASK, 5),
		load(at + 4), unless(0, 3), // the upper half, on what is little endian
		load(at),
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: ours, Jt: 1},
		answer(unix.SECCOMP_RET_ERRNO),
		answer(unix.SECCOMP_RET_ALLOW),
	}
	prog := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	var pin runtime.Pinner // on the heap: a stack may move on the way
	defer pin.Unpin()
	pin.Pin(prog)
	pin.Pin(prog.Filter)
	// Thread by thread while the world is stopped, not with TSYNC: a thread in
	// the middle of making another would keep the mask it has only there.
	return onAllThreads("seccomp", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(prog)), 0)
}

func auditArch() uint32 {
	if runtime.GOARCH == "arm64" {
		return unix.AUDIT_ARCH_AARCH64
	}
	return unix.AUDIT_ARCH_X86_64
}

const urgent = 1 << (unix.SIGURG - 1)

// forwarded is the set of signals kept for the app: all but the synchronous
// ones, SIGURG, and the three the C library and the Go runtime keep for
// themselves (AllThreadsSyscall waits for one of them).
func forwarded() uint64 {
	set := ^uint64(urgent)
	for _, sig := range []syscall.Signal{
		unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGSYS, 32, 33, 34,
	} {
		set &^= 1 << (sig - 1)
	}
	return set
}

// setMask blocks or unblocks signals on all threads.
func setMask(how uintptr, set uint64) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&set)
	return onAllThreads("rt_sigprocmask", unix.SYS_RT_SIGPROCMASK, how, uintptr(unsafe.Pointer(&set)), 0, unsafe.Sizeof(set))
}

// onAllThreads does a system call on every thread of the process. A build
// with cgo (the race detector) cannot: there it is done on this one, and
// tests do without the guarantee.
func onAllThreads(name string, nr, a, b, c, d uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(nr, a, b, c, d, 0, 0)
	if errors.Is(errno, unix.ENOTSUP) {
		_, _, errno = unix.RawSyscall6(nr, a, b, c, d, 0, 0)
	}
	if errno != 0 {
		return os.NewSyscallError(name, errno)
	}
	return nil
}
