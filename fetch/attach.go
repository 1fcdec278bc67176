// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"os"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/bounded"
	"github.com/gantryrun/gantry/signature"
)

// Content is bytes and what describes them.
type Content struct {
	Descriptor ispec.Descriptor
	Bytes      []byte
}

// Attachment is what a signature adds to a repository: blobs first, then the
// manifest that names them, under Tag if it has one.
type Attachment struct {
	Blobs    []Content
	Manifest Content
	Tag      string
}

// Resolve says what a reference stands for, by bytes that were hashed.
func Resolve(ctx context.Context, r Request) (ispec.Descriptor, error) {
	var d ispec.Descriptor
	err := withSource(ctx, r, func(f *fetcher) error {
		top, err := f.top(ctx)
		d = top.d
		return err
	})
	return d, err
}

// Discover goes from the name over the digest to the signatures and stops
// there: nothing is judged, nothing is stored.
func Discover(ctx context.Context, r Request) (signature.Subject, []signature.Signature, error) {
	var s signature.Subject
	var sigs []signature.Signature
	err := withSource(ctx, r, func(f *fetcher) error {
		img, _, err := f.resolve(ctx)
		if err != nil {
			return err
		}
		s = f.subject(img)
		sigs, _, err = f.signatures(ctx, img, signature.DecideSignatures)
		return err
	})
	return s, sigs, err
}

func withSource(ctx context.Context, r Request, do func(*fetcher) error) error {
	if r.Platform.OS == "" {
		r.Platform = image.HostPlatform()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	src, err := openSource(ctx, r)
	if err == nil {
		defer src.Close()
		err = do(&fetcher{Request: r, src: src})
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s: %w", r.Ref.Familiar(), context.Cause(ctx))
	}
	return err
}

// Attach adds a signature to the repository of r.Ref. For one with a subject
// the fallback tag is maintained when the registry has no referrers API. make
// gets what is under legacyTag now (nil: nothing, or no tag was given) and
// returns what to push.
func Attach(ctx context.Context, r Request, legacyTag string, make func(existing []byte) (Attachment, error)) error {
	if r.Ref.Transport != image.Registry {
		return fmt.Errorf("%s is not on a registry", r.Ref.Familiar())
	}
	return withSource(ctx, r, func(f *fetcher) error {
		reg, ok := f.src.(*registry)
		if !ok {
			return fmt.Errorf("%s is not on a registry", r.Ref.Familiar())
		}
		existing, err := reg.existing(ctx, legacyTag)
		if err != nil {
			return err
		}
		a, err := make(existing)
		if err != nil {
			return err
		}
		return reg.attach(ctx, a)
	})
}

// existing is what is under a tag.
func (s *registry) existing(ctx context.Context, tag string) ([]byte, error) {
	if tag == "" {
		return nil, nil
	}
	st, err := s.stream(ctx, wire.OpManifest, wire.Named{Reference: tag, Max: image.MaxManifest})
	if err != nil {
		return nil, err
	}
	defer st.Close()
	b, err := bounded.All(st, image.MaxManifest)
	var e *wire.Error
	if errors.As(err, &e) && e.Code == wire.NotFound {
		return nil, nil
	}
	return b, s.explain(err)
}

func (s *registry) attach(ctx context.Context, a Attachment) error {
	for _, b := range a.Blobs {
		if err := s.push(ctx, wire.OpPushBlob, b, ""); err != nil {
			return fmt.Errorf("push blob %s: %w", b.Descriptor.Digest, err)
		}
	}
	if err := s.push(ctx, wire.OpPushManifest, a.Manifest, a.Tag); err != nil {
		return fmt.Errorf("push manifest %s: %w", a.Manifest.Descriptor.Digest, err)
	}
	return nil
}

// push hands bytes to the net worker through a pipe.
func (s *registry) push(ctx context.Context, op string, c Content, tag string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer w.Close()
	d := c.Descriptor
	reply, err := s.ask(op, wire.Content{Digest: string(d.Digest), Size: int64(len(c.Bytes)), MediaType: d.MediaType, Reference: tag}, r)
	r.Close()
	if err != nil {
		return err
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = w.Write(c.Bytes) // a worker that stops reading says why
		w.Close()
	}()
	err = s.await(ctx, reply, stillTime, nil)
	w.Close()
	<-written
	return s.explain(err)
}
