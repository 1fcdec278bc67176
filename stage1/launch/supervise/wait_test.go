// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The Go runtime interrupts a thread by SIGURG to hand its processor on. A wait
// that ends with it loses what an app wrote last.
func TestAWaitIsNotEndedByASignalOfTheRuntime(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, tid := unix.Getpid(), unix.Gettid()
	go func() {
		for range 20 {
			time.Sleep(5 * time.Millisecond)
			_ = unix.Tgkill(pid, tid, unix.SIGURG)
		}
		_, _ = unix.Write(pipe[1], []byte("x"))
	}()
	if !readableWithin(pipe[0], time.Minute) {
		t.Error("it did not wait for what was written")
	}
	_ = unix.Close(pipe[1])
	if !readableWithin(pipe[0], time.Millisecond) {
		t.Error("an end is not readable")
	}
}
