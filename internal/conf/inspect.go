// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"errors"
	"fmt"
	"io"
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
func (in *inspector) read(path string, max int64) ([]byte, error) {
	real, distrust := in.walk(path, wantFile)
	if real == os.DevNull {
		return nil, distrust
	}
	if real == "" {
		return nil, distrust
	}
	// O_NONBLOCK: a FIFO put in place of the file must not hang a launch.
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if st.Size() > max {
		return nil, fmt.Errorf("%s has %d bytes; at most %d are read", path, st.Size(), max)
	}
	if err := in.owned(path, st, false); err != nil && distrust == nil {
		distrust = err
	}
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > max {
		return nil, fmt.Errorf("%s has more than %d bytes", path, max)
	}
	return data, distrust
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
	note(in.dir(cur))
	for len(todo) > 0 {
		next := filepath.Join(cur, todo[0])
		last := len(todo) == 1
		todo = todo[1:]
		st, err := os.Lstat(next)
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
			note(in.owned(next, st, true))
			if filepath.IsAbs(target) {
				cur = "/"
			}
			todo = append(split(target), todo...)
		case st.IsDir():
			note(in.dir(next))
			cur = next
		case last && w == wantFile:
			cur = next
		default:
			return "", fmt.Errorf("%s is not a directory: %w", next, syscall.ENOTDIR)
		}
	}
	return in.arrived(path, cur, w, distrust)
}

func (in *inspector) arrived(path, real string, w want, distrust error) (string, error) {
	if w == wantFile {
		return real, distrust
	}
	if distrust != nil {
		return "", distrust
	}
	st, err := os.Lstat(real)
	if err != nil {
		return "", err
	}
	// A sticky directory protects the files of others, but lets anybody add
	// one: good enough on the way (/tmp), not for the drop-ins themselves.
	if st.Mode().Perm()&0o022 != 0 {
		return "", writable(path, st)
	}
	return real, nil
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

// dir judges one directory, once.
func (in *inspector) dir(path string) error {
	if err, ok := in.dirs[path]; ok {
		return err
	}
	st, err := os.Lstat(path)
	if err == nil {
		err = in.owned(path, st, st.Mode()&fs.ModeSticky != 0)
	}
	in.dirs[path] = err
	return err
}

// owned judges owner and, unless modeless, the write bits. Links have no mode,
// and in a sticky directory only a file's owner may replace it.
func (in *inspector) owned(path string, st fs.FileInfo, modeless bool) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("owner of " + path + " cannot be read")
	}
	if sys.Uid != 0 && sys.Uid != in.uid {
		return fmt.Errorf("%s belongs to user %d, not to root (chown root %s)", path, sys.Uid, path)
	}
	if !modeless && st.Mode().Perm()&0o022 != 0 {
		return writable(path, st)
	}
	return nil
}

func writable(path string, st fs.FileInfo) error {
	return fmt.Errorf("%s is writable by others, mode %04o (chmod go-w %s)", path, st.Mode().Perm(), path)
}
