// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/internal/copyup"
	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/stage0/bundle"
)

// Held is a volume that nobody can remove until it is closed, by when a pod's
// record has to say that it is used.
type Held struct {
	Name  string
	dir   Dir
	own   *os.File // locked: shared, or exclusive while it is to be filled
	fresh bool
}

// Hold locks a volume, which is made if there is none. Who holds several asks
// for them in the order of their names.
func (d Dir) Hold(name string) (*Held, error) {
	for {
		own, err := d.open(name)
		if errors.Is(err, ErrNotFound) {
			if _, err := d.Create(name, nil, nil); err != nil && !errors.Is(err, ErrExists) {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		h := &Held{Name: name, dir: d, own: own}
		err = h.lock()
		if err == nil && d.stands(own, name) {
			return h, nil
		}
		_ = own.Close()
		if err != nil {
			return nil, fmt.Errorf("lock volume %s: %w", name, err)
		}
	}
}

// lock takes the lock for one alone as long as the volume has never been used:
// of those who come at once, one fills it, and the others wait for that.
func (h *Held) lock() error {
	if err := flock.Shared(h.own); err != nil {
		return err
	}
	if h.used() {
		return nil
	}
	if err := flock.Exclusive(h.own); err != nil {
		return err
	}
	h.fresh = !h.used()
	if h.fresh {
		return nil
	}
	return flock.Shared(h.own)
}

func (h *Held) used() bool {
	var st unix.Stat_t
	return unix.Fstatat(int(h.own.Fd()), filledFile, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// Close lets go of the volume.
func (h *Held) Close() { _ = h.own.Close() }

// Fill gives a volume at its first use, and never again (CVE-2020-1726), what
// the image has in its place, from nil if nothing: then it is the app's user's.
// Nothing is copied with noCopy, or when the volume is not empty. A power cut
// leaves it filled or not.
func (h *Held) Fill(from *os.File, uid, gid uint32, noCopy bool) error {
	if !h.fresh {
		return nil
	}
	root, err := os.OpenRoot(filepath.Join(h.dir.path, h.Name))
	if err != nil {
		return fmt.Errorf("fill volume %s: %w", h.Name, err)
	}
	defer root.Close()
	if !noCopy {
		err = h.fill(root, from, uid, gid)
	}
	if err == nil {
		err = mark(root)
	}
	if err != nil {
		return fmt.Errorf("fill volume %s: %w", h.Name, err)
	}
	h.fresh = false
	return nil
}

// fill makes the copy beside the volume's empty directory, and puts it in its
// place when it is whole and on disk.
func (h *Held) fill(root *os.Root, from *os.File, uid, gid uint32) error {
	if err := root.RemoveAll(fillDir); err != nil {
		return err
	}
	if empty, err := isEmpty(root, bundle.VolumeData); err != nil || !empty {
		return err
	}
	r, err := load(root, h.Name)
	if err != nil {
		return err
	}
	s, err := parseOptions(r.Options)
	if err != nil {
		return err
	}
	if from == nil {
		if s.uid < 0 && s.gid < 0 {
			s.uid, s.gid = int(uid), int(gid)
		}
		return root.Chown(bundle.VolumeData, s.uid, s.gid)
	}
	if err := root.Mkdir(fillDir, 0o755); err != nil {
		return err
	}
	to, err := root.Open(fillDir)
	if err != nil {
		return err
	}
	defer to.Close()
	if r.Project != 0 {
		if err := setProject(to, r.Project); err != nil {
			return err
		}
	}
	if err := copyup.Fill(int(from.Fd()), int(to.Fd()), false); err != nil {
		_ = root.RemoveAll(fillDir)
		return err
	}
	if err := to.Chown(s.uid, s.gid); err != nil {
		return err
	}
	if err := unix.Syncfs(int(to.Fd())); err != nil {
		return err
	}
	// Over an empty directory, or not at all.
	if err := unix.Renameat(int(h.own.Fd()), fillDir, int(h.own.Fd()), bundle.VolumeData); err != nil {
		return err
	}
	return atomicfile.SyncDir(root, ".")
}

func isEmpty(root *os.Root, name string) (bool, error) {
	entries, err := fs.ReadDir(root.FS(), name)
	return len(entries) == 0, err
}
