// SPDX-License-Identifier: Apache-2.0

// Package atomicfile replaces a file so that a reader, a crash or a power cut
// sees either all of the old content or all of the new.
package atomicfile

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/gantryrun/gantry/internal/flock"
)

// tempPrefix marks files of writers that have not finished. It starts with a
// dot so that no list of ours takes one for an entry.
const tempPrefix = ".tmp-"

// Write replaces name in dir by data: a temporary file beside it, fsync,
// rename, fsync of the directory. When it returns nil the new content survives
// a power cut; when it returns an error the old content is still there. perm
// is applied as given, whatever the umask.
func Write(dir *os.Root, name string, data []byte, perm os.FileMode) error {
	return put(dir, name, data, perm, dir.Rename)
}

// Create is Write of a name that is not there yet: the error is fs.ErrExist if
// it is, and somebody else's content stays.
func Create(dir *os.Root, name string, data []byte, perm os.FileMode) error {
	return put(dir, name, data, perm, func(temp, name string) error {
		if err := dir.Link(temp, name); err != nil {
			return err
		}
		_ = dir.Remove(temp) // else Sweep does
		return nil
	})
}

// put writes a temporary file and has move give it its name.
func put(dir *os.Root, name string, data []byte, perm os.FileMode, move func(temp, name string) error) error {
	failed := func(err error) error {
		// It is about this file for whoever reads it, not about a temporary one.
		var about *fs.PathError
		var link *os.LinkError
		switch {
		case errors.As(err, &about):
			err = about.Err
		case errors.As(err, &link):
			err = link.Err
		}
		return fmt.Errorf("write %s: %w", filepath.Join(dir.Name(), name), err)
	}
	temp, f, err := create(dir, name)
	if err != nil {
		return failed(err)
	}
	if err := fill(f, data, perm); err != nil {
		return errors.Join(failed(err), discard(dir, temp, f))
	}
	if err := move(temp, name); err != nil {
		return errors.Join(failed(err), discard(dir, temp, f))
	}
	// Closed only now: the lock on the temporary file ends with it.
	if err := f.Close(); err != nil {
		return failed(err)
	}
	return SyncDir(dir, path.Dir(name))
}

// SyncDir makes the entries of a directory survive a power cut.
func SyncDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", name, err)
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync directory %s: %w", name, err), d.Close())
	}
	return d.Close()
}

// IsTemp tells whether a directory entry is the temporary file of a writer.
func IsTemp(name string) bool { return strings.HasPrefix(path.Base(name), tempPrefix) }

// Sweep removes from dir the temporary files of writers that have died, and
// returns how many. The file of a living writer is locked and stays.
func Sweep(dir *os.Root) (int, error) {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return 0, err
	}
	var removed int
	for _, e := range entries {
		if !IsTemp(e.Name()) {
			continue
		}
		ok, err := sweepOne(dir, e.Name())
		if err != nil {
			return removed, err
		}
		if ok {
			removed++
		}
	}
	return removed, nil
}

func sweepOne(dir *os.Root, name string) (bool, error) {
	f, err := dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := flock.TryExclusive(f); err != nil {
		if errors.Is(err, flock.ErrLocked) {
			return false, nil
		}
		return false, err
	}
	err = dir.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// create makes a locked temporary file. A sweeper can take the file away
// between its creation and its lock; it is then made again.
func create(dir *os.Root, name string) (string, *os.File, error) {
	var b [8]byte
	for {
		rand.Read(b[:])
		temp := path.Join(path.Dir(name), tempPrefix+path.Base(name)+"-"+hex.EncodeToString(b[:]))
		f, err := dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", nil, err
		}
		if err := flock.TryExclusive(f); err == nil && linked(dir, temp, f) {
			return temp, f, nil
		}
		if err := f.Close(); err != nil {
			return "", nil, err
		}
	}
}

func linked(dir *os.Root, name string, f *os.File) bool {
	here, err := dir.Lstat(name)
	if err != nil {
		return false
	}
	ours, err := f.Stat()
	return err == nil && os.SameFile(here, ours)
}

func fill(f *os.File, data []byte, perm os.FileMode) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	return f.Sync()
}

func discard(dir *os.Root, temp string, f *os.File) error {
	return errors.Join(dir.Remove(temp), f.Close())
}
