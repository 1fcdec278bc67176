// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/stage1/launch"
)

// Delete removes what is left of a container that has ended, or, with force,
// of any: it is killed first. One that waits to be started has done nothing
// yet and is deleted as it is.
func (c *Container) Delete(force bool) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status == specs.StateRunning || status == StatusPaused {
		if !force {
			return fmt.Errorf("container %q cannot be deleted: it is %s; stop it first, or use --force", c.ID, status)
		}
	}
	// All of it goes, wherever creating it was cut off.
	p, err := c.process()
	if err != nil {
		return err
	}
	if p != nil {
		defer p.Close()
	}
	return c.remove(p)
}

// remove removes everything. The process is nil if it has ended.
func (c *Container) remove(p *os.File) error {
	if p != nil {
		_ = unix.PidfdSendSignal(int(p.Fd()), unix.SIGKILL, nil, 0)
	}
	groups, err := cgroups.Find(c.Cgroups)
	if err != nil {
		return fmt.Errorf("find cgroup: %w", err)
	}
	if !c.ownsGroup() {
		if err := groups.RemoveEmpty(); err != nil {
			return err
		}
		groups, c.Unit = nil, ""
	}
	if err := groups.Kill(); err != nil {
		return err
	}
	if p != nil {
		if err := waitEnd(p); err != nil {
			return err
		}
	}
	c.stopUnit()
	if err := groups.Remove(); err != nil {
		return err
	}
	if err := c.declassify(); err != nil {
		return err
	}
	spec, _ := c.Spec() // there is none if making it was cut off early
	if spec != nil && c.RootMount != 0 {
		if err := launch.Unmount(rootfs(spec, c.Bundle), c.RootMount); err != nil {
			return err
		}
	}
	if err := c.removeFiles(); err != nil {
		return err
	}
	c.poststop(spec)
	return nil
}

// groupMade notes that the groups on record are ours, before anybody of ours is
// in them.
func (c *Container) groupMade() error { return c.dir.Chmod(0o700 | madeGroups) }

// ownsGroup tells whether the groups on record, and the unit, were made for this
// container. Where creating it was cut off before, there may be another
// container's by that name.
func (c *Container) ownsGroup() bool {
	if c.Pid != 0 {
		return true
	}
	fi, err := c.dir.Stat()
	return err == nil && fi.Mode()&madeGroups != 0
}

// removeFiles removes the directory. Mostly it has two files.
func (c *Container) removeFiles() error {
	for _, name := range []string{configFile, stateFile} {
		_ = unix.Unlinkat(int(c.dir.Fd()), name, 0)
	}
	if unix.Rmdir(c.root.path(c.ID)) == nil {
		return nil
	}
	return os.RemoveAll(c.root.path(c.ID))
}

// DeleteEnded deletes a container that was unlocked since it was opened and
// whose process was waited for, if nobody else has: its id may be another's by
// now.
func (c *Container) DeleteEnded() error {
	err := flock(c.dir, unix.LOCK_EX)
	if err == nil {
		err = c.stillThere()
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.remove(nil)
}

// patience bounds the wait for a killed process to end.
const patience = 10 * time.Second

func waitEnd(pidfd *os.File) error {
	polls := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for until := time.Now().Add(patience); ; {
		left := time.Until(until)
		if left <= 0 {
			return errors.New("its process does not end although it was killed: it may hang in the kernel (see its stack in /proc)")
		}
		n, err := unix.Poll(polls, int(left.Milliseconds())+1)
		if err == nil && n > 0 || err != nil && err != unix.EINTR {
			return err
		}
	}
}
