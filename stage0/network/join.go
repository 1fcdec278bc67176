// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/hint"
)

// OpenPath opens a network namespace that somebody made a file for.
func OpenPath(path string) (*os.File, error) {
	f, err := open(path)
	if err == nil {
		return f, nil
	}
	err = fmt.Errorf("open network namespace: %w", err)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.With(err, "'ip netns add NAME' makes /run/netns/NAME")
	}
	return nil, err
}

// OpenOf opens the network namespace of a process. alive is asked afterwards
// whether it is still the one that was meant.
func OpenOf(pid int, alive func() bool) (*os.File, error) {
	f, err := open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err == nil && !alive() {
		_ = f.Close()
		err = unix.ESRCH
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace of process %d: %w", pid, err)
	}
	return f, nil
}

// open opens a file only if it is a network namespace: a pipe would keep us
// waiting, and a device may do something.
func open(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	if st.Type != unix.NSFS_MAGIC {
		return nil, fmt.Errorf("%s is no network namespace", path)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, err
	}
	if kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		_ = f.Close()
		return nil, fmt.Errorf("%s is no network namespace", path)
	}
	return f, nil
}

// Ours tells whether a network namespace is the one this process is in: the
// host's.
func Ours(ns *os.File) (bool, error) {
	ours, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return false, err
	}
	fi, err := ns.Stat()
	return err == nil && os.SameFile(ours, fi), err
}
