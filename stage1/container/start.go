// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/internal/catch"
	"github.com/gantryrun/gantry/stage1/launch"
)

// Begin starts the app (runtime.md, Start).
func (c *Container) Begin() error {
	spec, err := c.Spec()
	if err != nil {
		return fmt.Errorf("container %q: %w", c.ID, err)
	}
	err = c.begin(launch.AgentOf(spec, specs.State{ID: c.ID, Status: specs.StateCreated, Bundle: c.Bundle}))
	if errors.Is(err, launch.ErrNotHeld) {
		status, serr := c.Status()
		if serr != nil {
			return serr
		}
		return fmt.Errorf("container %q cannot be started: it is %s, not %s", c.ID, status, specs.StateCreated)
	}
	if err != nil {
		return err
	}
	if spec.Linux != nil {
		err = cgroups.Settle(cgroups.Existing(c.Cgroups), spec.Linux.Resources)
		if err == nil && cgroups.TightPids(spec.Linux.Resources) {
			err = c.tellUnit(spec.Linux.Resources)
		}
	}
	if err != nil {
		return err
	}
	return c.poststart()
}

// Launch is Begin as a command of its own: a container whose poststart hooks
// fail is stopped and deleted (runtime.md, Lifecycle, steps 9 and 12).
func (c *Container) Launch() error {
	err := c.Begin()
	if errors.As(err, new(poststartError)) {
		return errors.Join(err, c.Delete(true))
	}
	return err
}

// begin starts the process, whose filter may have an agent, where it waits: at
// its socket, or at ours.
func (c *Container) begin(agent *launch.Agent) error {
	if c.created != nil {
		return c.created.Begin(agent)
	}
	p, err := c.process()
	if err != nil {
		return err
	}
	if p == nil {
		return launch.ErrNotHeld
	}
	defer p.Close()
	return launch.Begin(c.dir, agent, p, c.Pid)
}

// Wait passes signals on to the container's process, which must be a child of
// the caller, until it ends, and returns its status as shells do: 128 + n for
// signal n. A terminal of ours hears of its new size instead.
func (c *Container) Wait(signals *catch.Signals, terminal *Terminal) (int, error) {
	pidfd, err := unix.PidfdOpen(c.Pid, 0)
	if err != nil {
		return 0, fmt.Errorf("wait for process %d: %w", c.Pid, err)
	}
	defer unix.Close(pidfd)
	polls := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(signals.FD()), Events: unix.POLLIN}}
	for polls[0].Revents == 0 {
		if _, err := unix.Poll(polls, -1); err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("wait for process %d: %w", c.Pid, err)
		}
		for _, sig := range signals.Drain() {
			if sig == unix.SIGWINCH && terminal != nil {
				terminal.Resize() // its own job hears of it from the kernel
				continue
			}
			_ = unix.PidfdSendSignal(pidfd, sig, nil, 0) // it may just have ended
		}
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(c.Pid, &status, 0, nil); err != nil {
		return 0, fmt.Errorf("wait for process %d: %w", c.Pid, err)
	}
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}
