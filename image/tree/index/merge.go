// SPDX-License-Identifier: Apache-2.0

package index

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Inode is one inode of the merged tree. Several names may lead to it.
type Inode struct {
	Kind Kind
	Meta
	Target   string
	Size     int64
	Start    uint32
	Runs     []Run
	Layer    int    // whose data file holds the content
	Links    uint32 // names that lead here; for a directory 2 and its subdirectories
	Children map[string]Dentry
	Number   uint64 // free for whoever writes the tree
	swept    int    // layer that last removed lower names below this directory
}

// Dentry is a name in a directory.
type Dentry struct {
	Inode   *Inode
	touched int // layer that last made this name or one below it
}

// Image is the merged tree of an image.
type Image struct {
	Root   *Inode
	Layers []Header
	Names  int // names in the tree, an upper bound
}

// What a chain of symbolic links may cost, as in the kernel.
const maxHops = 40

type merger struct {
	image Image
	lim   Limits
	layer int // 1 for the bottom
}

// Merge applies layers, bottom first, by umoci's rules, which are those of the
// OCI image specification made exact: entries count in their order and the
// last one of a name wins; whiteouts and opaque markers hide only what lower
// layers have, wherever in their own layer they stand ("Files that are present
// in the same layer as a whiteout file can only be hidden by whiteout files in
// subsequent layers"); a directory over a directory keeps the children;
// anything else is replaced as a whole; symbolic links among the parents of a
// name are followed inside the tree, the last component never is.
func Merge(layers []io.ReaderAt, lim Limits) (*Image, error) {
	lim = lim.withDefaults()
	m := &merger{lim: lim, image: Image{Root: newDir(0), Names: 1}}
	for i, in := range layers {
		m.layer = i + 1
		if err := m.apply(in); err != nil {
			return nil, fmt.Errorf("merge layer %d: %w", i, err)
		}
	}
	m.image.Root.count()
	return &m.image, nil
}

func newDir(layer int) *Inode {
	// A new directory has no lower names, so there is nothing to sweep.
	return &Inode{Kind: Dir, Meta: Meta{Mode: 0o755}, Children: map[string]Dentry{}, swept: layer}
}

func (m *merger) apply(in io.ReaderAt) error {
	r, err := NewReader(in, m.lim)
	if err != nil {
		return err
	}
	m.image.Layers = append(m.image.Layers, r.Header)
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := m.entry(e); err != nil {
			return fmt.Errorf("entry %s: %w", quote(e.Path), err)
		}
		if m.image.Names > 10*m.lim.Entries {
			return fmt.Errorf("image has more than %d names", 10*m.lim.Entries)
		}
	}
}

func (m *merger) entry(e *Entry) error {
	switch e.Kind {
	case Whiteout, Opaque:
		return m.hide(e)
	}
	if e.Path == "" {
		m.image.Root.Meta = e.Meta
		return nil
	}
	dir, name := split(e.Path)
	parent, err := m.walk(dir, true)
	if err != nil {
		return err
	}
	old, exists := parent.Children[name]
	if exists && e.Kind == Dir && old.Inode.Kind == Dir {
		old.Inode.Meta = e.Meta
		parent.Children[name] = Dentry{old.Inode, m.layer}
		return nil
	}
	// Removed before a link's target is looked up: a link to itself, or to
	// something below what it replaces, is an error and not a surprise.
	delete(parent.Children, name)
	inode, err := m.inode(e)
	if err != nil {
		return err
	}
	parent.Children[name] = Dentry{inode, m.layer}
	m.image.Names++
	return nil
}

func (m *merger) inode(e *Entry) (*Inode, error) {
	switch e.Kind {
	case Dir:
		d := newDir(m.layer)
		d.Meta = e.Meta
		return d, nil
	case Link:
		return m.linked(e.Target)
	}
	return &Inode{Kind: e.Kind, Meta: e.Meta, Target: e.Target, Size: e.Size, Start: e.Start, Runs: e.Runs, Layer: m.layer - 1}, nil
}

// linked finds the inode a hard link names, in this layer or a lower one.
func (m *merger) linked(target string) (*Inode, error) {
	dir, name := split(target)
	parent, err := m.walk(dir, false)
	if err != nil {
		return nil, fmt.Errorf("hard link to %s: %w", quote(target), err)
	}
	d, ok := parent.Children[name]
	if !ok {
		return nil, fmt.Errorf("hard link to %s: no such file", quote(target))
	}
	if d.Inode.Kind == Dir {
		return nil, fmt.Errorf("hard link to directory %s", quote(target))
	}
	return d.Inode, nil
}

// hide carries out a marker. A marker for something that is not there is no
// error: layers are made by many tools.
func (m *merger) hide(e *Entry) error {
	if e.Kind == Opaque {
		if dir, err := m.walk(e.Path, false); err == nil {
			m.sweep(dir)
		}
		return nil
	}
	dir, name := split(e.Path)
	parent, err := m.walk(dir, false)
	if err != nil {
		return nil
	}
	d, ok := parent.Children[name]
	if !ok {
		return nil
	}
	if d.touched != m.layer {
		delete(parent.Children, name)
	} else if d.Inode.Kind == Dir {
		m.sweep(d.Inode)
	}
	return nil
}

// sweep removes the names below dir that this layer did not make. Every
// directory is swept once per layer: whatever is added afterwards is this
// layer's own.
func (m *merger) sweep(dir *Inode) {
	for todo := []*Inode{dir}; len(todo) > 0; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if d.swept == m.layer {
			continue
		}
		d.swept = m.layer
		for name, c := range d.Children {
			switch {
			case c.touched != m.layer:
				delete(d.Children, name)
			case c.Inode.Kind == Dir:
				todo = append(todo, c.Inode)
			}
		}
	}
}

var (
	errNotExist = errors.New("no such directory")
	errNotDir   = errors.New("a parent is not a directory")
	errLoop     = errors.New("too many symbolic links among its parents")
)

// walk finds a directory, following symbolic links inside the tree. With
// create it makes what is missing, as tar does for parents without an entry of
// their own, and marks the way as this layer's. Nothing found is remembered
// for the next entry: that cache was CVE-2025-47290.
func (m *merger) walk(path string, create bool) (*Inode, error) {
	at := []*Inode{m.image.Root}
	for hops := 0; path != ""; {
		if len(at) > m.lim.Depth {
			return nil, fmt.Errorf("more than %d directories deep", m.lim.Depth)
		}
		var name string
		name, path, _ = strings.Cut(path, "/")
		here := at[len(at)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			at = at[:max(len(at)-1, 1)]
			continue
		}
		d, ok := here.Children[name]
		switch {
		case !ok && !create:
			return nil, errNotExist
		case !ok:
			if len(name) > maxName { // from the text of a symbolic link
				return nil, fmt.Errorf("name of %d bytes, more than %d", len(name), maxName)
			}
			d = Dentry{newDir(m.layer), m.layer}
			here.Children[name] = d
			m.image.Names++
		case d.Inode.Kind == Symlink:
			if hops++; hops > maxHops {
				return nil, errLoop
			}
			if d.Inode.Target[0] == '/' {
				at = at[:1]
			}
			path = d.Inode.Target + "/" + path
			continue
		case d.Inode.Kind != Dir:
			return nil, errNotDir
		}
		if create && d.touched != m.layer {
			here.Children[name] = Dentry{d.Inode, m.layer}
		}
		at = append(at, d.Inode)
	}
	return at[len(at)-1], nil
}

// count sets Links all over the tree.
func (n *Inode) count() {
	n.Links = 2
	for todo := []*Inode{n}; len(todo) > 0; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, c := range d.Children {
			if c.Inode.Kind != Dir {
				c.Inode.Links++
				continue
			}
			d.Links++
			c.Inode.Links = 2
			todo = append(todo, c.Inode)
		}
	}
}

func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}
