// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// ErrNotHeld means that no process waits to be started: it runs already, or
// has ended.
var ErrNotHeld = errors.New("it is not waiting to be started")

// Created is an app that waits for Begin. Nobody need stay with it.
type Created struct {
	Pid     int
	Start   uint64 // ticks since boot; with Boot and Pid an identity
	Boot    string
	Pidfd   *os.File
	Pty     *os.File // master of the app's terminal, nil if it has none
	Cgroups []string // directories that exist

	sync syncSocket // of one that is attended
	back func()
}

// Create does all of a launch but the last steps and the execve, and returns
// when the app waits for Begin. It must be called on a locked thread. On error
// nothing is left.
func Create(ctx context.Context, r Request) (_ *Created, err error) {
	var all, childs hold
	defer all.Run()
	defer childs.Run()
	b, group, err := prepare(ctx, &all, &r)
	if err != nil {
		return nil, err
	}
	io, err := openStdio(&all, &childs, &r)
	if err != nil {
		return nil, err
	}
	b.stdio = io.child
	pid, pidfd, sync, err := b.clone()
	if pid > 0 {
		all.Push(func() { reap(pid) })
	}
	if err != nil {
		return nil, err
	}
	if r.Attended {
		all.Push(func() { _ = unix.Close(sync.fd) })
	} else {
		defer unix.Close(sync.fd)
	}
	all.Push(func() { _ = pidfd.Close() })
	childs.Run()
	if r.Cloned != nil {
		if err := r.Cloned(pid); err != nil {
			return nil, err
		}
	}
	c := &Created{Pid: pid, Pidfd: pidfd, Cgroups: group.Dirs(), sync: sync}
	if err := c.identify(); err != nil {
		return nil, err
	}
	got, err := sync.created(pid, r.Hooks, r.devicesOf(&all))
	if got.pty != nil {
		c.Pty, _ = all.file(got.pty, nil)
	}
	err = errors.Join(err, got.collect())
	if got.child != nil {
		reap(pid)
		err = errors.Join(err, c.succeed(&all, got.child))
	}
	if err == nil && !got.created {
		err = errors.New("gantry-init ended before the app was created")
	}
	if err != nil {
		return nil, err
	}
	taken := all.Stack
	c.back = taken.Run
	all.Release()
	return c, nil
}

func (c *Created) identify() (err error) {
	if c.Start, err = startTime(c.Pid); err != nil {
		return fmt.Errorf("identify process %d: %w", c.Pid, err)
	}
	if c.Boot, err = bootID(); err != nil {
		return fmt.Errorf("read boot id: %w", err)
	}
	return nil
}

// succeed goes over to the process that gantry-init made in its place.
func (c *Created) succeed(all *hold, pidfd *os.File) error {
	all.Push(func() { _ = pidfd.Close() })
	pid, err := childOf(pidfd)
	if err != nil {
		return err
	}
	all.Push(func() { reap(pid) })
	c.Pid, c.Pidfd = pid, pidfd
	return c.identify()
}

// collect ends and collects the processes that were made on the way.
func (r *received) collect() error {
	var first error
	for _, f := range r.spent {
		pid, err := childOf(f)
		_ = f.Close()
		if err == nil {
			reap(pid)
		} else if first == nil {
			first = err
		}
	}
	r.spent = nil
	return first
}

// Release kills the app and takes everything back.
func (c *Created) Release() { c.back() }

// Begin starts an app that was created Attended, as Begin does others.
func (c *Created) Begin(agent *Agent) error {
	handover, err := agent.reach(c.Pidfd, c.Pid)
	if err != nil {
		return err
	}
	defer handover.close()
	return c.sync.begin(handover, c.Pidfd)
}

// Listen makes the socket of a Hold, in a directory that only its owner may
// enter.
func Listen(dir string) (*os.File, error) { return listen(dir, stage1.StartFile, 0) }

// Held tells whether the app of a socket in dir waits to be started. The
// kernel answers, not a file: an app that runs or has ended holds no socket.
func Held(dir *os.File) bool {
	fd, err := connect(dir, stage1.StartFile, patience)
	if err != nil {
		return err == unix.EAGAIN // its backlog is full of those who ask
	}
	_ = unix.Close(fd)
	return true
}

// Begin starts an app that waits, whose process is given, and returns when its execve succeeded. ErrNotHeld and an agent that cannot be reached leave it
// waiting; with any other error it ends.
func Begin(dir *os.File, agent *Agent, pidfd *os.File, pid int) error {
	handover, err := agent.reach(pidfd, pid)
	if err != nil {
		return err
	}
	defer handover.close()
	fd, err := connect(dir, stage1.StartFile, patience)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
		return ErrNotHeld
	}
	if err != nil {
		return fmt.Errorf("reach the app: %w", err)
	}
	defer unix.Close(fd)
	return syncSocket{fd: fd, pid: pid}.begin(handover, pidfd)
}

func (s syncSocket) begin(handover *handover, pidfd *os.File) error {
	if _, err := unix.SendmsgN(s.fd, []byte(stage1.StartMessage), nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("start the app: %w", err)
	}
	_, err := s.wait(nil, handover)
	if err != nil {
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0) // it may wait for an answer
	}
	return err
}
