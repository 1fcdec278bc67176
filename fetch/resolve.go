// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/internal/bounded"
)

// document is a manifest or index whose bytes are what its descriptor says.
type document struct {
	d ispec.Descriptor
	b []byte
}

// resolve goes from the name to the manifest for the platform. What is in the
// store already is not asked for again; nothing is written yet.
func (f *fetcher) resolve(ctx context.Context) (store.Image, []document, error) {
	img := store.Image{Reference: f.Ref}
	top, err := f.top(ctx)
	if err != nil {
		return img, nil, err
	}
	img.Descriptor = top.d
	docs := []document{top}
	kind, err := image.DetectKind(top.b, top.d.MediaType)
	if err != nil {
		return img, nil, f.refuse(err)
	}
	if kind == image.KindIndex {
		img.Index = top.d.Digest
		chosen, err := f.choose(ctx, top)
		if err != nil {
			return img, nil, err
		}
		docs = append(docs, chosen)
	}
	last := docs[len(docs)-1]
	img.ManifestDescriptor, img.ManifestBytes = last.d, last.b
	if img.Manifest, err = image.ParseManifest(last.b, last.d.MediaType); err != nil {
		return img, nil, f.refuse(err)
	}
	return img, docs, nil
}

// top brings what the reference names. With a digest in the reference the
// bytes must be those; without, the bytes say what the digest is.
func (f *fetcher) top(ctx context.Context) (document, error) {
	want := ispec.Descriptor{Digest: f.Ref.Digest}
	if want.Digest == "" {
		want.Digest = f.source().Digest
	}
	b, mediaType, err := f.src.Manifest(ctx, ispec.Descriptor{})
	if err != nil {
		return document{}, err
	}
	if int64(len(b)) > image.MaxManifest {
		return document{}, f.refuse(fmt.Errorf("manifest of more than %d bytes", image.MaxManifest))
	}
	if want.Digest == "" {
		want.Digest = digest.FromBytes(b)
	}
	want.Size = int64(len(b))
	if err := same(want, b); err != nil {
		return document{}, f.refuse(err)
	}
	// The media type to keep is what header and document agree on.
	kind, err := image.DetectKind(b, mediaType)
	if err != nil && mediaType != "" && image.KindOf(mediaType) == image.KindUnknown {
		err = fmt.Errorf("it comes as %.100q: %w", mediaType, err)
	}
	if err != nil {
		return document{}, f.refuse(err)
	}
	if want.MediaType, err = agreed(kind, b, mediaType); err != nil {
		return document{}, f.refuse(err)
	}
	return document{want, b}, nil
}

func agreed(kind image.Kind, b []byte, said string) (string, error) {
	if kind == image.KindIndex {
		x, err := image.ParseIndex(b, said)
		return x.MediaType, err
	}
	m, err := image.ParseManifest(b, said)
	return m.MediaType, err
}

// choose brings the manifest of an index that fits the platform.
func (f *fetcher) choose(ctx context.Context, top document) (document, error) {
	x, err := image.ParseIndex(top.b, top.d.MediaType)
	if err != nil {
		return document{}, f.refuse(err)
	}
	d, err := image.Select(x, f.Platform)
	if err != nil {
		return document{}, fmt.Errorf("fetch %s: %w", f.Ref.Familiar(), err)
	}
	if d.Size > image.MaxManifest {
		return document{}, f.refuse(fmt.Errorf("manifest of %d bytes; at most %d are read", d.Size, image.MaxManifest))
	}
	if b, err := f.Store.Bytes(d, image.MaxManifest); err == nil {
		return document{d, b}, nil
	}
	b, mediaType, err := f.src.Manifest(ctx, d)
	if err != nil {
		return document{}, err
	}
	if err := same(d, b); err != nil {
		return document{}, f.refuse(err)
	}
	if mediaType != "" && mediaType != d.MediaType {
		return document{}, f.refuse(fmt.Errorf("manifest %s comes as %q, its index says %q", d.Digest, mediaType, d.MediaType))
	}
	return document{d, b}, nil
}

// same holds bytes against a descriptor.
func same(d ispec.Descriptor, b []byte) error {
	if int64(len(b)) != d.Size {
		return fmt.Errorf("wrong size: %d bytes where %s has %d: %w", len(b), d.Digest, d.Size, store.ErrCorrupt)
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest {
		return fmt.Errorf("wrong digest: the bytes of %s are %s: %w", d.Digest, got, store.ErrCorrupt)
	}
	return nil
}

// refuse names the image in a refusal of its content.
func (f *fetcher) refuse(err error) error {
	var p *Problem
	if errors.As(err, &p) || errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("fetch %s: %w", f.Ref.Familiar(), err)
	}
	return &Problem{
		What: fmt.Sprintf("fetch %s: %v", f.Ref.Familiar(), err),
		Mend: "what the source offers cannot be used as it is; nothing of it was kept",
		Err:  err,
	}
}

// config brings the image's configuration, which the verdict covers through
// the manifest.
func (f *fetcher) config(ctx context.Context, img *store.Image) error {
	d := img.Manifest.Config
	b, err := f.Store.Bytes(d, image.MaxConfig)
	if err != nil {
		r, err := f.src.Blob(ctx, d)
		if err != nil {
			return err
		}
		defer r.Close()
		if b, err = bounded.All(r, d.Size); err != nil {
			var p *Problem
			if errors.As(err, &p) {
				return err
			}
			return f.refuse(fmt.Errorf("configuration %s: %w", d.Digest, err))
		}
		if err := same(d, b); err != nil {
			return f.refuse(fmt.Errorf("configuration: %w", err))
		}
	}
	img.ConfigBytes = b
	if img.Config, err = image.ParseConfig(b, len(img.Manifest.Layers)); err != nil {
		return f.refuse(err)
	}
	if err := image.CheckPlatform(img.Config, f.Platform); err != nil {
		return fmt.Errorf("fetch %s: %w", f.Ref.Familiar(), err)
	}
	return f.put(ctx, d, b)
}

// writer is nil for a blob that is in the store. One that a failing disk has
// changed there is written again: nothing else would mend it. Asking also keeps
// garbage collection away from what is there.
func (f *fetcher) writer(ctx context.Context, d ispec.Descriptor) (*store.Writer, error) {
	w, err := f.Store.Writer(ctx, d)
	if !errors.Is(err, store.ErrExists) {
		return w, err
	}
	err = f.Store.Verify(d)
	if err == nil {
		return nil, nil //nolint:nilnil // there is nothing to write
	}
	f.Progress.Line(fmt.Sprintf("warning: what the store has is damaged and is brought again (%v)", err))
	return f.Store.Renew(ctx, d)
}

// put writes a document that was checked.
func (f *fetcher) put(ctx context.Context, d ispec.Descriptor, b []byte) error {
	w, err := f.writer(ctx, d)
	if w == nil || err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.Commit()
}
