// SPDX-License-Identifier: Apache-2.0

package container

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Terminal is that of a container in the foreground, behind ours.
type Terminal struct {
	pty   *os.File
	saved *term.State   // of ours, nil if it was left as it is
	ended chan struct{} // closed when nothing more comes from the container
}

// Attach copies between our standard streams and the container's terminal,
// until Detach. It is nil for a container without one.
func (c *Container) Attach() *Terminal {
	if c.Pty == nil {
		return nil
	}
	t := &Terminal{pty: c.Pty, ended: make(chan struct{})}
	ours := term.IsTerminal(0)
	switch {
	case ours && !foreground(): // a job in the background neither reads it nor changes its mode
	case ours:
		t.saved, _ = term.MakeRaw(0)
		t.Resize()
		go t.read(false)
	default:
		go t.read(true)
	}
	go func() {
		defer close(t.ended)
		_, _ = io.Copy(os.Stdout, t.pty) // EIO is its end
	}()
	return t
}

// read copies what we are given. An end of it that is not typed is told as
// if it were: a shell that reads a pipe through its terminal would wait.
func (t *Terminal) read(untilEnd bool) {
	_, err := io.Copy(t.pty, os.Stdin)
	if err == nil && untilEnd {
		const eof = 4 // ^D
		_, _ = t.pty.Write([]byte{eof})
	}
}

// foreground tells whether the terminal is ours at the moment.
func foreground() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// Resize gives the container's terminal the size of ours.
func (t *Terminal) Resize() {
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(t.pty.Fd()), unix.TIOCSWINSZ, size)
	}
}

// Detach waits for the last words of a container whose process has ended, and
// makes our terminal what it was. Who lives on with a terminal in his hands
// says nothing more to us.
func (t *Terminal) Detach() {
	if t == nil {
		return
	}
	select {
	case <-t.ended:
	case <-time.After(time.Second):
	}
	if t.saved != nil {
		_ = term.Restore(0, t.saved)
	}
}
