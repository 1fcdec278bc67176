// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/opencontainers/go-digest"
)

// ErrFormat means that an index is not what our writer makes.
var ErrFormat = errors.New("malformed layer index")

// Reader reads an index, believing nothing in it.
type Reader struct {
	Header Header
	lim    Limits
	r      *bufio.Reader
	left   int64 // bytes of the body not read yet
	bytes  int64 // sum of sizes so far
	read   int
}

// NewReader reads the header. Records follow by Next.
func NewReader(in io.ReaderAt, lim Limits) (*Reader, error) {
	r := &Reader{lim: lim.withDefaults()}
	head, err := readHeader(in)
	if err != nil {
		return nil, err
	}
	if head.Entries > r.lim.Entries || head.Bytes > r.lim.Bytes || head.Data > r.lim.Bytes+int64(head.Entries)*BlockSize {
		return nil, fmt.Errorf("%w: %d entries, %d bytes are more than allowed", ErrFormat, head.Entries, head.Bytes)
	}
	r.Header, r.left = head, head.Body
	r.r = bufio.NewReaderSize(io.NewSectionReader(in, HeaderSize, head.Body), 128<<10)
	return r, nil
}

func readHeader(in io.ReaderAt) (Header, error) {
	b := make([]byte, HeaderSize)
	if _, err := in.ReadAt(b, 0); err != nil {
		return Header{}, fmt.Errorf("%w: header: %w", ErrFormat, err)
	}
	le := binary.LittleEndian
	if string(b[:8]) != magic || le.Uint32(b[8:]) != version || b[digestByte] > maxDigest {
		return Header{}, fmt.Errorf("%w: not an index of version %d", ErrFormat, version)
	}
	var n [4]int64
	for i := range n {
		v := le.Uint64(b[16+8*i:])
		if v > math.MaxInt64/4 {
			return Header{}, fmt.Errorf("%w: header number %d", ErrFormat, v)
		}
		n[i] = int64(v)
	}
	h := Header{Entries: int(n[0]), Body: n[1], Data: n[2], Bytes: n[3]}
	h.DiffID = digest.Digest(b[digestByte+1 : digestByte+1+int(b[digestByte])])
	if h.Data%BlockSize != 0 || h.Data/BlockSize > math.MaxUint32 {
		return Header{}, fmt.Errorf("%w: data of %d bytes", ErrFormat, h.Data)
	}
	return h, nil
}

// Next returns the next record, io.EOF after the last one.
func (r *Reader) Next() (*Entry, error) {
	if r.read == r.Header.Entries {
		if r.left != 0 {
			return nil, fmt.Errorf("%w: %d bytes after the last entry", ErrFormat, r.left)
		}
		return nil, io.EOF
	}
	e := new(Entry)
	if err := r.entry(e); err != nil {
		return nil, fmt.Errorf("%w: entry %d: %w", ErrFormat, r.read, err)
	}
	r.read++
	return e, nil
}

func (r *Reader) entry(e *Entry) (err error) {
	k, err := r.ReadByte()
	if err != nil {
		return err
	}
	e.Kind = Kind(k)
	if e.Path, err = r.text(r.lim.Path); err != nil {
		return err
	}
	switch e.Kind {
	case Whiteout, Opaque:
	case Link:
		e.Target, err = r.text(r.lim.Path)
	default:
		err = r.meta(&e.Meta)
	}
	if err != nil {
		return err
	}
	switch e.Kind {
	case Symlink:
		e.Target, err = r.text(maxTarget)
	case Char, Block:
		e.Rdev, err = r.uint32()
	case Regular:
		err = r.content(e)
	}
	if err != nil {
		return err
	}
	return r.lim.CheckEntry(e)
}

func (r *Reader) meta(m *Meta) error {
	var n [3]uint32
	var err error
	for i := range n {
		if n[i], err = r.uint32(); err != nil {
			return err
		}
	}
	if n[0] > 0o7777 {
		return fmt.Errorf("mode %o", n[0])
	}
	m.Mode, m.UID, m.GID = uint16(n[0]), n[1], n[2]
	if m.Sec, err = binary.ReadVarint(r); err != nil {
		return err
	}
	if m.Nsec, err = r.uint32(); err != nil {
		return err
	}
	count, err := r.number(maxXattrNo)
	if err != nil || count == 0 {
		return err
	}
	m.Xattrs = make([]Xattr, count)
	for i := range m.Xattrs {
		x := &m.Xattrs[i]
		if x.Name, err = r.text(maxName); err != nil {
			return err
		}
		if x.Value, err = r.text(maxXattr); err != nil {
			return err
		}
	}
	return nil
}

// content reads where a file is stored and checks that all of it lies inside
// the data file and adds up to the file's size.
func (r *Reader) content(e *Entry) error {
	size, err := r.number(r.lim.Bytes - r.bytes)
	if err != nil {
		return fmt.Errorf("size: %w", err)
	}
	e.Size = size
	r.bytes += size
	if e.Start, err = r.uint32(); err != nil {
		return err
	}
	var chunks int64
	for {
		hole, err := r.uint32()
		if err != nil {
			return err
		}
		data, err := r.uint32()
		if err != nil {
			return err
		}
		if hole == 0 && data == 0 {
			break
		}
		if chunks += int64(hole) + int64(data); chunks > Chunks(size) {
			return fmt.Errorf("%s has more runs than bytes", quote(e.Path))
		}
		e.Runs = append(e.Runs, Run{Hole: hole, Data: data})
	}
	if chunks != Chunks(size) {
		return fmt.Errorf("%s has runs for %d chunks of %d", quote(e.Path), chunks, Chunks(size))
	}
	if end := int64(e.Start) + Blocks(size, e.Runs); end > r.Header.Data/BlockSize {
		return fmt.Errorf("%s ends at block %d of %d", quote(e.Path), end, r.Header.Data/BlockSize)
	}
	return nil
}

// ReadByte makes Reader an io.ByteReader that counts.
func (r *Reader) ReadByte() (byte, error) {
	b, err := r.r.ReadByte()
	if err != nil {
		return 0, unexpected(err)
	}
	r.left--
	return b, nil
}

func (r *Reader) number(most int64) (int64, error) {
	v, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, unexpected(err)
	}
	if v > uint64(max(most, 0)) {
		return 0, fmt.Errorf("number %d, more than %d", v, most)
	}
	return int64(v), nil
}

func (r *Reader) uint32() (uint32, error) {
	v, err := r.number(math.MaxUint32)
	return uint32(v), err
}

func (r *Reader) text(most int) (string, error) {
	n, err := r.number(min(int64(most), r.left))
	if err != nil {
		return "", fmt.Errorf("text: %w", err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r.r, b); err != nil {
		return "", unexpected(err)
	}
	r.left -= n
	return string(b), nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
