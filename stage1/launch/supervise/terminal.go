// SPDX-License-Identifier: Apache-2.0

package supervise

import "golang.org/x/sys/unix"

// terminal is the one we were started on, in raw mode while the app has a
// terminal of its own behind it.
type terminal struct {
	saved unix.Termios
	isRaw bool
}

// openTerminal puts our terminal into raw mode; nil if stdin is none.
func openTerminal() *terminal {
	saved, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err != nil {
		return nil
	}
	t := &terminal{saved: *saved}
	t.raw()
	return t
}

// foreground tells whether the terminal is ours at the moment: a job in the
// background neither reads it nor changes its mode.
func (t *terminal) foreground() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// raw does what cfmakeraw(3) does.
func (t *terminal) raw() {
	if !t.foreground() {
		return
	}
	mode := t.saved
	mode.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	mode.Oflag &^= unix.OPOST
	mode.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	mode.Cflag &^= unix.CSIZE | unix.PARENB
	mode.Cflag |= unix.CS8
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	t.isRaw = unix.IoctlSetTermios(0, unix.TCSETS, &mode) == nil
}

func (t *terminal) restore() {
	if t.isRaw {
		_ = unix.IoctlSetTermios(0, unix.TCSETSW, &t.saved)
		t.isRaw = false
	}
}

// resize gives the app's terminal the size of ours.
func resize(pty int) {
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(pty, unix.TIOCSWINSZ, size)
	}
}

// endOfInput is what a terminal is typed at the end of what stood in for a
// keyboard: nothing else tells the app. After half a line once only hands that
// over.
func endOfInput(pty int, lineEnded bool) []byte {
	mode, err := unix.IoctlGetTermios(pty, unix.TCGETS)
	if err != nil {
		return nil
	}
	key := mode.Cc[unix.VEOF]
	if lineEnded {
		return []byte{key}
	}
	return []byte{key, key}
}
