// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/internal/jsonin"
	"github.com/gantryrun/gantry/internal/jsonout"
	"github.com/gantryrun/gantry/internal/rootfs"
	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/stage0/bundle"
)

// What a caller acts on.
var (
	ErrNotFound = errors.New("no such volume")
	ErrExists   = errors.New("there is one already")
	ErrBusy     = errors.New("somebody is using it just now: a pod that mounts it is being made, or it is being exported")
	ErrVersion  = errors.New("written by a newer gantry")
)

// Version is the format of a record; older ones are read.
const Version = 1

// Files of a volume, beside bundle.VolumeData.
const (
	recordFile = "volume.json"
	filledFile = "filled" // it is there once a pod has mounted the volume
	fillDir    = "fill"   // what is being copied for its first use
)

// Names of volumes that come and go. No volume is called so.
const (
	coming = ".new-"
	going  = ".old-"
)

const maxRecord = 1 << 20

// Record is what is kept of a volume. It is written once.
type Record struct {
	Version int               `json:"version"`
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
	Options map[string]string `json:"options,omitempty"` // as they were given
	Project uint32            `json:"project,omitempty"` // of a quota; 0 is none
}

// Dir is the directory of all volumes.
type Dir struct{ path string }

// Open names the directory and does not touch it: it comes into being with the
// first volume.
func Open(dir string) Dir { return Dir{path: dir} }

// Mountpoint is the directory of a volume's that apps see.
func (d Dir) Mountpoint(name string) string {
	return filepath.Join(d.path, name, bundle.VolumeData)
}

// Create makes an empty volume. It is on disk, whole, before it has its name.
func (d Dir) Create(name string, labels, options map[string]string) (Record, error) {
	r := Record{Version: Version, Name: name, Created: time.Now().UTC(), Labels: labels, Options: options}
	if err := bundle.CheckVolumeName(name); err != nil {
		return r, err
	}
	s, err := parseOptions(options)
	if err != nil {
		return r, err
	}
	if _, err := os.Lstat(filepath.Join(d.path, name)); err == nil {
		return r, fmt.Errorf("create volume %s: %w", name, ErrExists)
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return r, fmt.Errorf("create volume %s: %w", name, err)
	}
	if err := d.create(&r, s); err != nil {
		return r, fmt.Errorf("create volume %s: %w", name, err)
	}
	return r, nil
}

func (d Dir) create(r *Record, s settings) error {
	var u undo.Stack
	defer u.Run()
	temp := coming + rand.Text()
	path := filepath.Join(d.path, temp)
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	u.Push(func() { _ = os.RemoveAll(path) })
	// Locked, so that nobody sweeps it away.
	own, err := flock.OpenDir(path)
	if err != nil {
		return err
	}
	u.Push(func() { _ = own.Close() })
	if err := flock.Exclusive(own); err != nil {
		return err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := makeData(root, r, s); err != nil {
		return err
	}
	b, err := jsonout.Marshal(r)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(root, recordFile, append(b, '\n'), 0o600); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, filepath.Join(d.path, r.Name), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return ErrExists
	}
	if err != nil {
		return err
	}
	u.Release()
	return errors.Join(d.sync(), own.Close())
}

// makeData makes the directory that apps see.
func makeData(root *os.Root, r *Record, s settings) error {
	if err := root.Mkdir(bundle.VolumeData, 0o755); err != nil {
		return err
	}
	f, err := root.Open(bundle.VolumeData)
	if err != nil {
		return err
	}
	defer f.Close()
	if s.limited() {
		if r.Project, err = limit(f, s); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(int(f.Fd()), 0o755); err != nil { // whatever the umask
		return err
	}
	if s.uid >= 0 || s.gid >= 0 {
		if err := unix.Fchown(int(f.Fd()), s.uid, s.gid); err != nil {
			return err
		}
	}
	if s.noCopy {
		return mark(root)
	}
	return f.Sync()
}

// mark records that the volume has been used.
func mark(root *os.Root) error {
	return atomicfile.Write(root, filledFile, nil, 0o600)
}

func (d Dir) sync() error {
	f, err := flock.OpenDir(d.path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Load reads one volume's record.
func (d Dir) Load(name string) (Record, error) {
	var r Record
	if bundle.CheckVolumeName(name) != nil {
		return r, fmt.Errorf("volume %q: %w", name, ErrNotFound)
	}
	root, err := os.OpenRoot(filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("volume %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return r, fmt.Errorf("open volume %s: %w", name, err)
	}
	defer root.Close()
	return load(root, name)
}

func load(root *os.Root, name string) (Record, error) {
	var r Record
	b, err := root.ReadFile(recordFile)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("volume %s: %w", name, ErrNotFound) // it is going
	}
	if err == nil && len(b) > maxRecord {
		err = fmt.Errorf("%s is larger than %d bytes", recordFile, maxRecord)
	}
	if err == nil {
		err = jsonin.Unmarshal(b, &r)
	}
	switch {
	case err != nil:
		return r, fmt.Errorf("read record of volume %s: %w", name, err)
	case r.Version > Version:
		return r, fmt.Errorf("read record of volume %s: format %d: %w", name, r.Version, ErrVersion)
	case r.Name != name:
		return r, fmt.Errorf("read record of volume %s: it is that of %q", name, r.Name)
	}
	return r, nil
}

// Names lists the volumes, sorted.
func (d Dir) Names() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var out []string
	for _, e := range entries {
		if bundle.CheckVolumeName(e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

// InUse is a volume that pods mount.
type InUse struct {
	Name string
	Pods []string // their UUIDs: short ones could be names of other pods
}

func (u *InUse) Error() string {
	return fmt.Sprintf("volume %s is used by pod %s", u.Name, strings.Join(u.Pods, ", "))
}

// Hint says how to be rid of it.
func (u *InUse) Hint() string {
	return fmt.Sprintf("'gantry rm %s' removes what uses it; 'gantry volume rm --force %s' does both", strings.Join(u.Pods, " "), u.Name)
}

// Remove deletes a volume that nobody uses. users is asked while nobody can
// begin to. A deletion that was cut short is finished by the next sweep.
func (d Dir) Remove(name string, users func() ([]string, error)) error {
	own, err := d.open(name)
	if err != nil {
		return err
	}
	defer own.Close()
	err = flock.TryExclusive(own)
	if errors.Is(err, flock.ErrLocked) {
		return fmt.Errorf("remove volume %s: %w", name, ErrBusy)
	}
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	if !d.stands(own, name) {
		return fmt.Errorf("volume %s: %w", name, ErrNotFound)
	}
	pods, err := users()
	if err != nil {
		return err
	}
	if len(pods) > 0 {
		return &InUse{name, pods}
	}
	temp := going + rand.Text()
	if err := os.Rename(filepath.Join(d.path, name), filepath.Join(d.path, temp)); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	if err := d.sync(); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	if err := d.discard(temp); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// discard deletes what has no name any more, with its quota.
func (d Dir) discard(temp string) error {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return err
	}
	defer root.Close()
	var r Record
	if b, err := root.ReadFile(temp + "/" + recordFile); err == nil && jsonin.Unmarshal(b, &r) == nil && r.Project != 0 {
		unlimit(d.path, r.Project)
	}
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return rootfs.RemoveAllAt(int(dir.Fd()), temp)
}

// Sweep finishes what was cut short: volumes that were being made or removed
// by a process that is gone. It returns how many there were; one that cannot be
// removed is an error, and the others are removed all the same.
func (d Dir) Sweep() (int, error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("sweep volumes: %w", err)
	}
	swept := 0
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), coming) && !strings.HasPrefix(e.Name(), going) {
			continue
		}
		done, err := d.sweep(e.Name())
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep volumes: %s: %w", e.Name(), err))
			continue
		}
		if done {
			swept++
		}
	}
	return swept, errors.Join(errs...)
}

// sweep discards one that nobody has locked. One that is a moment old may be
// not locked yet.
func (d Dir) sweep(temp string) (bool, error) {
	own, err := flock.OpenDir(filepath.Join(d.path, temp))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer own.Close()
	info, err := own.Stat()
	if err != nil || time.Since(info.ModTime()) < time.Minute && strings.HasPrefix(temp, coming) {
		return false, err
	}
	if err := flock.TryExclusive(own); err != nil {
		return false, nil
	}
	return true, d.discard(temp)
}

// open opens the directory of a volume.
func (d Dir) open(name string) (*os.File, error) {
	if bundle.CheckVolumeName(name) != nil {
		return nil, fmt.Errorf("volume %q: %w", name, ErrNotFound)
	}
	f, err := flock.OpenDir(filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("volume %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open volume %s: %w", name, err)
	}
	return f, nil
}

// stands says whether the directory is still the volume of that name.
func (d Dir) stands(own *os.File, name string) bool {
	have, err := own.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(filepath.Join(d.path, name))
	return err == nil && os.SameFile(have, there)
}
