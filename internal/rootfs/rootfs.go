// SPDX-License-Identifier: Apache-2.0

// Package rootfs opens things in a tree that somebody else controls. The
// root is a descriptor; every path below it is resolved by the kernel with
// openat2 RESOLVE_IN_ROOT, so that links and ".." end at the root whatever
// is renamed meanwhile, and magic links are refused.
package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotRegular means that a file to be read is a directory, pipe or device.
var ErrNotRegular = errors.New("not a regular file")

// ErrTooLarge means that a file is larger than the caller's bound.
var ErrTooLarge = errors.New("file too large")

const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// Open opens path below root. Symbolic links are followed inside root unless
// flags has O_NOFOLLOW. The descriptor is close-on-exec.
func Open(root *os.File, path string, flags int, mode uint32) (*os.File, error) {
	fd, err := OpenAt(int(root.Fd()), path, flags, mode)
	runtime.KeepAlive(root)
	if err != nil {
		return nil, &os.PathError{Op: "open in root", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenAt is Open for callers that live by descriptor numbers.
func OpenAt(root int, path string, flags int, mode uint32) (int, error) {
	return open(root, path, flags, mode, inRoot)
}

// OpenPlainAt is OpenAt without any symbolic link on the way.
func OpenPlainAt(root int, path string, flags int, mode uint32) (int, error) {
	return open(root, path, flags, mode, inRoot|unix.RESOLVE_NO_SYMLINKS)
}

func open(root int, path string, flags int, mode uint32, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: resolve}
	if flags&unix.O_CREAT != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE {
		how.Mode = uint64(mode)
	}
	if path == "" {
		path = "."
	}
	for {
		// The kernel answers EAGAIN when something was renamed while it
		// looked at ".."; the lookup is sound, it only has to be repeated.
		fd, err := unix.Openat2(root, path, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
}

// MkdirAll makes path and its missing parents below root and returns the
// directory, opened O_PATH. Links on the way are followed inside root; a
// link to nothing is an error.
func MkdirAll(root *os.File, path string, mode uint32) (*os.File, error) {
	fd, err := MkdirAllAt(int(root.Fd()), path, mode)
	runtime.KeepAlive(root)
	if err != nil {
		return nil, &os.PathError{Op: "make directory in root", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// MkdirAllAt is MkdirAll for callers that live by descriptor numbers.
//
// It opens the longest part that exists and makes the rest one by one below
// the descriptor of its parent: what a swapped link points to is never made
// (CVE-2024-45310).
func MkdirAllAt(root int, path string, mode uint32) (int, error) {
	const dir = unix.O_PATH | unix.O_DIRECTORY
	fd, err := OpenAt(root, path, dir, 0)
	if err != unix.ENOENT {
		return fd, err
	}
	parts := split(path)
	if err := refuseDotDot(parts); err != nil {
		return -1, err
	}
	done := len(parts)
	for err == unix.ENOENT && done > 0 {
		done--
		fd, err = OpenAt(root, strings.Join(parts[:done], "/"), dir, 0)
	}
	if err != nil {
		return -1, err
	}
	for _, name := range parts[done:] {
		next, err := mkdirOpen(fd, name, mode)
		_ = unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

func mkdirOpen(parent int, name string, mode uint32) (int, error) {
	if err := unix.Mkdirat(parent, name, mode); err != nil && err != unix.EEXIST {
		return -1, err
	}
	// Not through a link: the name was missing a moment ago, so a link is
	// either dangling or somebody racing us.
	fd, err := unix.Openat(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return fd, err
}

// CreateAt makes sure that path is a file that is not a directory, making it
// empty with its parents if it is missing, and opens it O_PATH.
func CreateAt(root int, path string, mode uint32) (int, error) {
	fd, err := OpenAt(root, path, unix.O_PATH, 0)
	if err != unix.ENOENT {
		return fd, err
	}
	parent, name, err := ParentAt(root, path)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	fd, err = unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err == unix.EEXIST {
		fd, err = unix.Openat(parent, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	return fd, err
}

// ParentAt opens the directory of path O_PATH, making it if it is missing,
// and returns the last name of path. Create things with *at calls that do not
// follow links.
func ParentAt(root int, path string) (int, string, error) {
	parts := split(path)
	if len(parts) == 0 {
		return -1, "", unix.EISDIR
	}
	if err := refuseDotDot(parts); err != nil {
		return -1, "", err
	}
	last := len(parts) - 1
	fd, err := MkdirAllAt(root, strings.Join(parts[:last], "/"), 0o755)
	return fd, parts[last], err
}

// ReadRegular reads a file below root that must be regular and at most max
// bytes long. It never blocks on a pipe or a device.
func ReadRegular(root *os.File, path string, max int64) ([]byte, error) {
	f, err := Open(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: %w", path, ErrNotRegular)
	}
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > max {
		return nil, fmt.Errorf("read %s: %w (more than %d bytes)", path, ErrTooLarge, max)
	}
	return b, nil
}

// RemoveAllAt removes name below dir with everything in it. It never follows
// a link and never leaves the file system of dir. However deep it is, few
// descriptors are open at a time: an app can nest directories without end.
func RemoveAllAt(dir int, name string) error {
	err := unlink(dir, name)
	if err != unix.EISDIR {
		return err
	}
	top, err := openOwn(dir, name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	r := remover{top: top, buf: make([]byte, 8<<10)}
	first := r.all()
	_ = unix.Close(top)
	return rmdir(dir, name, first)
}

// unlink removes what is no directory; EISDIR says that it is one.
func unlink(dir int, name string) error {
	switch err := unix.Unlinkat(dir, name, 0); err {
	case unix.ENOENT:
		return nil
	case unix.EPERM: // POSIX's word for a directory
		return unix.EISDIR
	default:
		return err
	}
}

// rmdir removes a directory; what went wrong in it says more than that it is
// not empty.
func rmdir(dir int, name string, first error) error {
	err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	if first == nil && err != unix.ENOENT {
		first = err
	}
	return first
}

func openOwn(dir int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := unix.Openat2(dir, name, &how)
	if err != unix.ENOSYS {
		return fd, err
	}
	// Where pods cannot be launched for want of it (before Linux 5.6), what was
	// begun is removed all the same.
	var above, own unix.Stat_t
	if fd, err = unix.Openat(dir, name, int(how.Flags), 0); err != nil {
		return -1, err
	}
	if err = unix.Fstat(dir, &above); err == nil {
		err = unix.Fstat(fd, &own)
	}
	if err == nil && above.Dev != own.Dev {
		err = unix.EXDEV
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// maxOpen is how deep a remover goes down. What lies deeper is moved up.
const maxOpen = 64

// remover empties the directory top.
type remover struct {
	top   int
	buf   []byte
	names int  // that directories were to get in the top
	moved bool // some came up since it was gone over
}

// all goes over the top until nothing comes up any more.
func (r *remover) all() error {
	for {
		r.moved = false
		err := r.entries(r.top, 0)
		if !r.moved {
			return err
		}
		if _, err := unix.Seek(r.top, 0, unix.SEEK_SET); err != nil {
			return err
		}
	}
}

func (r *remover) entries(fd, depth int) error {
	var first error
	for {
		n, err := unix.ReadDirent(fd, r.buf)
		if err != nil {
			return err
		}
		if n <= 0 {
			return first
		}
		_, _, names := unix.ParseDirent(r.buf[:n], -1, nil)
		for _, name := range names {
			if err := r.entry(fd, name, depth+1); err != nil && first == nil {
				first = err
			}
		}
	}
}

func (r *remover) entry(dir int, name string, depth int) error {
	err := unlink(dir, name)
	if err != unix.EISDIR {
		return err
	}
	if depth > maxOpen {
		return r.moveUp(dir, name)
	}
	fd, err := openOwn(dir, name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	first := r.entries(fd, depth)
	_ = unix.Close(fd)
	return rmdir(dir, name, first)
}

// moveUp puts a directory into the top, where the next round finds it. An
// empty one of that name is replaced, which is as good as removed.
func (r *remover) moveUp(dir int, name string) error {
	for {
		r.names++
		err := unix.Renameat(dir, name, r.top, "deep-"+strconv.Itoa(r.names))
		if err != unix.EEXIST && err != unix.ENOTEMPTY && err != unix.ENOTDIR {
			r.moved = r.moved || err == nil
			return err
		}
	}
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// refuseDotDot keeps ".." out of paths that are walked name by name.
func refuseDotDot(parts []string) error {
	for _, part := range parts {
		if part == ".." {
			return unix.EINVAL
		}
	}
	return nil
}
