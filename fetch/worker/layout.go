// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image"
)

// layout is an OCI layout seen from inside a worker: its index, and a way to
// get at blobs. For a directory the parent opens them; in an archive the
// worker finds them.
type layout struct {
	order wire.LayoutStart
	index ispec.Index
	conn  *wire.Conn
	tar   *archive // nil for a directory
}

// serveLayout answers one request after the other.
func serveLayout(ctx context.Context, c *wire.Conn) error {
	l := &layout{conn: c}
	files, err := start(c, &l.order)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return fmt.Errorf("start with %d descriptors: %w", len(files), wire.ErrProtocol)
	}
	openErr := l.open(files[0])
	for {
		m, files, err := c.Recv(true)
		if err != nil {
			return err
		}
		result, err := any(nil), openErr
		if err == nil {
			result, err = l.serve(ctx, m, files)
		}
		for _, f := range files {
			f.Close()
		}
		if err := answer(c, result, err); err != nil {
			return err
		}
	}
}

func (l *layout) open(f *os.File) error {
	var r io.Reader = f
	if l.order.Archive {
		var err error
		if l.tar, err = readArchive(f); err != nil {
			return fail(wire.Bad, "%s: %v", l.order.Path, err)
		}
		if l.order.Docker {
			return nil
		}
		at, ok := l.tar.entries["index.json"]
		if !ok && l.order.Any {
			return nil
		}
		if !ok {
			return fail(wire.Bad, "%s holds no index.json: it is not an OCI archive%s", l.order.Path, l.tar.dockerHint())
		}
		r = io.NewSectionReader(f, at.Offset, at.Size)
	}
	b, err := io.ReadAll(io.LimitReader(r, image.MaxLayout+1))
	if err != nil {
		return fmt.Errorf("read index.json of %s: %w", l.order.Path, err)
	}
	if l.index, err = image.ParseLayout(b); err != nil {
		return fail(wire.Bad, "index.json of %s: %v", l.order.Path, err)
	}
	return nil
}

func (l *layout) serve(ctx context.Context, m wire.Message, files []*os.File) (any, error) {
	switch {
	case m.Op == wire.OpResolve:
		return l.resolve()
	case m.Op == wire.OpDocker && l.tar != nil:
		return l.docker()
	case m.Op == wire.OpBlob && l.tar != nil:
		return with(m, func(c wire.Content) (any, error) { return l.tar.find(digest.Digest(c.Digest)) })
	case m.Op == wire.OpSignatures && len(files) == 1:
		return with(m, func(d wire.Discover) (any, error) { return discover(ctx, l, d, files[0]) })
	}
	return nil, fmt.Errorf("unknown request %q: %w", m.Op, wire.ErrProtocol)
}

// resolve finds the entry the reference names: by digest, by tag, or the only
// image there is.
func (l *layout) resolve() (wire.Content, error) {
	var names []string
	var images, named []ispec.Descriptor
	for _, d := range l.index.Manifests {
		name := d.Annotations[ispec.AnnotationRefName]
		if l.order.Digest != "" {
			if string(d.Digest) == l.order.Digest {
				return content(d), nil
			}
			continue
		}
		if l.order.Tag != "" && name == l.order.Tag {
			return content(d), nil
		}
		if isSignatureName(name) || d.ArtifactType != "" {
			continue
		}
		images = append(images, d)
		if name != "" {
			named = append(named, d)
			names = append(names, wire.Clean(name, 128))
		}
	}
	return l.choose(images, named, names)
}

func (l *layout) choose(images, named []ispec.Descriptor, names []string) (wire.Content, error) {
	have := "no named image"
	if len(names) > 0 {
		have = strings.Join(names[:min(len(names), 20)], ", ")
	}
	switch {
	case l.order.Digest != "":
		// A manifest below an index of the layout: its bytes will tell.
		return wire.Content{Digest: l.order.Digest, Size: -1}, nil
	case l.order.Tag != "":
		return wire.Content{}, fail(wire.NotFound, "%s has no image named %q; it has: %s", l.order.Path, l.order.Tag, have)
	case len(images) == 1:
		return content(images[0]), nil
	case len(named) == 1:
		return content(named[0]), nil
	case len(images) == 0:
		return wire.Content{}, fail(wire.NotFound, "%s holds no image", l.order.Path)
	}
	return wire.Content{}, fail(wire.NotFound, "%s holds %d images; name one after a colon: %s", l.order.Path, len(images), have)
}

func content(d ispec.Descriptor) wire.Content {
	return wire.Content{Digest: string(d.Digest), Size: d.Size, MediaType: d.MediaType}
}

// isSignatureName knows the fallback tags sha256-<hex> and sha256-<hex>.sig.
func isSignatureName(name string) bool {
	alg, rest, found := strings.Cut(name, "-")
	if !found {
		return false
	}
	hex, _, _ := strings.Cut(rest, ".")
	return image.ValidDigest(digest.Digest(alg+":"+hex)) == nil
}

// Shared is true: index.json lists the signatures of all images of the layout.
func (l *layout) Shared() bool { return true }

// Listed returns what may refer to subject: every manifest in the index that
// is not itself a plain image, and those of the fallback index. Manifests
// whose subject is another are recognised when they are read; they cost their
// share of the bounds, so those that name their kind come first.
func (l *layout) Listed(ctx context.Context, subject wire.Content) ([]ispec.Descriptor, error) {
	var list []ispec.Descriptor
	for _, d := range l.index.Manifests {
		name := d.Annotations[ispec.AnnotationRefName]
		if string(d.Digest) == subject.Digest || d.MediaType != ispec.MediaTypeImageManifest ||
			isSignatureName(name) || d.ArtifactType == "" && name != "" {
			continue
		}
		list = append(list, d)
	}
	fallback, err := l.Tagged(ctx, strings.Replace(subject.Digest, ":", "-", 1))
	if err != nil || fallback == nil {
		return list, err
	}
	index, err := image.ParseIndex(fallback, ispec.MediaTypeImageIndex)
	if err != nil {
		return list, nil // something else under that name
	}
	return append(list, index.Manifests...), nil
}

func (l *layout) Tagged(ctx context.Context, tag string) ([]byte, error) {
	for _, d := range l.index.Manifests {
		if d.Annotations[ispec.AnnotationRefName] != tag {
			continue
		}
		b, err := l.Blob(ctx, d)
		if passable(err) {
			return nil, nil
		}
		return b, err
	}
	return nil, nil
}

func (l *layout) Manifest(ctx context.Context, d ispec.Descriptor) ([]byte, error) {
	return l.Blob(ctx, d)
}

// Blob reads a small blob: from the archive, or through a descriptor that the
// parent opens below the layout's directory.
func (l *layout) Blob(_ context.Context, d ispec.Descriptor) ([]byte, error) {
	if err := image.ValidDigest(d.Digest); err != nil || d.Size < 0 || d.Size > wire.MaxSignatureBytes {
		return nil, fail(wire.BadContent, "blob %q of %d bytes", d.Digest, d.Size)
	}
	var r io.Reader
	if l.tar != nil {
		at, err := l.tar.find(d.Digest)
		if err != nil {
			return nil, err
		}
		r = io.NewSectionReader(l.tar.f, at.Offset, at.Size)
	} else {
		f, err := l.ask(d)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, d.Size+1))
	return exact(d, b, err)
}

// ask has the parent open a blob. The descriptor is read-only and at its
// start.
func (l *layout) ask(d ispec.Descriptor) (*os.File, error) {
	if err := l.conn.Send(wire.Message{Op: wire.OpNeed, Body: wire.Body(content(d))}); err != nil {
		return nil, err
	}
	m, files, err := l.conn.Recv(true)
	if err != nil {
		return nil, err
	}
	if m.Error != nil {
		return nil, m.Error
	}
	if len(files) != 1 {
		return nil, errors.New("the parent handed over no blob")
	}
	return files[0], nil
}
