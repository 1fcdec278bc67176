// SPDX-License-Identifier: Apache-2.0

package catch

import (
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func set(signals ...syscall.Signal) (s Set) {
	for _, sig := range signals {
		s |= 1 << (sig - 1)
	}
	return s
}

// arrive waits until n signals are there.
func arrive(t *testing.T, s *Signals, n int) []syscall.Signal {
	t.Helper()
	var came []syscall.Signal
	for len(came) < n {
		polls := []unix.PollFd{{Fd: int32(s.FD()), Events: unix.POLLIN}}
		ready, err := unix.Poll(polls, 5000)
		if err == unix.EINTR {
			continue
		}
		if err != nil || ready == 0 {
			t.Fatalf("after %v nothing came: %v", came, err)
		}
		came = append(came, s.Drain()...)
	}
	return came
}

func TestSignalsComeInOrder(t *testing.T) {
	real := syscall.Signal(40)
	s, err := Start(set(unix.SIGTERM, unix.SIGUSR1, real))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	var want []syscall.Signal
	for _, sig := range []syscall.Signal{unix.SIGTERM, real, unix.SIGUSR1, real} {
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		want = append(want, arrive(t, s, 1)...)
	}
	if !slices.Equal(want, []syscall.Signal{unix.SIGTERM, real, unix.SIGUSR1, real}) {
		t.Errorf("came %v", want)
	}
}

// Guards: a handler the runtime does not know may interrupt any Go code, on
// any thread, growing stacks and collecting garbage included.
func TestHandlerInterruptsEverything(t *testing.T) {
	real := syscall.Signal(41)
	s, err := Start(set(real))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		busy.Add(1)
		go func() {
			defer busy.Done()
			for {
				select {
				case <-stop:
					return
				default:
					deep(200)
				}
			}
		}()
	}
	const n = 2000
	for sent := 0; sent < n; {
		for range 50 { // fewer than may be queued
			if err := unix.Kill(os.Getpid(), real); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		arrive(t, s, 50)
	}
	close(stop)
	busy.Wait()
	if more := s.Drain(); len(more) > 0 {
		t.Errorf("%d signals too many", len(more))
	}
}

func deep(n int) []byte {
	b := make([]byte, 512)
	if n > 0 {
		b[0] = deep(n - 1)[0]
	}
	return b
}

// Guards: a signal that another thread gets is pending on the one that asked,
// also while threads are being born.
func TestForwardKeepsEverythingPending(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sig := syscall.Signal(42)
	s, err := Start(set(sig))
	if err != nil {
		t.Fatal(err)
	}
	blocked := unix.Sigset_t{Val: [16]uint64{uint64(set(sig))}}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &blocked, nil); err != nil {
		t.Fatal(err)
	}
	defer func() {
		s.Stop() // first: what is left would be passed on in circles
		_ = unix.PthreadSigmask(unix.SIG_UNBLOCK, &blocked, nil)
	}()
	s.Forward()

	stop := make(chan struct{})
	var born sync.WaitGroup
	born.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			done := make(chan struct{})
			go func() { // its thread ends with it
				runtime.LockOSThread()
				close(done)
			}()
			<-done
		}
	})
	const n = 2000
	for range n / 50 {
		for range 50 { // fewer than may be queued
			if err := unix.Kill(os.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 50 {
			got, errno := await(&blocked)
			if errno != 0 || got != sig {
				t.Fatalf("after %d of 50: signal %d: %v", i, got, errno)
			}
		}
	}
	close(stop)
	born.Wait()
	if came := s.Drain(); len(came) > 0 {
		t.Errorf("%v went into the pipe", came)
	}
}

// await takes one of a set's pending signals, waiting for it 30 s.
func await(set *unix.Sigset_t) (syscall.Signal, syscall.Errno) {
	wait := unix.Timespec{Sec: 30}
	for {
		got, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(set)),
			0, uintptr(unsafe.Pointer(&wait)), maskSize, 0, 0)
		if errno != unix.EINTR { // the runtime interrupts threads that compute for long
			return syscall.Signal(got), errno
		}
	}
}

func TestStopGivesSignalsBack(t *testing.T) {
	s, err := Start(set(unix.SIGUSR2))
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	got := make(chan os.Signal, 1)
	signal.Notify(got, unix.SIGUSR2)
	defer signal.Stop(got)
	if err := unix.Kill(os.Getpid(), unix.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	select {
	case <-got:
	case <-time.After(5 * time.Second):
		t.Error("os/signal did not get it")
	}
}

func TestIgnoredStaysIgnored(t *testing.T) {
	signal.Ignore(unix.SIGPWR)
	defer signal.Reset(unix.SIGPWR)
	s, err := Start(set(unix.SIGPWR, unix.SIGUSR1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	for _, sig := range []syscall.Signal{unix.SIGPWR, unix.SIGUSR1} {
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	if came := arrive(t, s, 1); !slices.Equal(came, []syscall.Signal{unix.SIGUSR1}) {
		t.Errorf("came %v", came)
	}
}
