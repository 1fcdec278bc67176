// SPDX-License-Identifier: Apache-2.0

// Package procfs writes to /proc through an instance of its own, made with
// fsopen and attached nowhere: nothing an image or another process mounts or
// links can stand in its way (CVE-2019-16884, CVE-2025-52881).
package procfs

import (
	"errors"

	"golang.org/x/sys/unix"
)

// ErrNotProc means that a descriptor is not the root of a procfs.
var ErrNotProc = errors.New("not a procfs")

const procRoot = 1 // inode number of a procfs root, PROC_ROOT_INO

// FS is a private procfs of the caller's pid namespace.
type FS struct {
	fd int
}

// Open makes a procfs. It needs CAP_SYS_ADMIN.
func Open() (*FS, error) {
	ctx, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC,
		unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, err
	}
	if err := verify(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &FS{fd: fd}, nil
}

// OpenHost opens the procfs at /proc, for who may not make one, before
// anything foreign is mounted.
func OpenHost() (*FS, error) {
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := verify(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &FS{fd: fd}, nil
}

func verify(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if fs.Type != unix.PROC_SUPER_MAGIC || st.Ino != procRoot {
		return ErrNotProc
	}
	return nil
}

// Close lets go of the instance.
func (p *FS) Close() error {
	return unix.Close(p.fd)
}

// Write writes data to the file rel in one call.
func (p *FS) Write(rel string, data []byte) error {
	fd, err := p.open(rel, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := unix.Write(fd, data)
	if err == nil && n != len(data) {
		err = unix.EIO
	}
	return err
}

// Read reads the file rel, at most 4 KiB of it.
func (p *FS) Read(rel string) ([]byte, error) {
	fd, err := p.open(rel, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 4<<10)
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// open follows procfs's own "self" links and nothing else.
func (p *FS) open(rel string, flags uint64) (int, error) {
	return unix.Openat2(p.fd, rel, &unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
}
