// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Guards: a thread that was being born while the masks were frozen met a signal
// of the runtime's own ("bad g in signal handler"), or took one of the app's
// with it into the execve.
func TestPendingAmongThreadsBeingBorn(t *testing.T) {
	if os.Getenv("PENDING_CHILD") != "" {
		pendAmongThreads(t)
		return
	}
	for range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "PENDING_CHILD=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %.500s", err, out)
		}
	}
}

func pendAmongThreads(t *testing.T) {
	runtime.LockOSThread()                                    // it stays frozen, and ends with the process
	const sig, most, threads = syscall.Signal(40), 4000, 3000 // a Go program has at most 10,000
	s, err := watch()
	if err != nil {
		t.Fatal(err)
	}
	var sent, pended atomic.Int32
	var busy sync.WaitGroup
	for range 2 {
		busy.Go(func() {
			for n := 0; n < 100 || pended.Load() == 0; n++ {
				if n < threads {
					done := make(chan struct{})
					go func() {
						runtime.LockOSThread() // a thread of its own, which stays
						close(done)
						select {}
					}()
					<-done
				}
				if sent.Load() < most && unix.Kill(os.Getpid(), sig) == nil {
					sent.Add(1)
				}
			}
		})
	}
	for sent.Load() < 20 {
		runtime.Gosched()
	}
	if err := s.pend(); err != nil {
		t.Fatal(err)
	}
	pended.Store(1)
	busy.Wait()

	set, at := uint64(1)<<(sig-1), unix.Timespec{Sec: 10} // a handler may be at it still
	for got := int32(0); got < sent.Load(); {
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), 0,
			uintptr(unsafe.Pointer(&at)), unsafe.Sizeof(set), 0, 0)
		switch errno {
		case 0:
			got++
		case unix.EINTR:
		default:
			t.Fatalf("%d of %d signals are pending: %v", got, sent.Load(), errno)
		}
	}
}
