// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1/launch"
)

// handOut records the container's process, puts it into its class, and gives
// what was asked for of it.
func (c *Container) handOut(o *CreateOptions, created *launch.Created, resctrl *class) error {
	if c.Pty = created.Pty; c.Pty != nil && o.ConsoleSocket != "" {
		if err := sendConsole(o.ConsoleSocket, created.Pty); err != nil {
			return fmt.Errorf("--console-socket %s: %w", o.ConsoleSocket, err)
		}
	}
	c.Pid, c.Start, c.Boot, c.Cgroups = created.Pid, created.Start, created.Boot, created.Cgroups
	if o.Attended {
		c.created = created
	}
	// Before it runs, so that no app is ever without a record of it. One that
	// is attended counts as running from here: if we are killed now it ends.
	if err := c.write(); err != nil {
		return err
	}
	if resctrl != nil {
		if err := resctrl.join(c.Pid); err != nil {
			return err
		}
	}
	if err := sendPidfd(o.PidfdSocket, "standard", created.Pidfd); err != nil {
		return err
	}
	return writePid(o.PidFile, c.Pid)
}

// sendConsole hands a terminal to who listens on a socket, as runc's
// docs/terminals.md describes for detached terminals.
func sendConsole(socket string, pty *os.File) error { return sendFile(socket, "/dev/ptmx", pty) }

// sendPidfd hands a process to who listens on a socket, with the word runc
// has for its kind.
func sendPidfd(socket, kind string, pidfd *os.File) error {
	if socket == "" {
		return nil
	}
	if err := sendFile(socket, kind, pidfd); err != nil {
		return fmt.Errorf("--pidfd-socket %s: %w", socket, err)
	}
	return nil
}

func sendFile(socket, text string, f *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Who listens and accepts nobody does not keep us.
	bound := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &bound); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return err
	}
	return unix.Sendmsg(fd, []byte(text), unix.UnixRights(int(f.Fd())), nil, unix.MSG_NOSIGNAL)
}

func writePid(name string, pid int) error {
	if name == "" {
		return nil
	}
	if err := launch.WritePidFile(name, pid); err != nil {
		return fmt.Errorf("--pid-file: %w", err)
	}
	return nil
}
