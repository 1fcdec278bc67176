// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// stdio is what the app gets as 0, 1 and 2, and our ends of it.
type stdio struct {
	child          [3]*os.File
	stdout, stderr *os.File // read ends, nil unless we log
	logFile        *os.File
	logDir         *os.File // of logFile, when it is rotated
	journal        *os.File // connected socket
}

// openStdio opens what the log driver says. Everything is in h; the child's
// own ends are also closed by the second hold, once the child has them.
func openStdio(h, childs *hold, r *Request) (*stdio, error) {
	null, err := childs.file(os.OpenFile("/dev/null", os.O_RDWR, 0))
	if err != nil {
		return nil, err
	}
	s := &stdio{child: [3]*os.File{null, null, null}}
	if err := s.openLog(h, r.Log); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if r.Terminal {
		return s, nil // gantry-init opens it
	}
	if r.Stdin {
		s.child[0] = os.Stdin
	}
	switch r.Log.Driver {
	case stage1.LogPassthrough, "":
		s.child[1], s.child[2] = os.Stdout, os.Stderr
	case stage1.LogToFile, stage1.LogJournal:
		uid, gid := r.Spec.Process.User.UID, r.Spec.Process.User.GID
		if s.stdout, s.child[1], err = appPipe(h, childs, uid, gid); err != nil {
			return nil, err
		}
		if s.stderr, s.child[2], err = appPipe(h, childs, uid, gid); err != nil {
			return nil, err
		}
	case stage1.LogNone:
	default:
		return nil, fmt.Errorf("log driver %q is not one of passthrough, file, journald, none", r.Log.Driver)
	}
	return s, nil
}

// openLog opens where output is recorded.
func (s *stdio) openLog(h *hold, l stage1.Log) (err error) {
	switch l.Driver {
	case stage1.LogToFile:
		// Appended by one writer, kept for gantry logs, read by root alone.
		s.logFile, err = h.file(os.OpenFile(l.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600))
		if err == nil && l.MaxSize > 0 {
			s.logDir, err = h.file(os.OpenFile(filepath.Dir(l.Path), unix.O_PATH|unix.O_DIRECTORY, 0))
		}
	case stage1.LogJournal:
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		s.journal, _ = h.file(os.NewFile(uintptr(fd), "journal"), nil)
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: stage1.JournalSocket}); err != nil {
			err = fmt.Errorf("connect to %s: %w", stage1.JournalSocket, err)
		}
	}
	return err
}

// appPipe is a pipe the app's user may open again as /dev/stdout.
func appPipe(h, childs *hold, uid, gid uint32) (read, write *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	read, _ = h.file(os.NewFile(uintptr(fds[0]), "pipe"), nil)
	write, _ = childs.file(os.NewFile(uintptr(fds[1]), "pipe"), nil)
	if uid|gid == 0 {
		return read, write, nil
	}
	return read, write, unix.Fchown(fds[1], int(uid), int(gid))
}
