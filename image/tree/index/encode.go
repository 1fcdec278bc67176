// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// HeaderSize is the size of the header, which is written last.
const HeaderSize = 256

const (
	magic      = "gantryIX"
	version    = 1
	maxDigest  = 160
	digestByte = 56 // offset of the digest's length; its text follows
)

// Writer writes an index record by record. What a file's content turns out to
// be is not known before it was read, so its runs come after the rest:
// Begin, Run…, End.
type Writer struct {
	out  io.WriterAt
	w    *bufio.Writer
	head Header
	buf  []byte
	open bool
}

// NewWriter writes to out from its beginning. Close writes the header.
func NewWriter(out io.WriterAt) *Writer {
	return &Writer{out: out, w: bufio.NewWriterSize(io.NewOffsetWriter(out, HeaderSize), 256<<10)}
}

// Add writes a record that is complete, its runs included.
func (w *Writer) Add(e *Entry) error {
	if err := w.Begin(e); err != nil {
		return err
	}
	if e.Kind != Regular {
		return nil
	}
	for _, r := range e.Runs {
		if err := w.Run(r); err != nil {
			return err
		}
	}
	return w.End()
}

// Begin writes a record up to its runs. Only a Regular file has runs.
func (w *Writer) Begin(e *Entry) error {
	if w.open {
		return fmt.Errorf("write index: record %s inside another", quote(e.Path))
	}
	b := append(w.buf[:0], byte(e.Kind))
	b = appendString(b, e.Path)
	switch e.Kind {
	case Whiteout, Opaque:
	case Link:
		b = appendString(b, e.Target)
	default:
		b = appendMeta(b, &e.Meta)
	}
	switch e.Kind {
	case Symlink:
		b = appendString(b, e.Target)
	case Char, Block:
		b = binary.AppendUvarint(b, uint64(e.Rdev))
	case Regular:
		b = binary.AppendUvarint(b, uint64(e.Size))
		b = binary.AppendUvarint(b, uint64(e.Start))
		w.open = true
		w.head.Bytes += e.Size
	}
	w.head.Entries++
	return w.put(b)
}

// Run writes one run of the file that Begin named.
func (w *Writer) Run(r Run) error {
	if r.Hole == 0 && r.Data == 0 {
		return nil
	}
	b := binary.AppendUvarint(w.buf[:0], uint64(r.Hole))
	return w.put(binary.AppendUvarint(b, uint64(r.Data)))
}

// End closes the list of runs.
func (w *Writer) End() error {
	w.open = false
	return w.put(append(w.buf[:0], 0, 0))
}

// Close writes the header. data is the size of the data file.
func (w *Writer) Close(diffID digest.Digest, data int64) (Header, error) {
	w.head.DiffID, w.head.Data = diffID, data
	if len(diffID) > maxDigest {
		return w.head, fmt.Errorf("write index: digest of %d bytes", len(diffID))
	}
	if err := w.w.Flush(); err != nil {
		return w.head, fmt.Errorf("write index: %w", err)
	}
	b := make([]byte, HeaderSize)
	copy(b, magic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], version)
	le.PutUint64(b[16:], uint64(w.head.Entries))
	le.PutUint64(b[24:], uint64(w.head.Body))
	le.PutUint64(b[32:], uint64(w.head.Data))
	le.PutUint64(b[40:], uint64(w.head.Bytes))
	b[digestByte] = byte(len(diffID))
	copy(b[digestByte+1:], diffID)
	if _, err := w.out.WriteAt(b, 0); err != nil {
		return w.head, fmt.Errorf("write index header: %w", err)
	}
	return w.head, nil
}

func (w *Writer) put(b []byte) error {
	w.buf = b[:0]
	w.head.Body += int64(len(b))
	_, err := w.w.Write(b)
	return err
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendMeta(b []byte, m *Meta) []byte {
	b = binary.AppendUvarint(b, uint64(m.Mode))
	b = binary.AppendUvarint(b, uint64(m.UID))
	b = binary.AppendUvarint(b, uint64(m.GID))
	b = binary.AppendVarint(b, m.Sec)
	b = binary.AppendUvarint(b, uint64(m.Nsec))
	b = binary.AppendUvarint(b, uint64(len(m.Xattrs)))
	for _, x := range m.Xattrs {
		b = appendString(appendString(b, x.Name), x.Value)
	}
	return b
}
