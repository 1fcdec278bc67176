// SPDX-License-Identifier: Apache-2.0

// Package catch collects signals for a process that lives for some
// milliseconds. os/signal asks a thread of its own about each signal and wakes
// the caller for each answer: for all signals some six hundred futex calls, a
// tenth of a launch, and a second thread awake beside one that is locked. Here
// a handler of a few instructions writes the number of the signal into a pipe.
//
// The Go runtime does not know: it gets its handlers back with Stop.
package catch

import (
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the handler reads. There is one collection in a process.
var (
	pipe            uintptr //nolint:unused // the write end
	process, thread uintptr //nolint:unused // of Forward; no thread: into the pipe
)

// Defined in assembly. handler is called by the kernel on the signal stack
// that the runtime gives each thread; restorer is what it returns to.
func addresses() (handler, restorer uintptr)

// action is the kernel's struct sigaction.
type action struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

const (
	ignore     = 1 // SIG_IGN
	maskSize   = 8
	saRestart  = 0x10000000
	saOnStack  = 0x08000000
	saRestorer = 0x04000000
)

// Set is signals; signal n is bit n - 1.
type Set uint64

// Signals is a collection that goes on until Stop.
type Signals struct {
	read, write int
	before      [64]action
	caught      Set
}

// Start collects the signals of a set. Those the caller of this process
// ignores (nohup) stay ignored. Nobody else may collect meanwhile.
func Start(set Set) (*Signals, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	s := &Signals{read: fds[0], write: fds[1]}
	pipe = uintptr(s.write)
	ours := action{flags: saRestart | saOnStack | saRestorer, mask: ^uint64(0)}
	ours.handler, ours.restorer = addresses()
	for i := range s.before {
		if set&(1<<i) == 0 {
			continue
		}
		if err := sigaction(i+1, nil, &s.before[i]); err != nil {
			s.Stop()
			return nil, err
		}
		if s.before[i].handler == ignore {
			continue
		}
		if err := sigaction(i+1, &ours, nil); err != nil {
			s.Stop()
			return nil, err
		}
		s.caught |= 1 << i
	}
	return s, nil
}

func sigaction(sig int, now, before *action) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(now)), uintptr(unsafe.Pointer(before)), maskSize, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("rt_sigaction", errno)
	}
	return nil
}

// FD can be polled: it is readable when a signal came.
func (s *Signals) FD() int { return s.read }

// Drain returns what came since it was asked last, in order.
func (s *Signals) Drain() []syscall.Signal {
	var came []syscall.Signal
	var b [64]byte
	for {
		n, err := unix.Read(s.read, b[:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return came
		}
		for _, sig := range b[:n] {
			came = append(came, syscall.Signal(sig))
		}
	}
}

// Forward sends the signals that come from here on to the calling thread, which
// has them blocked, so that they stay pending there.
func (s *Signals) Forward() {
	process = uintptr(unix.Getpid())
	atomic.StoreUintptr(&thread, uintptr(unix.Gettid()))
}

// Stop gives the signals back. What was not drained is lost.
func (s *Signals) Stop() {
	for i := range s.before {
		if s.caught&(1<<i) != 0 {
			_ = sigaction(i+1, &s.before[i], nil)
		}
	}
	s.caught = 0
	atomic.StoreUintptr(&thread, 0)
	_, _ = unix.Close(s.read), unix.Close(s.write)
}
