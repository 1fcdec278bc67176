// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks bounds the symbolic links followed for one file, as the kernel's
// own bound does.
const maxLinks = 40

type want int

const (
	wantFile want = iota
	wantDir
)

// inspector applies what sshd calls StrictModes: a file is believed when it
// and every directory and link on the way to it belong to root (or to the user
// we run as) and nobody else may write them. The kernel cannot be asked this
// in one call, and the answer is stable once true: what nobody else may write,
// nobody else can change between check and use.
type inspector struct {
	uid  uint32
	dirs map[string]error // directories judged already, by real path
}

func newInspector() *inspector {
	return &inspector{uid: uint32(os.Geteuid()), dirs: map[string]error{}}
}

// read returns the bytes of a file that may be believed. When only ownership
// or mode is wrong the bytes come back together with the error.
func (in *inspector) read(path string, limit int64) ([]byte, error) {
	found, distrust := in.walk(path, wantFile)
	if found == os.DevNull {
		return nil, distrust
	}
	if found == "" {
		return nil, distrust
	}
	// Plain system calls: package os would first ask the poller about the file,
	// and this is read at every launch. O_NONBLOCK: a FIFO put in place of the
	// file must not hang it.
	fd, err := open(found)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if st.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes; at most %d are read", path, st.Size, limit)
	}
	if err := in.owned(path, st.Uid, fs.FileMode(st.Mode&0o777), false); err != nil && distrust == nil {
		distrust = err
	}
	data, err := readAll(fd, int(st.Size))
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return data, distrust
}

func open(path string) (int, error) {
	for {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0) //nolint:forbidigo // the host's own configuration, below no root
		if err != syscall.EINTR {
			return fd, err
		}
	}
}

// readAll reads the bytes the file had when it was looked at: one that grows
// meanwhile is read as it was, one that shrinks as far as it goes.
func readAll(fd, size int) ([]byte, error) {
	data := make([]byte, size)
	for n := 0; n < size; {
		m, err := syscall.Read(fd, data[n:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if m == 0 {
			return data[:n], nil
		}
		n += m
	}
	return data, nil
}

// walk resolves path component by component, judging each directory and link
// it passes, and returns the real path. An error of judgement comes with the
// real path (the file can be read, not believed); any other without.
func (in *inspector) walk(path string, w want) (string, error) {
	var distrust error
	note := func(err error) {
		if distrust == nil {
			distrust = err
		}
	}
	cur, todo, links := "/", split(path), 0
	ofLink := 0 // how many of todo's first come from links
	note(in.root())
	for len(todo) > 0 {
		next := filepath.Join(cur, todo[0])
		last := len(todo) == 1
		todo = todo[1:]
		inLink := ofLink > 0
		ofLink = max(ofLink-1, 0)
		if err, judged := in.dirs[next]; judged { // a real directory, then
			note(err)
			cur = next
			continue
		}
		st, err := os.Lstat(next)
		if inLink && errors.Is(err, fs.ErrNotExist) {
			// Not the same as nothing there: a link was meant to lead somewhere.
			return "", fmt.Errorf("%s leads to %s, which is not there", path, next)
		}
		if err != nil {
			return "", err
		}
		switch {
		case st.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return "", fmt.Errorf("%s passes more than %d symbolic links", path, maxLinks)
			}
			target, err := os.Readlink(next)
			if err != nil {
				return "", err
			}
			note(in.inode(next, st, true))
			if filepath.IsAbs(target) {
				cur = "/"
			}
			parts := split(target)
			todo, ofLink = append(parts, todo...), ofLink+len(parts)
		case st.IsDir():
			in.dirs[next] = in.inode(next, st, st.Mode()&fs.ModeSticky != 0)
			note(in.dirs[next])
			cur = next
		case last && w == wantFile:
			cur = next
		default:
			return "", fmt.Errorf("%s is not a directory: %w", next, syscall.ENOTDIR)
		}
	}
	return in.arrived(path, cur, w, distrust)
}

func (in *inspector) arrived(path, found string, w want, distrust error) (string, error) {
	if w == wantFile {
		return found, distrust
	}
	if distrust != nil {
		return "", distrust
	}
	if _, judged := in.dirs[found]; !judged { // the path was a file
		return "", fmt.Errorf("%s is not a directory: %w", path, syscall.ENOTDIR)
	}
	st, err := os.Lstat(found)
	if err != nil {
		return "", err
	}
	// A sticky directory protects the files of others, but lets anybody add
	// one: good enough on the way (/tmp), not for the drop-ins themselves.
	if st.Mode().Perm()&0o022 != 0 {
		return "", writable(path, st.Mode().Perm())
	}
	return found, nil
}

func split(path string) []string {
	var out []string
	for _, c := range strings.Split(path, "/") {
		if c != "" && c != "." {
			out = append(out, c)
		}
	}
	return out
}

// root judges the directory every path begins with.
func (in *inspector) root() error {
	if _, judged := in.dirs["/"]; !judged {
		st, err := os.Lstat("/")
		if err == nil {
			err = in.inode("/", st, false)
		}
		in.dirs["/"] = err
	}
	return in.dirs["/"]
}

// inode judges what Lstat said.
func (in *inspector) inode(path string, st fs.FileInfo, modeless bool) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("owner of " + path + " cannot be read")
	}
	return in.owned(path, sys.Uid, st.Mode().Perm(), modeless)
}

// owned judges owner and, unless modeless, the write bits. Links have no mode,
// and in a sticky directory only a file's owner may replace it.
func (in *inspector) owned(path string, uid uint32, mode fs.FileMode, modeless bool) error {
	if uid != 0 && uid != in.uid && !(uid == nobody && vetted()) {
		return fmt.Errorf("%s belongs to user %d, not to root (chown root %s)", path, uid, path)
	}
	if !modeless && mode&0o022 != 0 {
		return writable(path, mode)
	}
	return nil
}

// nobody is what owners look like that a user namespace has no id for.
const nobody = 65534

// vetted tells whether we are root of an ordinary user's user namespace. There
// the host's root looks like nobody, as all other users do: who entered it
// called Vet before.
func vetted() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(b))
	return err == nil && len(f) >= 3 && f[0] == "0" && f[1] != "0" && f[2] == "1"
}

// Vet refuses layers in which anything is not to be believed, while we still
// see who owns what.
func Vet(layers []string) error {
	in := newInspector()
	for _, layer := range layers {
		found, err := in.walk(layer, wantDir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err == nil {
			err = in.below(found)
		}
		if err != nil {
			return fmt.Errorf("configuration %s: %w", layer, err)
		}
	}
	return nil
}

// below judges all that is in a directory. What cannot be read is not believed
// by who reads it.
func (in *inspector) below(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return nil //nolint:nilerr // it is for those who read it to say so
		}
		w := wantFile
		if d.IsDir() {
			w = wantDir
		}
		found, err := in.walk(path, w)
		if err == nil && w == wantFile && found != os.DevNull {
			var st fs.FileInfo
			if st, err = os.Lstat(found); err == nil {
				err = in.inode(found, st, st.IsDir())
			}
		}
		if w == wantFile && found == "" || errors.Is(err, fs.ErrPermission) {
			return nil // not a judgement
		}
		return err
	})
}

func writable(path string, mode fs.FileMode) error {
	return fmt.Errorf("%s is writable by others, mode %04o (chmod go-w %s)", path, mode, path)
}
