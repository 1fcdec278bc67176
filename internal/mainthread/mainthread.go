// SPDX-License-Identifier: Apache-2.0

// Package mainthread has a program work on its first thread, which is the one
// that namespaces, death signals and pending signals are about: /proc/PID is its
// view, and it is the one that survives an execve.
//
// Locking the main goroutine in an init function says the same, and costs each
// start of a program a quarter of a millisecond: the runtime, which starts
// threads of its own meanwhile, hands the processor to and fro around a
// goroutine that may not leave its thread. So it is locked when main begins.
package mainthread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Run calls f on the first thread, which is f's alone while it runs. It is to be
// the first that main does, and mostly is there already; but the scheduler may
// have moved main before.
func Run(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Gettid() == unix.Getpid() {
		f()
		return
	}
	// This thread is occupied while another goroutine looks for the first one:
	// sooner or later there is no other left that is idle.
	done := make(chan struct{})
	go func() {
		defer close(done)
		Run(f)
	}()
	<-done
}
