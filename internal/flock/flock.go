// SPDX-License-Identifier: Apache-2.0

// Package flock takes advisory whole-file locks that the kernel gives back.
//
// A flock(2) lock belongs to the open file description: it ends when the last
// descriptor of it is closed, however its process ends, and it is never held
// by two descriptions of one process. Every lock of gantry is of this kind, so
// no lock outlives the one who took it and none has to be repaired.
package flock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocked means that somebody else holds a lock that excludes the wanted one.
var ErrLocked = errors.New("locked by another process")

// TryExclusive locks f against everybody else, or returns ErrLocked at once.
func TryExclusive(f *os.File) error { return lock(f, unix.LOCK_EX|unix.LOCK_NB) }

// Exclusive locks f against everybody else and waits until it can.
func Exclusive(f *os.File) error { return lock(f, unix.LOCK_EX) }

// TryShared locks f against exclusive locks, or returns ErrLocked at once.
func TryShared(f *os.File) error { return lock(f, unix.LOCK_SH|unix.LOCK_NB) }

// Shared locks f against exclusive locks and waits until it can.
func Shared(f *os.File) error { return lock(f, unix.LOCK_SH) }

// Unlock gives the lock back while f stays open. Closing f does the same,
// unless a duplicate of it lives in a child.
func Unlock(f *os.File) error { return lock(f, unix.LOCK_UN) }

// OpenDir opens a directory so that it can be locked.
// The caller closes it, and with that unlocks it.
func OpenDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
}

// lock goes through SyscallConn because File.Fd would make a non-blocking
// descriptor blocking behind the back of its owner.
func lock(f *os.File, how int) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	var errno error
	err = conn.Control(func(fd uintptr) {
		for {
			errno = unix.Flock(int(fd), how)
			if !errors.Is(errno, unix.EINTR) {
				return
			}
		}
	})
	if err == nil {
		err = errno
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("lock %s: %w", f.Name(), ErrLocked)
	default:
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
}
