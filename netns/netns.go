// SPDX-License-Identifier: Apache-2.0

// Package netns makes the network namespaces pods live in. A namespace is
// held by a descriptor and by nothing else: no file under /run/netns, no
// process of its own. When the last descriptor and the last process in it are
// gone, the kernel takes it back with all its interfaces.
package netns

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// New returns a network namespace whose only interface, lo, is up. The caller
// closes the descriptor. The calling thread's namespace does not change.
//
// The work happens on a thread that is thrown away: a goroutine that ends
// while locked takes its thread with it, so no later goroutine can find
// itself in the wrong network.
func New() (*os.File, error) {
	type result struct {
		ns  *os.File
		err error
	}
	done := make(chan result, 1)
	go onThrownAwayThread(func() {
		ns, err := create()
		done <- result{ns, err}
	})
	r := <-done
	return r.ns, r.err
}

// onThrownAwayThread runs f on a thread that ends with it. The main thread
// cannot be thrown away: Go parks it instead, and /proc/self, which is the
// main thread's view, would show f's namespace for the rest of the process's
// life. So a goroutine that was put there keeps the thread occupied until
// another one has run f elsewhere.
func onThrownAwayThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // the thread stays locked: it ends with this goroutine
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
	runtime.UnlockOSThread()
}

// create moves the calling thread into a new network namespace for good.
func create() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("create network namespace: %w", err)
	}
	// The process's own /proc/self/ns/net still names the old namespace; only
	// this thread has moved.
	ns, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	if err := loopbackUp(); err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// loopbackUp sets lo up in the calling thread's namespace.
func loopbackUp() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open route netlink socket: %w", err)
	}
	defer h.Close()
	// lo is interface 1 of every network namespace: asking for it by name
	// would cost a round trip for what the kernel guarantees.
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
