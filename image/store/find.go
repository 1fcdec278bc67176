// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/jsonin"
)

// block is how much of index.json is read at a time, and the length of what is
// searched line by line rather than bisected.
const block = 8 << 10

// nameMember precedes the name of an entry. Within the text of a string its
// quotes would be escaped, so where it is found, it is a member.
const nameMember = `"` + ispec.AnnotationRefName + `":"`

// find returns the first entry that fits, of those whose name begins with start.
//
// It bisects the lines that writeIndex wrote. What that finds it also checks, so
// a file that is not as expected (another tool wrote it) can only make it find
// nothing; then everything is read.
func (s *Store) find(start string, fits func(ispec.Descriptor) bool) (ispec.Descriptor, error) {
	if d, ok := s.findLine(start, fits); ok {
		return d, nil
	}
	x, err := s.readIndex()
	if err != nil {
		return ispec.Descriptor{}, err
	}
	for _, d := range x.Manifests {
		if fits(d) {
			return d, nil
		}
	}
	return ispec.Descriptor{}, ErrNotFound
}

func (s *Store) findLine(start string, fits func(ispec.Descriptor) bool) (ispec.Descriptor, bool) {
	f, size, err := s.open(indexFile)
	if err != nil {
		return ispec.Descriptor{}, false
	}
	defer f.Close()
	head := make([]byte, len(indexHead))
	if _, err := f.ReadAt(head, 0); err != nil || string(head) != indexHead {
		return ispec.Descriptor{}, false
	}
	l := lines{f: f, size: size}
	want := encodedName(start)
	for at := l.lowerBound(int64(len(head)), want); at < size; {
		line, next, err := l.line(at)
		key := lineName(line)
		if err != nil || bytes.Compare(key, want) > 0 && !bytes.HasPrefix(key, want) {
			break
		}
		var d ispec.Descriptor
		if bytes.HasPrefix(key, want) && jsonin.Unmarshal(bytes.TrimSuffix(line, []byte{','}), &d) == nil &&
			fits(d) && image.ValidDescriptor(d, image.MaxLayerSize) == nil {
			return d, true
		}
		at = next
	}
	return ispec.Descriptor{}, false
}

// lines reads a file line by line from any place. It keeps the last block, so
// going on from line to line costs no system call each.
type lines struct {
	f    io.ReaderAt
	size int64
	buf  []byte
	off  int64
}

// lowerBound returns where a line begins that is not far before the first whose
// name is not below want. low is the beginning of a line.
func (l *lines) lowerBound(low int64, want []byte) int64 {
	high := l.size
	for high-low > block {
		middle := low + (high-low)/2
		// The first line that begins at middle or after it.
		_, at, err := l.line(middle - 1)
		if err != nil || at >= high {
			high = middle
			continue
		}
		line, next, err := l.line(at)
		if err != nil || bytes.Compare(lineName(line), want) >= 0 {
			high = at
			continue
		}
		low = next
	}
	return low
}

// line returns the text from at to the end of its line, and where the next line
// begins. The text is good until the next call.
func (l *lines) line(at int64) ([]byte, int64, error) {
	for length := int64(block); ; length *= 2 {
		b, err := l.read(at, length)
		if err != nil {
			return nil, 0, err
		}
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			return b[:i], at + int64(i) + 1, nil
		}
		if at+int64(len(b)) >= l.size {
			return b, l.size, nil
		}
		if length > image.MaxLayout {
			return nil, 0, errors.New("line too long")
		}
	}
}

// read returns up to so many bytes from at: fewer when the kept block has a
// whole line of them.
func (l *lines) read(at, length int64) ([]byte, error) {
	if at >= l.off && at < l.off+int64(len(l.buf)) {
		kept := l.buf[at-l.off:]
		if int64(len(kept)) >= length || bytes.IndexByte(kept, '\n') >= 0 {
			return kept, nil
		}
	}
	length = min(length, l.size-at)
	if int64(cap(l.buf)) < length {
		l.buf = make([]byte, length)
	}
	l.buf, l.off = l.buf[:length], at
	n, err := l.f.ReadAt(l.buf, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", indexFile, err)
	}
	l.buf = l.buf[:n]
	return l.buf, nil
}

// lineName returns the name in an entry's line as JSON has it, without quotes;
// nothing if it has none.
func lineName(line []byte) []byte {
	i := bytes.Index(line, []byte(nameMember))
	if i < 0 {
		return nil
	}
	text := line[i+len(nameMember):]
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return text[:i]
		}
	}
	return nil
}

// byName is the order of the lines: that of names as JSON has them.
func byName(a, b ispec.Descriptor) int {
	return bytes.Compare(encodedName(name(a)), encodedName(name(b)))
}

func encodedName(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		return nil // a string cannot fail
	}
	return b[1 : len(b)-1]
}
