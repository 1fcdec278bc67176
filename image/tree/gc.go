// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/internal/rootfs"
)

// Freed says what GC removed.
type Freed struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// Hold keeps GC away until release: whoever converts layers holds it from the
// first Layer or Stage until the tree is recorded in a receipt, for before
// that nobody knows that the layers are wanted.
func (d *Dir) Hold() (release func(), err error) {
	f, err := d.root.OpenFile("locks/gc", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("hold trees: %w", err)
	}
	if err := flock.Shared(f); err != nil {
		return nil, errors.Join(fmt.Errorf("hold trees: %w", err), f.Close())
	}
	return func() { f.Close() }, nil
}

// GC removes everything that none of the trees needs which keep names; nil is
// none. It asks once nobody else can come to want one: whoever holds the trees
// has either recorded its tree by then, or begins afterwards. GC waits for
// another GC, and returns flock.ErrLocked while somebody holds the trees, which
// may take as long as a download. Pods that run are not disturbed: their loop
// devices keep the unlinked files until the last of them ends.
func (d *Dir) GC(keep func() ([]Tree, error)) (Freed, error) {
	freed, err := d.gc(keep)
	if err != nil {
		return freed, fmt.Errorf("collect trees: %w", err)
	}
	return freed, nil
}

func (d *Dir) gc(keep func() ([]Tree, error)) (freed Freed, err error) {
	others, err := d.root.Open(".")
	if err != nil {
		return freed, err
	}
	defer others.Close()
	if err := flock.Exclusive(others); err != nil {
		return freed, err
	}
	holders, err := d.root.OpenFile("locks/gc", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return freed, err
	}
	defer holders.Close()
	if err := flock.TryExclusive(holders); err != nil {
		return freed, err
	}
	var kept []Tree
	if keep != nil {
		if kept, err = keep(); err != nil {
			return freed, err
		}
	}
	return freed, d.sweep(kept, &freed)
}

// sweep removes what is not of the kept trees. The caller has the locks.
func (d *Dir) sweep(keep []Tree, freed *Freed) error {
	wanted := map[string]bool{"locks/gc": true}
	for _, t := range keep {
		name := imageName(t.Key)
		wanted[t.Image.Path], wanted[name+".json"] = true, true
		wanted["plain/"+path.Base(name)] = true
		for _, l := range t.Layers {
			wanted[l.Data.Path], wanted[l.Index.Path] = true, true
			wanted[layerName(l.Blob)+".json"] = true
		}
	}
	for _, sub := range []string{"images", "layers", "plain"} {
		if err := d.collect(sub, wanted, freed); err != nil {
			return err
		}
	}
	return d.forget()
}

func (d *Dir) collect(sub string, wanted map[string]bool, freed *Freed) error {
	dir, err := d.root.Open(sub)
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		// The blob is not validated here: a digest in a receipt was.
		if name := e.Name(); wanted[sub+"/"+name] || sub == "plain" && wanted["plain/"+ofAnyIDs(name)] {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := rootfs.RemoveAllAt(int(dir.Fd()), e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		freed.Files++
		if info.Mode().IsRegular() {
			freed.Bytes += info.Size()
		}
	}
	return dir.Sync()
}

// forget removes lock files nobody holds and hints about files that are gone.
func (d *Dir) forget() error {
	locks, err := fs.ReadDir(d.root.FS(), "locks")
	if err != nil {
		return err
	}
	for _, e := range locks {
		if e.Name() == "gc" {
			continue
		}
		f, err := d.root.OpenFile("locks/"+e.Name(), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if flock.TryExclusive(f) == nil {
			_ = d.root.Remove("locks/" + e.Name())
		}
		f.Close()
	}
	hints, err := fs.ReadDir(d.root.FS(), "loops")
	if err != nil {
		return err
	}
	for _, e := range hints {
		file, sub := strings.TrimSuffix(e.Name(), ".loop"), "layers/"
		if strings.HasSuffix(file, ".erofs") {
			sub = "images/"
		}
		if !d.exists(sub + file) {
			_ = d.root.Remove("loops/" + e.Name())
		}
	}
	return nil
}
