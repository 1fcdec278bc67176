// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/signature"
)

// openArchive opens an archive of either kind. What comes through a pipe, or
// is compressed, goes first into a file that has no name, on the store's file
// system: however this ends, nothing of it is left.
func openArchive(ctx context.Context, r Request) (source, error) {
	l := &layout{ref: r.source()}
	var err error
	if l.file, l.size, err = plainArchive(ctx, r); err != nil {
		return nil, notOpened(l.said(), err)
	}
	if err := l.start(ctx, r, l.file); err != nil {
		return nil, err
	}
	if l.ref.Transport == image.OCIArchive {
		return l, nil
	}
	s, err := openDocker(l)
	if err != nil {
		l.Close()
	}
	return s, err
}

// plainArchive opens the archive for reading at any place.
func plainArchive(ctx context.Context, r Request) (*os.File, int64, error) {
	path := r.source().Path
	f, size, err := archiveFile(ctx, r, path)
	if err != nil {
		return nil, 0, err
	}
	head := make([]byte, 6)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, 0, err
	}
	compression := compressionOf(head[:n])
	switch compression {
	case "":
		return f, size, nil
	case "gzip", "zstd":
		defer f.Close()
		return inflate(ctx, r, f, compression)
	}
	f.Close()
	return nil, 0, &Problem{
		What: "it is compressed with " + compression,
		Mend: "gantry reads archives as they are, or compressed with gzip or zstd: decompress it first",
	}
}

func archiveFile(ctx context.Context, r Request, path string) (*os.File, int64, error) {
	if path == image.Stdin {
		return fromStdin(ctx, r)
	}
	f, size, err := regular(unix.AT_FDCWD, path, 0)
	if errors.Is(err, errNotRegular) {
		err = fmt.Errorf("%w (a directory is written oci:%s)", err, path)
	}
	return f, size, err
}

// compressionOf names what no tar begins with.
func compressionOf(head []byte) string {
	for _, c := range []struct{ name, magic string }{
		{"gzip", "\x1f\x8b"}, {"zstd", "\x28\xb5\x2f\xfd"}, {"xz", "\xfd7zXZ\x00"}, {"bzip2", "BZh"},
	} {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return c.name
		}
	}
	return ""
}

// fromStdin takes a file that is standard input as it is, and copies anything
// else.
func fromStdin(ctx context.Context, r Request) (*os.File, int64, error) {
	if r.Stdin == nil {
		return nil, 0, errors.New("nothing is connected to it")
	}
	if st, err := r.Stdin.Stat(); err == nil && st.Mode().IsRegular() {
		return reopen(r.Stdin)
	}
	f, err := scratch(r.Store.Path())
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	most := r.Limits.Complete().Bytes
	n, err := copyUntil(ctx, f, io.LimitReader(r.Stdin, most+1))
	switch {
	case err != nil:
		return nil, 0, err
	case n > most:
		return nil, 0, fmt.Errorf("more than %d bytes", most)
	case n == 0:
		return nil, 0, errors.New("it is empty")
	}
	return reopen(f)
}

// copyUntil copies as long as it is wanted. Who stands at a silent pipe is
// left behind.
func copyUntil(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	type result struct {
		n   int64
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := io.Copy(w, r)
		done <- result{n, err}
	}()
	select {
	case c := <-done:
		return c.n, c.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// reopen opens a file again, for reading only and with a position of its own.
func reopen(f *os.File) (*os.File, int64, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var out *os.File
	var size int64
	var openErr error
	err = c.Control(func(fd uintptr) {
		out, size, openErr = regular(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), 0)
	})
	return out, size, errors.Join(err, openErr)
}

// scratch makes a file without a name.
func scratch(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "archive"), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, &fs.PathError{Op: "make file in", Path: dir, Err: err}
	}
	f, err := os.CreateTemp(dir, "archive-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// inflate has a worker decompress f.
func inflate(ctx context.Context, r Request, f *os.File, compression string) (*os.File, int64, error) {
	out, err := scratch(r.Store.Path())
	if err != nil {
		return nil, 0, err
	}
	limits, err := json.Marshal(r.Limits)
	if err != nil {
		out.Close()
		return nil, 0, fmt.Errorf("encode limits: %w", err)
	}
	if err := decompress(ctx, r, f, out, wire.InflateStart{Compression: compression, Limits: limits}); err != nil {
		out.Close()
		return nil, 0, fmt.Errorf("decompress: %w", err)
	}
	// The worker is gone; its successor reads, and writes nothing.
	defer out.Close()
	return reopen(out)
}

func decompress(ctx context.Context, r Request, in, out *os.File, order wire.InflateStart) error {
	p, err := launch(ctx, r.Libexec, wire.Inflate, in, out)
	if err != nil {
		return err
	}
	defer p.stop()
	return p.order(order, mergeTime, nil)
}

// docker is an image in an archive of docker save. Such an archive has no
// manifest that a registry would know: this makes the one that belongs to its
// parts, the same for the same parts.
type docker struct {
	*layout
	d      ispec.Descriptor
	b      []byte
	places map[digest.Digest]wire.Content
}

// openDocker asks the worker for the parts. An archive of either kind that is
// an OCI layout is left one: that has the digests the image came with.
func openDocker(l *layout) (source, error) {
	var parts wire.DockerImage
	if err := l.ask(wire.OpDocker, nil, &parts); err != nil {
		return nil, err
	}
	if parts.Missing {
		return l, nil
	}
	s := &docker{layout: l, places: map[digest.Digest]wire.Content{}}
	m := ispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest}
	parts.Config.MediaType = ispec.MediaTypeImageConfig
	m.Config = s.part(parts.Config)
	for _, c := range parts.Layers {
		m.Layers = append(m.Layers, s.part(c))
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest of %s: %w", l.said(), err)
	}
	s.b, s.d = b, ispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return s, nil
}

func (s *docker) part(c wire.Content) ispec.Descriptor {
	d := ispec.Descriptor{MediaType: c.MediaType, Digest: digest.Digest(c.Digest), Size: c.Size}
	s.places[d.Digest] = c
	return d
}

func (s *docker) Resolve(context.Context) (ispec.Descriptor, error) { return s.d, nil }

func (s *docker) Manifest(context.Context, ispec.Descriptor) ([]byte, string, error) {
	return s.b, s.d.MediaType, nil
}

func (s *docker) Signatures(context.Context, []ispec.Descriptor) ([]signature.Signature, []string, error) {
	return nil, []string{"an archive of docker save carries no signatures"}, nil
}

func (s *docker) Blob(_ context.Context, d ispec.Descriptor) (io.ReadCloser, error) {
	at, ok := s.places[d.Digest]
	if !ok {
		return nil, fmt.Errorf("%s has no blob %s", s.said(), d.Digest)
	}
	return s.section(at)
}
