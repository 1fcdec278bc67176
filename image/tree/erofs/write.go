// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/gantryrun/gantry/image/tree/index"
)

// layerDevice is a layer with data: device number i+1 for the i-th of them.
type layerDevice struct {
	layer  int
	blocks int64
}

// node is an inode with its place.
type node struct {
	*index.Inode
	parent *index.Inode
	names  []string // of a directory, sorted, "." and ".." included
	size   int64    // of its content: i_size
	off    int64    // of the inode
	block  int64    // first block of content that does not lie inline
	inline bool
}

type writer struct {
	img     *index.Image
	nodes   []node
	layers  []layerDevice
	devices map[int]uint16 // layer to device number
	head    int64          // bytes before the first inode
	end     int64          // end of the inodes
	blocks  int64          // of the whole image
	out     *bufio.Writer
	at      int64
	buf     []byte
}

// identity is the volume's UUID: the same layers, the same UUID.
func identity(img *index.Image) [16]byte {
	h := sha256.New()
	for _, l := range img.Layers {
		fmt.Fprintln(h, l.DiffID)
	}
	return [16]byte(h.Sum(nil))
}

// Devices returns which layers have data, in the order a mount names them.
func Devices(layers []index.Header) []int {
	var with []int
	for i, l := range layers {
		if l.Data > 0 {
			with = append(with, i)
		}
	}
	return with
}

// Write writes the image. The same tree gives the same bytes.
func Write(img *index.Image, out io.Writer) error {
	w := &writer{img: img, out: bufio.NewWriterSize(out, 256<<10), devices: map[int]uint16{}}
	for _, l := range Devices(img.Layers) {
		w.layers = append(w.layers, layerDevice{l, img.Layers[l].Data / blockSize})
		w.devices[l] = uint16(len(w.layers))
	}
	if len(w.layers) > maxDevices {
		return fmt.Errorf("write EROFS: %d layers, more than %d", len(w.layers), maxDevices)
	}
	w.head = roundUp(superOffset+128+int64(len(w.layers))*slotSize, blockSize)
	w.collect()
	if err := w.place(); err != nil {
		return fmt.Errorf("write EROFS: %w", err)
	}
	if err := w.write(); err != nil {
		return fmt.Errorf("write EROFS: %w", err)
	}
	return nil
}

// collect lists the inodes, those of one directory side by side.
func (w *writer) collect() {
	root := w.img.Root
	w.nodes = []node{{Inode: root, parent: root}}
	seen := map[*index.Inode]bool{} // those with more names than one
	for i := 0; i < len(w.nodes); i++ {
		d := w.nodes[i]
		if d.Kind != index.Dir {
			continue
		}
		names := make([]string, 0, len(d.Children)+2)
		names = append(names, ".", "..")
		for name := range d.Children {
			names = append(names, name)
		}
		slices.Sort(names)
		w.nodes[i].names = names
		w.nodes[i].size = dirSize(names)
		for _, name := range names {
			c, ok := d.Children[name]
			if !ok || seen[c.Inode] {
				continue
			}
			if c.Inode.Kind != index.Dir && c.Inode.Links > 1 {
				seen[c.Inode] = true
			}
			w.nodes = append(w.nodes, node{Inode: c.Inode, parent: d.Inode, size: contentSize(c.Inode)})
		}
	}
}

func contentSize(n *index.Inode) int64 {
	switch n.Kind {
	case index.Regular:
		return n.Size
	case index.Symlink:
		return int64(len(n.Target))
	}
	return 0
}

// place gives every inode its offset, and after all of them blocks to the
// directories and links that do not fit beside their inode.
func (w *writer) place() error {
	at := w.head
	for i := range w.nodes {
		n := &w.nodes[i]
		at = roundUp(at, nidSize)
		tail := inodeSize + xattrSize(n.Xattrs)
		// An inode never straddles two blocks, nor does inline content.
		need := int64(inodeSize)
		switch {
		case n.Kind == index.Regular && n.size > 0:
			chunks := (n.size - 1) >> (blockBits + chunkBits(n.Inode))
			tail = roundUp(tail, 8) + 8*(chunks+1)
		case n.Kind == index.Regular:
		case n.size > 0 && tail+n.size <= blockSize:
			n.inline = true
			tail += n.size
			need = tail
		}
		if at%blockSize+need > blockSize {
			at = roundUp(at, blockSize)
		}
		n.off, n.Number = at, uint64(at/nidSize)
		at += tail
	}
	w.end = roundUp(at, blockSize)
	next := w.end / blockSize
	for i := range w.nodes {
		if n := &w.nodes[i]; n.Kind != index.Regular && n.size > 0 && !n.inline {
			n.block = next
			next += (n.size + blockSize - 1) / blockSize
		}
	}
	if w.blocks = next; next > math.MaxUint32 || w.nodes[0].Number > math.MaxUint16 {
		return fmt.Errorf("metadata of %d blocks does not fit", next)
	}
	return nil
}

func (w *writer) write() error {
	if err := w.put(head(w.img, w.layers, int(w.head), uint32(w.blocks), len(w.nodes), w.nodes[0].Number)); err != nil {
		return err
	}
	for i := range w.nodes {
		if err := w.inode(i); err != nil {
			return err
		}
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.block == 0 {
			continue
		}
		if err := w.pad(n.block * blockSize); err != nil {
			return err
		}
		if err := w.put(w.content(n)); err != nil {
			return err
		}
	}
	if err := w.pad(w.blocks * blockSize); err != nil {
		return err
	}
	return w.out.Flush()
}

func (w *writer) inode(i int) error {
	n := &w.nodes[i]
	if err := w.pad(n.off); err != nil {
		return err
	}
	attrs, err := xattrs(n.Xattrs)
	if err != nil {
		return err
	}
	b := slices.Grow(w.buf[:0], inodeSize)[:inodeSize]
	clear(b)
	layout := layoutPlain
	var u uint32 // i_u: block, device number or chunk format
	switch {
	case n.Kind == index.Regular && n.size > 0:
		layout = layoutChunks
		u = uint32(chunkIndexes | chunkBits(n.Inode))
	case n.Kind == index.Char || n.Kind == index.Block:
		u = n.Rdev
	case n.inline:
		layout = layoutInline
	default:
		u = uint32(n.block)
	}
	le.PutUint16(b, uint16(1|layout<<1))
	if len(attrs) > 0 {
		le.PutUint16(b[2:], uint16((len(attrs)-12)/4+1))
	}
	le.PutUint16(b[4:], modeType(n.Kind)|n.Mode)
	le.PutUint64(b[8:], uint64(n.size))
	le.PutUint32(b[16:], u)
	le.PutUint32(b[20:], uint32(i+1))
	le.PutUint32(b[24:], n.UID)
	le.PutUint32(b[28:], n.GID)
	le.PutUint64(b[32:], uint64(n.Sec))
	le.PutUint32(b[40:], n.Nsec)
	le.PutUint32(b[44:], n.Links)
	b = append(b, attrs...)
	switch {
	case layout == layoutChunks:
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
		b = chunkTable(b, n.Inode, w.devices[n.Layer])
	case n.inline:
		b = append(b, w.content(n)...)
	}
	w.buf = b
	return w.put(b)
}

func (w *writer) content(n *node) []byte {
	if n.Kind == index.Symlink {
		return []byte(n.Target)
	}
	return dirBytes(n)
}

func (w *writer) put(b []byte) error {
	w.at += int64(len(b))
	_, err := w.out.Write(b)
	return err
}

func (w *writer) pad(to int64) error {
	var zeros [blockSize]byte
	for w.at < to {
		if err := w.put(zeros[:min(to-w.at, blockSize)]); err != nil {
			return err
		}
	}
	return nil
}

// fill calls f with the names of each block of a directory.
func fill(names []string, f func(names []string, used int)) {
	first, used := 0, 0
	for i, name := range names {
		if used+direntSize+len(name) > blockSize {
			f(names[first:i], used)
			first, used = i, 0
		}
		used += direntSize + len(name)
	}
	f(names[first:], used)
}

func dirSize(names []string) (size int64) {
	fill(names, func(_ []string, used int) { size = roundUp(size, blockSize) + int64(used) })
	return size
}

func dirBytes(n *node) []byte {
	b := make([]byte, 0, n.size)
	fill(n.names, func(names []string, _ int) {
		for len(b)%blockSize != 0 {
			b = append(b, 0)
		}
		off := direntSize * len(names)
		for _, name := range names {
			c := n.child(name)
			var e [direntSize]byte
			le.PutUint64(e[:], c.Number)
			le.PutUint16(e[8:], uint16(off))
			e[10] = direntType(c.Kind)
			b = append(b, e[:]...)
			off += len(name)
		}
		for _, name := range names {
			b = append(b, name...)
		}
	})
	return b
}

func (n *node) child(name string) *index.Inode {
	switch name {
	case ".":
		return n.Inode
	case "..":
		return n.parent
	}
	return n.Children[name].Inode
}

func modeType(k index.Kind) uint16 {
	switch k {
	case index.Dir:
		return 0o040000
	case index.Symlink:
		return 0o120000
	case index.Char:
		return 0o020000
	case index.Block:
		return 0o060000
	case index.Fifo:
		return 0o010000
	}
	return 0o100000
}

func direntType(k index.Kind) byte {
	switch k {
	case index.Dir:
		return 2
	case index.Char:
		return 3
	case index.Block:
		return 4
	case index.Fifo:
		return 5
	case index.Symlink:
		return 7
	}
	return 1
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
