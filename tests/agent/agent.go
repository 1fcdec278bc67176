// SPDX-License-Identifier: Apache-2.0

// Package agent is a seccomp agent for tests: it listens where a bundle's
// linux.seccomp.listenerPath says, takes the listeners of containers and
// answers what they are asked. It shares no code with the product.
package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Notification is struct seccomp_notif of seccomp_unotify(2).
type Notification struct {
	ID    uint64
	Pid   uint32
	Flags uint32
	Nr    int32
	Arch  uint32
	IP    uint64
	Args  [6]uint64
}

// Answer is struct seccomp_notif_resp.
type Answer struct {
	ID    uint64
	Val   int64
	Error int32
	Flags uint32
}

// Continue lets the call go on.
func Continue(Notification) Answer { return Answer{Flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE} }

// Errno answers with an error.
func Errno(e unix.Errno) func(Notification) Answer {
	return func(Notification) Answer { return Answer{Error: -int32(e)} }
}

// Agent is one that listens.
type Agent struct {
	Path   string
	answer func(Notification) Answer // nil: it never does

	mu     sync.Mutex
	states []specs.ContainerProcessState
	seen   []Notification
	failed []error
}

// Start listens at a new socket until the test ends. With a nil answer it takes
// listeners and does nothing.
func Start(t testing.TB, answer func(Notification) Answer) *Agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{Path: filepath.Join(dir, "s"), answer: answer}
	l, err := net.Listen("unix", a.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		os.RemoveAll(dir)
		for _, err := range a.failed {
			t.Error("agent:", err)
		}
	})
	go a.accept(l)
	return a
}

func (a *Agent) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			if err := a.take(c.(*net.UnixConn)); err != nil {
				a.mu.Lock()
				a.failed = append(a.failed, err)
				a.mu.Unlock()
			}
		}()
	}
}

var errUnexpected = errors.New("not what the specification says")

// take reads one state and the descriptors that come with its first part.
func (a *Agent) take(c *net.UnixConn) error {
	defer c.Close()
	b, oob := make([]byte, 64<<10), make([]byte, 256)
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil || n == 0 {
		return nil // a connection for a launch that failed
	}
	rest, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	var state specs.ContainerProcessState
	if err := json.Unmarshal(append(b[:n], rest...), &state); err != nil {
		return fmt.Errorf("state %q: %w", b[:n], err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("%d control messages: %w", len(messages), errors.Join(err, errUnexpected))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != len(state.Fds) {
		return fmt.Errorf("%d descriptors for the names %q: %w", len(fds), state.Fds, errors.Join(err, errUnexpected))
	}
	a.mu.Lock()
	a.states = append(a.states, state)
	a.mu.Unlock()
	if a.answer == nil {
		return nil // the descriptors stay open
	}
	return a.serve(fds[0])
}

// serve answers until nobody is left who has the filter.
func (a *Agent) serve(fd int) error {
	defer unix.Close(fd)
	for {
		polls := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(polls, -1); err != nil && err != unix.EINTR {
			return err
		}
		if polls[0].Revents&unix.POLLHUP != 0 {
			return nil
		}
		var n Notification
		if err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err != nil {
			if err == unix.ENOENT || err == unix.EINTR {
				continue // who asked is gone
			}
			return fmt.Errorf("receive: %w", err)
		}
		a.mu.Lock()
		a.seen = append(a.seen, n)
		a.mu.Unlock()
		r := a.answer(n)
		r.ID = n.ID
		if err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// States are what was sent so far.
func (a *Agent) States() []specs.ContainerProcessState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]specs.ContainerProcessState{}, a.states...)
}

// Asked tells how often a system call was asked about.
func (a *Agent) Asked(nr int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	count := 0
	for _, n := range a.seen {
		if int(n.Nr) == nr {
			count++
		}
	}
	return count
}
