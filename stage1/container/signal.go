// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/cgroups"
)

// Kill sends a signal to the container's process, or to all of its processes.
func (c *Container) Kill(sig unix.Signal, all bool) error {
	p, err := c.process()
	if err != nil {
		return err
	}
	if p != nil {
		defer p.Close()
	}
	if all {
		return c.killAll(sig)
	}
	if p == nil || ended(p) {
		return fmt.Errorf("container %q: %w", c.ID, ErrNotRunning)
	}
	return unix.PidfdSendSignal(int(p.Fd()), sig, nil, 0)
}

func (c *Container) killAll(sig unix.Signal) error {
	dirs := cgroups.Existing(c.Cgroups)
	if err := c.known(dirs); err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		return cgroups.KillAll(dirs)
	}
	pids, err := cgroups.Pids(dirs)
	if err != nil {
		return err
	}
	return signalAll(sig, pids, func() ([]int, error) { return cgroups.Pids(dirs) })
}

// signalAll signals processes that are in a group. A number that was read may
// be another's already: what is signalled was opened before it was found in the
// group once more.
func signalAll(sig unix.Signal, pids []int, again func() ([]int, error)) error {
	opened := map[int]int{}
	defer func() {
		for _, fd := range opened {
			_ = unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			opened[pid] = fd
		} else if err != unix.ESRCH {
			return fmt.Errorf("open process %d: %w", pid, err)
		}
	}
	still, err := again()
	if err != nil {
		return err
	}
	for _, pid := range still {
		fd, ok := opened[pid]
		if !ok {
			continue // born since
		}
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// Pids returns the container's processes as the host numbers them.
func (c *Container) Pids() ([]int, error) {
	dirs := cgroups.Existing(c.Cgroups)
	if err := c.known(dirs); err != nil {
		return nil, err
	}
	return cgroups.Pids(dirs)
}

// known tells that the container of an ordinary user runs outside any group of
// its own: nobody can say which processes are its.
func (c *Container) known(dirs []string) error {
	if len(dirs) > 0 {
		return nil
	}
	if status, err := c.Status(); err != nil || status == specs.StateStopped {
		return err
	}
	return fmt.Errorf("container %q has no cgroup, so only its first process is known", c.ID)
}

// Freeze stops or continues all processes of the container.
func (c *Container) Freeze(on bool) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if want := map[bool]specs.ContainerState{true: specs.StateRunning, false: StatusPaused}[on]; status != want {
		return fmt.Errorf("container %q is %s, not %s", c.ID, status, want)
	}
	return cgroups.Freeze(cgroups.Existing(c.Cgroups), on)
}

func (c *Container) frozen() bool { return cgroups.Frozen(cgroups.Existing(c.Cgroups)) }

// ParseSignal reads a signal by name or number.
func ParseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMIN+"); ok || name == "SIGRTMIN" {
		if n, err := strconv.Atoi("0" + rest); err == nil && n <= 30 {
			return unix.Signal(34 + n), nil
		}
	}
	return 0, fmt.Errorf("signal %q is none", s)
}
