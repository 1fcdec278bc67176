// SPDX-License-Identifier: Apache-2.0

// Package bounded reads what others have written, and no more of it than was
// agreed.
package bounded

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// What is wrong with what was read; in a fs.PathError where it is a file.
var (
	ErrTooLarge   = errors.New("it is too large")
	ErrNotRegular = errors.New("it is not a regular file")
)

// All returns everything that r has, if that is at most max bytes.
func All(r io.Reader, max int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > max {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, max)
	}
	return b, nil
}

// File reads a file that the user named. It may be a pipe, as a shell makes for
// <(COMMAND), and is then waited for.
func File(name string, max int64) ([]byte, error) { return read(name, 0, max) }

// Regular reads a file that was found where configuration is: it must be a
// regular one. A FIFO that somebody put there keeps nobody waiting.
func Regular(name string, max int64) ([]byte, error) { return read(name, unix.O_NONBLOCK, max) }

func read(name string, flags int, max int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|flags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if flags != 0 {
		if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
			return nil, &fs.PathError{Op: "read", Path: name, Err: ErrNotRegular}
		}
	}
	b, err := All(f, max)
	if errors.Is(err, ErrTooLarge) {
		err = &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return b, err
}

// Cause is an error without the path, for who has named it already.
func Cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
