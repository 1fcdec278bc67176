// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image/tree/index"
	"github.com/gantryrun/gantry/internal/rootfs"
	"github.com/gantryrun/gantry/internal/uidmap"
)

// ErrNoPath means that a tree has nothing of that name.
var ErrNoPath = errors.New("not in the image")

// Extracted counts what was written, and what was left out because a
// directory of the host is no place for it.
type Extracted struct {
	Files, Left int
}

// Extract writes what a tree has at path into the directory dest, which must
// not exist or be empty, and appears whole or not at all. Everything is hashed
// first. Files get the permissions of the image without setuid, setgid and
// sticky bits, no extended attributes (and so no capabilities) and, unless
// owners is set, the caller as their owner; devices and FIFOs are left out.
// Symbolic links are written as they are, and never followed.
func (d *Dir) Extract(ctx context.Context, t Tree, path, dest string, owners bool) (Extracted, error) {
	img, data, clean, err := d.read(t)
	defer clean.Run()
	if err != nil {
		return Extracted{}, fmt.Errorf("extract: %w", err)
	}
	n, name, err := lookup(img.Root, path)
	if err != nil {
		return Extracted{}, err
	}
	p := &planter{ctx: ctx, data: data, first: map[*index.Inode]string{}, buf: make([]byte, 1<<20), tame: true, owners: owners, ids: uidmap.Own()}
	if err := p.appear(dest, name, n); err != nil {
		return p.done, fmt.Errorf("extract to %s: %w", dest, err)
	}
	return p.done, nil
}

// appear makes everything in a directory beside dest that nobody else can
// enter, and moves that to its place.
func (p *planter) appear(dest, name string, n *index.Inode) error {
	parent, err := os.Open(filepath.Dir(filepath.Clean(dest)))
	if err != nil {
		return err
	}
	defer parent.Close()
	dir, base := int(parent.Fd()), filepath.Base(filepath.Clean(dest))
	there, err := vacant(dest)
	if err != nil {
		return err
	}
	made, err := beside(parent, base)
	if err != nil {
		return err
	}
	defer made.Close()
	tmp := made.Name()
	err = p.fill(dir, tmp, name, n)
	if err == nil && there != nil {
		err = dressAs(dir, tmp, there)
	}
	if err == nil {
		// Renaming replaces an empty directory, and nothing else.
		err = unix.Renameat(dir, tmp, dir, base)
	}
	if err != nil {
		return errors.Join(err, rootfs.RemoveAllAt(dir, tmp))
	}
	return nil
}

// dressAs gives a directory the owner and the mode of the one that it is to
// replace: who made that decided who may enter.
func dressAs(dir int, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return named("give away", name, err)
	}
	return named("set mode of", name, unix.Fchmodat(dir, name, st.Mode&0o7777, 0))
}

// vacant saves the work for a place that is taken; renaming decides. It returns
// what is known of an empty directory that is there, nil if there is none.
func vacant(dest string) (*unix.Stat_t, error) {
	f, err := os.Open(dest)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); err == nil {
		return nil, unix.ENOTEMPTY
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	var st unix.Stat_t
	return &st, unix.Fstat(int(f.Fd()), &st)
}

func (p *planter) fill(dir int, tmp, name string, n *index.Inode) error {
	return p.within(dir, tmp, tmp, unix.O_RDONLY|unix.O_DIRECTORY, func(fd int) error {
		p.root = fd
		if n.Kind == index.Dir {
			return p.dir(fd, "", n)
		}
		if err := p.plant(fd, "", name, n); err != nil {
			return err
		}
		return unix.Fchmod(fd, 0o755)
	})
}

// maxLinks bounds the links of a path, as the kernel does.
const maxLinks = 40

// lookup finds a path in a tree. Links on the way lead to where an app would
// find itself, never out of the tree; one at the end is meant itself.
func lookup(root *index.Inode, path string) (*index.Inode, string, error) {
	parts := strings.Split(index.CleanPath(path), "/")
	at, name := root, ""
	var above []*index.Inode
	for links := 0; len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(above) > 0 {
				at, above = above[len(above)-1], above[:len(above)-1]
			}
			continue
		}
		child, ok := at.Children[part]
		if at.Kind != index.Dir || !ok {
			return nil, "", fmt.Errorf("%.200q: %w", path, ErrNoPath)
		}
		if child.Inode.Kind == index.Symlink && len(parts) > 0 {
			if links++; links > maxLinks {
				return nil, "", fmt.Errorf("%.200q: %w", path, unix.ELOOP)
			}
			if strings.HasPrefix(child.Inode.Target, "/") {
				at, above = root, nil
			}
			parts = append(strings.Split(child.Inode.Target, "/"), parts...)
			continue
		}
		above = append(above, at)
		at, name = child.Inode, part
	}
	return at, name, nil
}
