// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bufio"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

const (
	blockLen   = 256 << 10
	blockCount = 8
	// What `zstd --ultra -22` asks for is 128 MiB; 8 MiB is what RFC 8878
	// wants every decoder to have, and what level 19 and BuildKit use.
	maxWindow = 16 << 20
	// Below this a ratio says nothing.
	ratioFloor = 64 << 20
)

// stream is the decompressed layer. One goroutine decompresses, one hashes,
// and the reader of the stream is the third; blocks of memory go round.
type stream struct {
	blocks chan *block
	free   chan *block
	done   chan struct{}
	once   sync.Once
	hash   hash.Hash
	hashed chan struct{}
	cur    *block
	rest   []byte
	err    error
}

type block struct {
	buf  [blockLen]byte
	n    int
	err  error
	refs atomic.Int32
}

// open starts the stages. Somebody has to call stop.
func open(r io.Reader, mediaType string, diffID digest.Digest, lim Limits) (*stream, error) {
	in := &meter{r: r}
	plain, err := decompress(in, mediaType)
	if err != nil {
		return nil, err
	}
	s := &stream{
		blocks: make(chan *block, blockCount), free: make(chan *block, blockCount),
		done: make(chan struct{}), hashed: make(chan struct{}),
		hash: diffID.Algorithm().Hash(),
	}
	for range blockCount {
		s.free <- new(block)
	}
	hashes := make(chan *block, blockCount)
	go s.produce(plain, in, lim, hashes)
	go s.digest(hashes)
	return s, nil
}

// decompress goes by the media type, never by what the bytes look like: what
// was signed says how it is to be read.
func decompress(in io.Reader, mediaType string) (io.Reader, error) {
	buffered := bufio.NewReaderSize(in, 128<<10)
	switch {
	case strings.HasSuffix(mediaType, "+gzip"), strings.HasSuffix(mediaType, ".gzip"):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		return z, nil
	case strings.HasSuffix(mediaType, "+zstd"), strings.HasSuffix(mediaType, ".zstd"):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		return z.IOReadCloser(), nil
	case strings.HasSuffix(mediaType, ".tar"):
		return buffered, nil
	}
	return nil, fmt.Errorf("layer of unknown media type %.100q", mediaType)
}

// produce fills blocks until the end, an error or stop.
func (s *stream) produce(plain io.Reader, in *meter, lim Limits, hashes chan<- *block) {
	defer close(hashes)
	if c, ok := plain.(io.Closer); ok {
		defer c.Close()
	}
	var total int64
	for {
		var b *block
		select {
		case b = <-s.free:
		case <-s.done:
			return
		}
		b.n, b.err = fill(plain, b.buf[:])
		total += int64(b.n)
		if err := checkStream(lim, total, in.n); err != nil {
			b.err, b.n = err, 0
		}
		last := b.err != nil
		b.refs.Store(2)
		hashes <- b // never blocks: as many places as blocks
		s.blocks <- b
		if last {
			return
		}
	}
}

// fill is io.ReadFull, but keeps a decompressor's complaint of a cut stream
// apart from the end.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

func checkStream(lim Limits, plain, packed int64) error {
	// Headers and padding come on top of the content that is limited.
	if room := lim.Bytes + int64(lim.Entries)*2048; plain > room {
		return fmt.Errorf("%w: more than %d bytes decompressed", ErrLimit, room)
	}
	if plain > ratioFloor && plain/lim.Ratio > packed {
		return fmt.Errorf("%w: %d bytes became %d, more than %d times as much", ErrLimit, packed, plain, lim.Ratio)
	}
	return nil
}

func (s *stream) digest(hashes <-chan *block) {
	defer close(s.hashed)
	for b := range hashes {
		s.hash.Write(b.buf[:b.n])
		s.release(b)
	}
}

func (s *stream) release(b *block) {
	if b.refs.Add(-1) == 0 {
		s.free <- b
	}
}

// Read gives the decompressed bytes.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.cur != nil {
			s.release(s.cur)
		}
		s.cur = <-s.blocks
		s.rest, s.err = s.cur.buf[:s.cur.n], s.cur.err
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// padding reads what follows the end of the archive. Two readers that differ
// on what is behind the end see two different images, so only zeros may be.
func (s *stream) padding() error {
	b := make([]byte, 32<<10)
	for {
		n, err := s.Read(b)
		if !zero(b[:n]) {
			return fmt.Errorf("%w: data after the end of the archive", ErrArchive)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
	}
}

// verify is called at the end of the stream.
func (s *stream) verify(diffID digest.Digest) error {
	<-s.hashed
	got := digest.NewDigest(diffID.Algorithm(), s.hash)
	if got != diffID {
		return fmt.Errorf("%w: it is %s, the config says %s", ErrDiffID, got, diffID)
	}
	return nil
}

func (s *stream) stop() { s.once.Do(func() { close(s.done) }) }

// meter counts what was read of the compressed layer. Only the goroutine that
// decompresses touches it.
type meter struct {
	r io.Reader
	n int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	return n, err
}
