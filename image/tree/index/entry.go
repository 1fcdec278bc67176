// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
)

// BlockSize is the unit of the data file and of the EROFS image.
const BlockSize = 4096

// ChunkSize is the unit of holes: a chunk of zeros that lies at a multiple of
// ChunkSize in its file is not stored. Smaller holes are not worth a longer
// chunk table.
const ChunkSize = 64 << 10

const chunkBlocks = ChunkSize / BlockSize

// Kind is what a record describes. Values are part of the format.
type Kind uint8

// The kinds. Whiteout hides Path in lower layers, Opaque everything below it.
const (
	Dir Kind = iota + 1
	Regular
	Symlink
	Char
	Block
	Fifo
	Link
	Whiteout
	Opaque
)

// Xattr is one extended attribute.
type Xattr struct{ Name, Value string }

// Meta is what an inode has beside its content.
type Meta struct {
	Mode     uint16 // permissions, setuid, setgid, sticky: 07777
	UID, GID uint32
	Sec      int64
	Nsec     uint32
	Rdev     uint32  // as the kernel's new_encode_dev has it
	Xattrs   []Xattr // sorted by name
}

// Run is a stretch of a file: Hole chunks of zeros, then Data chunks stored.
type Run struct{ Hole, Data uint32 }

// Entry is one record.
type Entry struct {
	Kind   Kind
	Path   string // clean, relative, "" for the root
	Target string // text of a symlink; path of the file a Link names
	Meta
	Size  int64 // of a Regular file
	Start uint32
	// Runs say where a Regular file is stored, from data block Start on
	// without a gap. One run without a hole covers most files.
	Runs []Run
}

// Header is the head of an index file.
type Header struct {
	DiffID  digest.Digest
	Entries int
	Body    int64 // bytes after the header
	Data    int64 // size of the data file
	Bytes   int64 // sum of Size
}

// Chunks returns how many chunks a file of this size has.
func Chunks(size int64) int64 { return (size + ChunkSize - 1) / ChunkSize }

// Blocks returns how many data blocks a file of this size occupies with runs.
func Blocks(size int64, runs []Run) int64 {
	var at, blocks int64
	for _, r := range runs {
		at += int64(r.Hole)
		start := at
		at += int64(r.Data)
		end := min(at*chunkBlocks, (size+BlockSize-1)/BlockSize)
		blocks += max(end-start*chunkBlocks, 0)
	}
	return blocks
}

// CleanPath confines a name from a tar to the root: "..", "." and a leading
// slash lead nowhere else. The root itself is "".
func CleanPath(name string) string { return path.Clean("/" + name)[1:] }

// CheckPath refuses what CleanPath did not make or the limits do not allow.
func (l Limits) CheckPath(p string) error {
	if len(p) > l.Path {
		return fmt.Errorf("path of %d bytes, more than %d", len(p), l.Path)
	}
	if p == "" {
		return nil
	}
	depth, rest := 0, p
	for more := true; more; depth++ {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		switch {
		case name == "" || name == "." || name == "..":
			return fmt.Errorf("path %s is not clean", quote(p))
		case len(name) > maxName:
			return fmt.Errorf("name of %d bytes in %s, more than %d", len(name), quote(p), maxName)
		case strings.IndexByte(name, 0) >= 0:
			return fmt.Errorf("path %s has a NUL byte", quote(p))
		}
	}
	if depth > l.Depth {
		return fmt.Errorf("path %s has %d components, more than %d", quote(p), depth, l.Depth)
	}
	return nil
}

// CheckMeta refuses what no inode can have or the limits do not allow.
func (l Limits) CheckMeta(m Meta) error {
	// -1 is "no owner" in every system call, so it can own nothing.
	if m.UID == ^uint32(0) || m.GID == ^uint32(0) {
		return fmt.Errorf("owner %d:%d is out of range", m.UID, m.GID)
	}
	if m.Mode&^0o7777 != 0 {
		return fmt.Errorf("mode %o is out of range", m.Mode)
	}
	if m.Nsec >= 1e9 {
		return fmt.Errorf("time with %d nanoseconds is out of range", m.Nsec)
	}
	if len(m.Xattrs) > l.Xattrs {
		return fmt.Errorf("%d extended attributes, more than %d", len(m.Xattrs), l.Xattrs)
	}
	sum, last := 0, ""
	for _, x := range m.Xattrs {
		sum += len(x.Name) + len(x.Value)
		if x.Name <= last || len(x.Name) > maxName || strings.IndexByte(x.Name, 0) >= 0 {
			return fmt.Errorf("extended attribute %s: name is empty, repeated, unsorted or too long", quote(x.Name))
		}
		if len(x.Value) > maxXattr {
			return fmt.Errorf("extended attribute %s of %d bytes, more than %d", quote(x.Name), len(x.Value), maxXattr)
		}
		last = x.Name
	}
	if sum > l.XattrSum {
		return fmt.Errorf("extended attributes of %d bytes, more than %d", sum, l.XattrSum)
	}
	return nil
}

// CheckEntry refuses a record that Merge could not use.
func (l Limits) CheckEntry(e *Entry) error {
	if err := l.CheckPath(e.Path); err != nil {
		return err
	}
	// CVE-2021-29136: nothing takes the root's place.
	if e.Path == "" && e.Kind != Dir && e.Kind != Opaque {
		return fmt.Errorf("the root is not a directory")
	}
	switch e.Kind {
	case Link:
		return l.CheckPath(e.Target)
	case Whiteout, Opaque:
		return nil
	case Symlink:
		if e.Target == "" || len(e.Target) > maxTarget || strings.IndexByte(e.Target, 0) >= 0 {
			return fmt.Errorf("symbolic link %s: target of %d bytes is empty, too long or has a NUL byte", quote(e.Path), len(e.Target))
		}
	case Dir, Regular, Char, Block, Fifo:
	default:
		return fmt.Errorf("entry of unknown kind %d", e.Kind)
	}
	if err := l.CheckMeta(e.Meta); err != nil {
		return fmt.Errorf("%s: %w", quote(e.Path), err)
	}
	return nil
}

// quote makes foreign bytes fit for a terminal and short enough for a line.
func quote(s string) string {
	if len(s) > 128 {
		return fmt.Sprintf("%q…", s[:128])
	}
	return fmt.Sprintf("%q", s)
}
