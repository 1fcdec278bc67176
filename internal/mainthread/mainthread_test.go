// SPDX-License-Identifier: Apache-2.0

package mainthread

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// From whatever thread, also from many at a time, it comes to the first one.
func TestFromAnyThread(t *testing.T) {
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			ran := false
			Run(func() {
				ran = true
				if unix.Gettid() != unix.Getpid() {
					t.Errorf("on thread %d of process %d", unix.Gettid(), unix.Getpid())
				}
			})
			if !ran {
				t.Error("did not run")
			}
		})
	}
	all.Wait()
}
