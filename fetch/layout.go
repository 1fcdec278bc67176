// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/bounded"
	"github.com/gantryrun/gantry/signature"
)

// layout is an OCI layout in a directory or an archive. Its index, and a tar's
// headers, are read by a worker without a network; the parent only opens,
// copies and hashes.
type layout struct {
	mu   sync.Mutex // one conversation at a time
	p    *process
	ref  image.Reference
	dir  *os.File // of a layout
	file *os.File // of an archive
	size int64
}

func openLayout(ctx context.Context, r Request) (*layout, error) {
	l := &layout{ref: r.source()}
	index, err := l.open()
	if err != nil {
		return nil, notOpened(l.ref.Path, err)
	}
	defer index.Close()
	return l, l.start(ctx, r, index)
}

// start has a worker read what the parent opened. When it fails everything is
// closed.
func (l *layout) start(ctx context.Context, r Request, f *os.File) error {
	var err error
	if l.p, err = launch(ctx, r.Libexec, wire.Layout); err != nil {
		l.closeFiles()
		return err
	}
	start := wire.LayoutStart{
		Archive: l.file != nil, Docker: l.ref.Transport == image.DockerArchive, Any: l.ref.Transport == image.AnyArchive,
		Tag: l.ref.Tag, Digest: string(l.ref.Digest), Path: l.said(),
	}
	if err = l.p.begin(start, f); err != nil {
		l.Close()
	}
	return err
}

// notOpened names what could not be opened, once.
func notOpened(path string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) && p.Path == path {
		err = p.Err
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// said is how messages name the source.
func (l *layout) said() string {
	if l.ref.Path == image.Stdin {
		return "standard input"
	}
	return l.ref.Path
}

// open returns what the worker reads first: index.json.
func (l *layout) open() (*os.File, error) {
	fd, err := unix.Open(l.ref.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("%w (an archive is written oci-archive:%s)", err, l.ref.Path)
	}
	if err != nil {
		return nil, err
	}
	l.dir = os.NewFile(uintptr(fd), l.ref.Path)
	f, _, err := l.below("index.json")
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("no index.json: it is not an OCI layout")
	}
	if err != nil {
		l.dir.Close()
	}
	return f, err
}

func (l *layout) closeFiles() {
	if l.dir != nil {
		l.dir.Close()
	}
	if l.file != nil {
		l.file.Close()
	}
}

func (l *layout) Close() {
	l.p.stop()
	l.closeFiles()
}

var errNotRegular = errors.New("not a regular file")

// below opens a file inside the layout: nothing in it may lead out of it, and
// a link is nothing a layout has.
func (l *layout) below(name string) (*os.File, int64, error) {
	const how = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	return regular(int(l.dir.Fd()), name, how)
}

// regular opens a regular file for reading. O_NONBLOCK keeps a FIFO from
// holding us.
func regular(dir int, name string, resolve uint64) (*os.File, int64, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: resolve}
	fd, err := unix.Openat2(dir, name, &how)
	if err != nil {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, 0, fmt.Errorf("%s: %w", name, errNotRegular)
	}
	return f, st.Size, nil
}

// maxAsked is how many blobs a search may read. An index.json lists the
// signatures of all images of its layout without saying whose they are, so a
// search reads them all.
const maxAsked = 8192

// ask sends a request and serves the worker's own ones until its answer.
func (l *layout) ask(op string, body, result any, files ...*os.File) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn := l.p.conn
	if err := conn.SetDeadline(time.Now().Add(verifyTime)); err != nil {
		return err
	}
	if err := conn.Send(wire.Message{Op: op, Body: wire.Body(body)}, files...); err != nil {
		return l.p.failure(err)
	}
	for range maxAsked {
		m, _, err := conn.Recv(false)
		switch {
		case err != nil:
			return l.p.failure(err)
		case m.Op == wire.OpNeed && l.dir != nil:
			if err := l.give(m); err != nil {
				return l.p.failure(err)
			}
			continue
		case m.Op != wire.OpDone:
			return l.p.failure(wire.ErrProtocol)
		case m.Error != nil:
			return m.Error
		case result != nil:
			return m.Decode(result)
		}
		return nil
	}
	return l.p.failure(fmt.Errorf("it asks for too many blobs: %w", wire.ErrProtocol))
}

// give hands a small blob of the layout to the worker, read-only.
func (l *layout) give(m wire.Message) error {
	var c wire.Content
	if err := m.Decode(&c); err != nil {
		return err
	}
	f, size, err := l.blobFile(digest.Digest(c.Digest))
	if err != nil || size > wire.MaxSignatureBytes {
		return l.p.conn.Send(wire.Message{Op: wire.OpDone, Error: &wire.Error{
			Code: wire.NotFound,
			Text: fmt.Sprintf("the layout has no such blob of at most %d bytes", wire.MaxSignatureBytes),
		}})
	}
	defer f.Close()
	return l.p.conn.Send(wire.Message{Op: wire.OpDone}, f)
}

func (l *layout) blobFile(d digest.Digest) (*os.File, int64, error) {
	if err := image.ValidDigest(d); err != nil {
		return nil, 0, err
	}
	f, size, err := l.below("blobs/" + string(d.Algorithm()) + "/" + d.Encoded())
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s has no blob %s", l.ref.Path, d)
	}
	return f, size, err
}

func (l *layout) Resolve(context.Context) (ispec.Descriptor, error) {
	var c wire.Content
	if err := l.ask(wire.OpResolve, nil, &c); err != nil {
		return ispec.Descriptor{}, err
	}
	d := ispec.Descriptor{MediaType: c.MediaType, Digest: digest.Digest(c.Digest), Size: c.Size}
	return d, image.ValidDigest(d.Digest)
}

func (l *layout) Manifest(ctx context.Context, d ispec.Descriptor) ([]byte, string, error) {
	if d.Digest == "" {
		var err error
		if d, err = l.Resolve(ctx); err != nil {
			return nil, "", err
		}
	}
	r, err := l.Blob(ctx, d)
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	b, err := bounded.All(r, image.MaxManifest)
	return b, d.MediaType, err
}

func (l *layout) Signatures(ctx context.Context, subjects []ispec.Descriptor) ([]signature.Signature, []string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	defer r.Close()
	// The worker serves one request at a time, and asks us for blobs during
	// this one: its signatures are taken in beside.
	type taken struct {
		sigs []signature.Signature
		err  error
	}
	got := make(chan taken, 1)
	go func() {
		var t taken
		t.err = wire.ReadSignatures(r, func(h wire.SignatureHead, manifest, payload []byte) {
			t.sigs = append(t.sigs, signature.Signature{
				Format: h.Format, Digest: digest.Digest(h.Digest),
				Manifest: manifest, Payload: payload, Annotations: h.Annotations,
			})
		})
		if t.err != nil {
			r.Close() // the worker must not stand at a full pipe
		}
		got <- t
	}()
	var found wire.Discovered
	err = l.ask(wire.OpSignatures, discovery(subjects), &found, w)
	w.Close()
	if err != nil {
		l.p.kill() // its end of the pipe with it
		<-got
		return nil, nil, err
	}
	t := <-got
	return t.sigs, cleanNotes(found.Notes), t.err
}

// Blob reads bytes where the layout has them; in an archive, where the worker
// says they are: a wrong place gives a wrong digest.
func (l *layout) Blob(ctx context.Context, d ispec.Descriptor) (io.ReadCloser, error) {
	if l.file == nil {
		f, _, err := l.blobFile(d.Digest)
		return f, err
	}
	var at wire.Content
	if err := l.ask(wire.OpBlob, wire.Content{Digest: string(d.Digest)}, &at); err != nil {
		return nil, err
	}
	return l.section(at)
}

// section is the part of an archive that a worker named.
func (l *layout) section(at wire.Content) (io.ReadCloser, error) {
	if at.Offset < 0 || at.Size < 0 || at.Offset > l.size || at.Size > l.size-at.Offset {
		return nil, fmt.Errorf("blob %s of %s: %w", at.Digest, l.said(), wire.ErrProtocol)
	}
	return io.NopCloser(io.NewSectionReader(l.file, at.Offset, at.Size)), nil
}
