// SPDX-License-Identifier: Apache-2.0

// Package erofs writes the metadata of an image as an EROFS whose file
// contents lie in other devices, one per layer. It writes one shape only:
// extended inodes, inline extended attributes, directories and symbolic links
// inline where they fit in their inode's block, regular files by chunks. Field
// names follow fs/erofs/erofs_fs.h of Linux, which is the specification.
package erofs

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"strings"

	"github.com/gantryrun/gantry/image/tree/index"
)

const (
	blockSize   = index.BlockSize
	blockBits   = 12
	superOffset = 1024
	superMagic  = 0xe0f5e1e2
	inodeSize   = 64 // extended
	slotSize    = 128
	nidSize     = 32
	direntSize  = 12

	compatChecksum  = 0x1
	compatMtime     = 0x2
	incompatChunks  = 0x4
	incompatDevices = 0x8

	layoutPlain  = 0
	layoutInline = 2
	layoutChunks = 4

	chunkIndexes = 0x20
	// One gibibyte: a table of eight bytes a gibibyte is short enough.
	maxChunkBits = 18
	nullBlock    = ^uint32(0)
)

// The most devices whose table leaves the root's number below 65536.
const maxDevices = 4096

var le = binary.LittleEndian

// Super is what a mount must agree with before the kernel sees the image.
type Super struct {
	Blocks  uint32
	Devices int
}

// ReadSuper reads the superblock. It checks only what Super says: the kernel
// opens paths named in the device table if it is given fewer devices than the
// image has, so nobody may mount an image without comparing Devices.
func ReadSuper(r io.ReaderAt) (Super, error) {
	b := make([]byte, 128)
	if _, err := r.ReadAt(b, superOffset); err != nil {
		return Super{}, fmt.Errorf("read EROFS superblock: %w", err)
	}
	if le.Uint32(b) != superMagic || b[12] != blockBits {
		return Super{}, fmt.Errorf("read EROFS superblock: not an EROFS with blocks of %d", blockSize)
	}
	devices := int(le.Uint16(b[86:]))
	if incompat := le.Uint32(b[80:]); incompat&^(incompatChunks|incompatDevices) != 0 {
		return Super{}, fmt.Errorf("read EROFS superblock: features %#x are not ours", incompat)
	}
	return Super{Blocks: le.Uint32(b[36:]), Devices: devices}, nil
}

// head returns what precedes the inodes: superblock and device table.
func head(img *index.Image, layers []layerDevice, size int, blocks uint32, inodes int, root uint64) []byte {
	b := make([]byte, size)
	s := b[superOffset:]
	le.PutUint32(s, superMagic)
	le.PutUint32(s[8:], compatChecksum|compatMtime)
	s[12] = blockBits
	le.PutUint16(s[14:], uint16(root))
	le.PutUint64(s[16:], uint64(inodes))
	le.PutUint32(s[36:], blocks)
	id := identity(img)
	copy(s[48:64], id[:])
	incompat := uint32(incompatChunks)
	if len(layers) > 0 {
		incompat |= incompatDevices
	}
	le.PutUint32(s[80:], incompat)
	le.PutUint16(s[86:], uint16(len(layers)))
	le.PutUint16(s[88:], (superOffset+128)/slotSize)
	for i, l := range layers {
		slot := b[superOffset+128+i*slotSize:]
		// Never a path: a kernel that is given no devices would open it.
		copy(slot[:64], fmt.Sprintf("gantry-layer-%d", l.layer))
		le.PutUint32(slot[64:], uint32(l.blocks))
	}
	// The kernel's crc32c neither inverts its seed nor its result.
	sum := ^crc32.Checksum(b[superOffset:blockSize], crc32.MakeTable(crc32.Castagnoli))
	le.PutUint32(s[4:], sum)
	return b
}

// xattrPrefixes are the name spaces EROFS has; the index goes on disk.
func xattrPrefix(name string) (index byte, rest string, ok bool) {
	switch name {
	case "system.posix_acl_access":
		return 2, "", true
	case "system.posix_acl_default":
		return 3, "", true
	}
	if rest, ok := strings.CutPrefix(name, "user."); ok {
		return 1, rest, true
	}
	if rest, ok := strings.CutPrefix(name, "trusted."); ok {
		return 4, rest, true
	}
	if rest, ok := strings.CutPrefix(name, "security."); ok {
		return 6, rest, true
	}
	return 0, "", false
}

// HoldsXattr tells whether the file system has a place for this name.
func HoldsXattr(name string) bool {
	i, rest, ok := xattrPrefix(name)
	return ok && (rest != "" || i == 2 || i == 3)
}

// xattrs returns the inline area that follows an inode, padded to four bytes.
func xattrs(list []index.Xattr) ([]byte, error) {
	if len(list) == 0 {
		return nil, nil
	}
	b := make([]byte, 12) // no name filter, nothing shared
	for _, x := range list {
		i, rest, ok := xattrPrefix(x.Name)
		if !ok || len(rest) > 255 || len(x.Value) > 65535 {
			return nil, fmt.Errorf("extended attribute %q does not fit", x.Name)
		}
		b = append(b, byte(len(rest)), i, 0, 0)
		le.PutUint16(b[len(b)-2:], uint16(len(x.Value)))
		b = append(append(b, rest...), x.Value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	if len(b) > 12+4*65534 {
		return nil, fmt.Errorf("extended attributes of %d bytes do not fit", len(b))
	}
	return b, nil
}

func xattrSize(list []index.Xattr) int64 {
	if len(list) == 0 {
		return 0
	}
	n := int64(12)
	for _, x := range list {
		_, rest, _ := xattrPrefix(x.Name)
		n += (4 + int64(len(rest)) + int64(len(x.Value)) + 3) &^ 3
	}
	return n
}

// chunkBits returns the largest chunk, as a power of two of blocks, that has
// every hole of the file on its boundaries.
func chunkBits(n *index.Inode) int {
	var edges, at uint32
	for i, r := range n.Runs {
		if at += r.Hole; r.Hole > 0 && r.Data > 0 {
			edges |= at
		}
		if at += r.Data; i < len(n.Runs)-1 {
			edges |= at
		}
	}
	whole := bits.Len64(uint64((n.Size - 1) / blockSize))
	if edges == 0 {
		return min(whole, maxChunkBits)
	}
	return min(4+bits.TrailingZeros32(edges), maxChunkBits)
}

// chunkTable appends the table of a file: one entry per chunk.
func chunkTable(b []byte, n *index.Inode, device uint16) []byte {
	unit := int64(1) << chunkBits(n) // in blocks
	total := (n.Size + blockSize - 1) / blockSize
	const perRun = index.ChunkSize / blockSize
	var at int64 // in blocks of the file
	addr := n.Start
	put := func(end int64, hole bool) {
		for end = min(end, total); at < end; at += unit {
			var e [8]byte
			if hole {
				le.PutUint32(e[4:], nullBlock)
			} else {
				le.PutUint16(e[2:], device)
				le.PutUint32(e[4:], addr)
				addr += uint32(min(unit, end-at))
			}
			b = append(b, e[:]...)
		}
	}
	for _, r := range n.Runs {
		put(at+int64(r.Hole)*perRun, true)
		put(at+int64(r.Data)*perRun, false)
	}
	return b
}
