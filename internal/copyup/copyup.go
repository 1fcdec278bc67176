// SPDX-License-Identifier: Apache-2.0

// Package copyup fills a directory with what an image has in its place.
package copyup

import (
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Fill fills an empty directory with what another has, by descriptors: an
// image may hold anything, and a volume may be on any file system. It gets the
// other's mode and owner, but keeps a mode that was asked for. A directory that
// is not empty stays as it is.
func Fill(from, to int, keepMode bool) error {
	if empty, err := isEmpty(to); err != nil || !empty {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	target, err := openDir(to, ".")
	if err != nil {
		return err
	}
	defer target.Close()
	c := copier{root: int(target.Fd()), first: map[[2]uint64]string{}}
	if err := c.entries(from, c.root, ""); err != nil {
		return err
	}
	if keepMode {
		var own unix.Stat_t
		if err := unix.Fstat(int(target.Fd()), &own); err != nil {
			return err
		}
		st.Mode = own.Mode
	}
	return dress(int(target.Fd()), &st)
}

func openDir(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func isEmpty(dir int) (bool, error) {
	f, err := openDir(dir, ".")
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if name != "lost+found" {
			return false, nil
		}
	}
	return true, nil
}

// copier remembers where the first copy of every file with several names is, so
// that the others become links to it. Nobody else writes there meanwhile.
type copier struct {
	root  int
	first map[[2]uint64]string // below root
}

func (c *copier) entries(from, to int, path string) error {
	dir, err := openDir(from, ".")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.entry(int(dir.Fd()), to, path, name); err != nil {
			return &os.PathError{Op: "copy", Path: name, Err: err}
		}
	}
	return nil
}

func (c *copier) entry(from, to int, path, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.directory(from, to, path+name+"/", name, &st)
	case unix.S_IFREG:
		return c.regular(from, to, path, name, &st)
	case unix.S_IFLNK:
		return copyLink(from, to, name, &st)
	case unix.S_IFIFO:
		if err := unix.Mknodat(to, name, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
		return dressAt(to, name, &st)
	}
	return nil // sockets are dead, and a volume has no devices
}

func (c *copier) directory(from, to int, path, name string, st *unix.Stat_t) error {
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return err
	}
	source, err := openDir(from, name)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := openDir(to, name)
	if err != nil {
		return err
	}
	defer target.Close()
	if err := c.entries(int(source.Fd()), int(target.Fd()), path); err != nil {
		return err
	}
	return finish(int(source.Fd()), int(target.Fd()), st)
}

func (c *copier) regular(from, to int, path, name string, st *unix.Stat_t) error {
	key := [2]uint64{uint64(st.Dev), st.Ino}
	if first := c.first[key]; first != "" {
		return unix.Linkat(c.root, first, to, name, 0)
	}
	fd, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, false); err != nil { // keeps the runtime's poller out of it
		_ = unix.Close(fd)
		return err
	}
	source := os.NewFile(uintptr(fd), name)
	defer source.Close()
	fd, err = unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	target := os.NewFile(uintptr(fd), name)
	defer target.Close()
	if st.Nlink > 1 {
		c.first[key] = path + name
	}
	if _, err := io.Copy(target, source); err != nil {
		return err
	}
	return finish(int(source.Fd()), fd, st)
}

func copyLink(from, to int, name string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(from, name, buf)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(buf[:n]), to, name); err != nil {
		return err
	}
	return unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
}

// finish gives a copy the attributes of its source; extended attributes last,
// because a change of owner takes file capabilities away.
func finish(source, target int, st *unix.Stat_t) error {
	if err := dress(target, st); err != nil {
		return err
	}
	return copyXattrs(source, target)
}

func dress(fd int, st *unix.Stat_t) error {
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

func dressAt(dir int, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.Fchmodat(dir, name, st.Mode&0o7777, 0)
}

func copyXattrs(source, target int) error {
	names := make([]byte, 64<<10)
	n, err := unix.Flistxattr(source, names)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") && name != "security.capability" && !strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		value := make([]byte, 64<<10)
		size, err := unix.Fgetxattr(source, name, value)
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(target, name, value[:size], 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}
