// SPDX-License-Identifier: Apache-2.0

// Package layer turns the tar of a layer into a data file and an index, and
// the indexes of an image's layers into one EROFS. Both work on descriptors
// that somebody else opened and need no privilege: they run where foreign
// bytes are handled, in a process that can do nothing else.
package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/image/tree/erofs"
	"github.com/gantryrun/gantry/image/tree/index"
)

// Limits bound what a layer may ask for.
type Limits = index.Limits

// Summary says what a conversion met.
type Summary = index.Summary

var (
	// ErrDiffID means that the tar is not the one the image's config names.
	ErrDiffID = errors.New("layer does not hash to its diff ID")
	// ErrArchive means that the tar is malformed or asks for what cannot be.
	ErrArchive = errors.New("refuse layer")
	// ErrLimit means that the layer is larger than allowed.
	ErrLimit = errors.New("layer exceeds a limit")
)

// Convert reads a layer once, from r to its end, and writes its file contents
// to data and everything else to idx, both from offset zero. Decompression,
// hashing and the tar run side by side; memory does not depend on the layer.
// Nothing in data and idx counts unless Convert returned nil.
//
// After an error Convert does not wait for a read of r that is under way.
func Convert(r io.Reader, mediaType string, diffID digest.Digest, lim Limits, data, idx *os.File) (Summary, error) {
	if err := diffID.Validate(); err != nil {
		return Summary{}, fmt.Errorf("convert layer: diff ID: %w", err)
	}
	lim = lim.Complete()
	s, err := open(r, mediaType, diffID, lim)
	if err != nil {
		return Summary{}, fmt.Errorf("convert layer: %w", err)
	}
	defer s.stop()
	c := &converter{
		lim: lim, in: tar.NewReader(s),
		data: bufio.NewWriterSize(io.NewOffsetWriter(data, 0), 1<<20),
		idx:  index.NewWriter(idx),
	}
	if err := c.archive(s); err != nil {
		return c.sum, fmt.Errorf("convert layer: %w", err)
	}
	if err := s.verify(diffID); err != nil {
		return c.sum, fmt.Errorf("convert layer: %w", err)
	}
	if err := c.finish(diffID, data, idx); err != nil {
		return c.sum, fmt.Errorf("convert layer: %w", err)
	}
	return c.sum, nil
}

// Merge writes the EROFS of an image whose layers have these indexes, bottom
// first. Its device table names the layers that have data, in their order.
func Merge(layers []io.ReaderAt, lim Limits, out *os.File) error {
	img, err := index.Merge(layers, lim)
	if err != nil {
		return err
	}
	return erofs.Write(img, io.NewOffsetWriter(out, 0))
}

type converter struct {
	lim   Limits
	in    *tar.Reader
	data  *bufio.Writer
	idx   *index.Writer
	sum   Summary
	seen  int   // headers met, those left out too
	block int64 // blocks written to data
	chunk [index.ChunkSize]byte
}

func (c *converter) archive(s *stream) error {
	for {
		h, err := c.in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return archiveError(err)
		}
		if c.seen++; c.seen > c.lim.Entries {
			return fmt.Errorf("%w: more than %d entries", ErrLimit, c.lim.Entries)
		}
		if err := c.entry(h); err != nil {
			return fmt.Errorf("entry %d, %.200q: %w", c.seen, h.Name, err)
		}
	}
	return s.padding()
}

// archiveError keeps limits and read errors as they are: only what the tar
// reader itself complains about is the archive's fault.
func archiveError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	return fmt.Errorf("read layer: %w", err)
}

func (c *converter) entry(h *tar.Header) error {
	e, skipped, err := entry(h, c.lim)
	c.sum.Skipped += skipped
	if err != nil || e == nil {
		return err
	}
	if err := c.lim.CheckEntry(e); err != nil {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	c.sum.Entries++
	if e.Kind != index.Regular {
		return c.idx.Add(e)
	}
	return c.content(e)
}

// content copies a file chunk by chunk, leaving out those that are all zeros.
func (c *converter) content(e *index.Entry) error {
	if e.Size > c.lim.Bytes-c.sum.Bytes {
		return fmt.Errorf("%w: more than %d bytes of files", ErrLimit, c.lim.Bytes)
	}
	c.sum.Bytes += e.Size
	e.Start = uint32(c.block)
	if err := c.idx.Begin(e); err != nil {
		return err
	}
	var run index.Run
	for left := e.Size; left > 0; {
		b := c.chunk[:min(left, index.ChunkSize)]
		if _, err := io.ReadFull(c.in, b); err != nil {
			return archiveError(err)
		}
		left -= int64(len(b))
		if zero(b) {
			if run.Data > 0 {
				if err := c.idx.Run(run); err != nil {
					return err
				}
				run = index.Run{}
			}
			run.Hole++
			continue
		}
		run.Data++
		if err := c.store(b); err != nil {
			return err
		}
	}
	if err := c.idx.Run(run); err != nil {
		return err
	}
	return c.idx.End()
}

func (c *converter) store(b []byte) error {
	if pad := len(b) % index.BlockSize; pad != 0 {
		n := len(b)
		b = b[:n+index.BlockSize-pad]
		clear(b[n:])
	}
	c.block += int64(len(b) / index.BlockSize)
	_, err := c.data.Write(b)
	return err
}

func (c *converter) finish(diffID digest.Digest, data, idx *os.File) error {
	if err := c.data.Flush(); err != nil {
		return err
	}
	c.sum.Data = c.block * index.BlockSize
	h, err := c.idx.Close(diffID, c.sum.Data)
	if err != nil {
		return err
	}
	if err := data.Truncate(c.sum.Data); err != nil {
		return err
	}
	return idx.Truncate(index.HeaderSize + h.Body)
}

// zero tells whether b holds only zeros: its first byte is one and every other
// is like the one before it, which the runtime compares at memory speed.
func zero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}
