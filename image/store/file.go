// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/jsonin"
)

// open opens a regular file for reading. It never waits: a FIFO in the place of
// a blob is refused, not opened.
func (s *Store) open(name string) (*os.File, int64, error) {
	f, err := s.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// readFile reads a regular file of at most so many bytes.
func (s *Store) readFile(name string, most int64) ([]byte, error) {
	f, size, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > most {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are read", name, size, most)
	}
	b := make([]byte, size)
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

func checkLayout(b []byte) error {
	var l struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := jsonin.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("%s: %w", layoutFile, err)
	}
	if l.Version != "1.0.0" {
		return fmt.Errorf("%s: layout version %q is not 1.0.0", layoutFile, l.Version)
	}
	return nil
}

func readOnly(err error) bool { return errors.Is(err, unix.EROFS) }
