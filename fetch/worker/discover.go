// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/signature"
)

// source is where signatures are looked for: a registry or a layout.
type source interface {
	// Shared tells that Listed knows no subjects: it returns what refers to
	// anything at all.
	Shared() bool
	// Listed returns the descriptors that claim, by whatever list the source
	// has, to refer to subject. The claim is checked later.
	Listed(ctx context.Context, subject wire.Content) ([]ispec.Descriptor, error)
	// Tagged returns the bytes of the manifest at tag, or nil if there is none.
	Tagged(ctx context.Context, tag string) ([]byte, error)
	// Manifest and Blob return bytes whose digest and size are d's.
	Manifest(ctx context.Context, d ispec.Descriptor) ([]byte, error)
	Blob(ctx context.Context, d ispec.Descriptor) ([]byte, error)
}

// search is one discovery: what it may still look at, and what it met.
type search struct {
	src   source
	out   io.Writer
	limit wire.Discover
	spent int64
	found wire.Discovered
}

// errSpent ends a search at its bounds. The search fails closed: the image
// counts as signed only by what was found before.
var errSpent = errors.New("bounds of the search reached")

// discover writes every signature attached to the subjects: referrers, which
// include those of the fallback tag, then the legacy tag. Most likely kinds
// come first, so that a flood of other referrers cannot starve them.
func discover(ctx context.Context, src source, d wire.Discover, out io.Writer) (wire.Discovered, error) {
	s := &search{src: src, out: out, limit: d}
	for _, subject := range d.Subjects {
		if err := image.ValidDigest(digest.Digest(subject.Digest)); err != nil {
			return s.found, err
		}
		err := s.attachedTo(ctx, subject)
		if errors.Is(err, errSpent) {
			s.note("stopped at the bounds of %d manifests, %d bytes each, %d bytes in all", d.Count, d.Each, d.Total)
			break
		}
		if err != nil {
			return s.found, err
		}
	}
	return s.found, nil
}

func (s *search) attachedTo(ctx context.Context, subject wire.Content) error {
	listed, err := s.src.Listed(ctx, subject)
	if err != nil {
		return fmt.Errorf("list what refers to %s: %w", subject.Digest, err)
	}
	for _, d := range signature.Order(listed) {
		if err := s.candidate(ctx, subject, d); err != nil {
			return err
		}
	}
	if !s.limit.Legacy {
		return nil
	}
	tag := strings.Replace(subject.Digest, ":", "-", 1) + ".sig"
	manifest, err := s.src.Tagged(ctx, tag)
	if err != nil || manifest == nil {
		return err
	}
	if err := s.spend(int64(len(manifest))); err != nil {
		return err
	}
	return s.read(ctx, subject, manifest, "tag "+tag)
}

// candidate fetches one listed manifest and what it carries. A broken or
// missing one is noted and passed over; only the network's failures end the
// search, since a signature might be behind them.
func (s *search) candidate(ctx context.Context, subject wire.Content, d ispec.Descriptor) error {
	if err := image.ValidDigest(d.Digest); err != nil || d.Size < 0 || d.Size > s.limit.Each {
		s.note("referrer %q of %d bytes is left alone", d.Digest, d.Size)
		return nil
	}
	if err := s.spend(d.Size); err != nil {
		return err
	}
	manifest, err := s.src.Manifest(ctx, d)
	if passable(err) {
		s.note("referrer %s: %v", d.Digest, err)
		return nil
	}
	if err != nil {
		return err
	}
	return s.read(ctx, subject, manifest, "referrer "+string(d.Digest))
}

// read takes a signature manifest apart and hands over each signature in it.
func (s *search) read(ctx context.Context, subject wire.Content, manifest []byte, what string) error {
	attached, err := signature.ReadAttached(manifest, digest.Digest(subject.Digest))
	if errors.Is(err, signature.ErrOtherSubject) && s.src.Shared() {
		return nil
	}
	if err != nil {
		s.note("%s: %v", what, err)
		return nil
	}
	for _, a := range attached {
		sig := a.Signature
		if a.Blob.Digest != "" {
			if err := s.spend(a.Blob.Size); err != nil {
				return err
			}
			sig.Payload, err = s.src.Blob(ctx, a.Blob)
			if passable(err) {
				s.note("%s: %v", what, err)
				continue
			}
			if err != nil {
				return err
			}
		}
		if err := s.emit(sig); err != nil {
			return err
		}
	}
	return nil
}

func (s *search) emit(sig signature.Signature) error {
	if s.found.Count >= s.limit.Count {
		return errSpent
	}
	h := wire.SignatureHead{Format: sig.Format, Digest: string(sig.Digest), Annotations: sig.Annotations}
	if err := wire.WriteSignature(s.out, h, sig.Manifest, sig.Payload); err != nil {
		return err
	}
	s.found.Count++
	return nil
}

// spend accounts for bytes before they are fetched.
func (s *search) spend(n int64) error {
	if n < 0 || n > s.limit.Each || s.spent+n > s.limit.Total {
		return errSpent
	}
	s.spent += n
	return nil
}

func (s *search) note(format string, args ...any) {
	if len(s.found.Notes) < 16 {
		s.found.Notes = append(s.found.Notes, wire.Clean(fmt.Sprintf(format, args...), 300))
	}
}

// passable failures concern one candidate alone.
func passable(err error) bool {
	var own *wire.Error
	return notThere(err) || errors.As(err, &own) && (own.Code == wire.BadContent || own.Code == wire.NotFound)
}

// remoteSource looks in a registry.
type remoteSource struct{ s *session }

// Shared is false: a registry is asked about one subject.
func (r remoteSource) Shared() bool { return false }

// Listed asks the referrers API, with paging, or the fallback tag where there
// is none. A list longer than we would look at is cut: order within it is the
// registry's, so what is signed properly but buried under hundreds of other
// things needs a registry that can be asked by type.
func (r remoteSource) Listed(ctx context.Context, subject wire.Content) ([]ispec.Descriptor, error) {
	desc := ispec.Descriptor{MediaType: subject.MediaType, Digest: digest.Digest(subject.Digest), Size: subject.Size}
	list, err := r.listed(ctx, desc)
	var status *errcode.ErrorResponse
	if errors.As(err, &status) && unsupported(status.StatusCode) {
		// Registries answer many things where they have no such API.
		r.s.remote.SetReferrersCapability(false) //nolint:errcheck // says only that it was known already
		list, err = r.listed(ctx, desc)
	}
	if notThere(err) {
		return nil, nil
	}
	return list, err
}

func unsupported(status int) bool {
	switch status {
	case 400, 404, 405, 406, 501:
		return true
	}
	return false
}

// maxListed bounds what is remembered of a listing; its pages are bounded too.
const maxListed = 4096

func (r remoteSource) listed(ctx context.Context, desc ispec.Descriptor) ([]ispec.Descriptor, error) {
	var list []ispec.Descriptor
	err := r.s.remote.Referrers(ctx, desc, "", func(page []ispec.Descriptor) error {
		if list = append(list, page...); len(list) > maxListed {
			list = list[:maxListed]
			return errSpent
		}
		return nil
	})
	if errors.Is(err, errSpent) {
		err = nil
	}
	return list, err
}

func (r remoteSource) Tagged(ctx context.Context, tag string) ([]byte, error) {
	var b limited
	_, err := r.s.manifest(ctx, wire.Named{Reference: tag, Max: wire.MaxSignatureBytes}, &b)
	if notThere(err) {
		return nil, nil
	}
	return b, err
}

func (r remoteSource) Manifest(ctx context.Context, d ispec.Descriptor) ([]byte, error) {
	var b limited
	_, err := r.s.manifest(ctx, wire.Named{Reference: string(d.Digest), Max: d.Size}, &b)
	return exact(d, b, err)
}

func (r remoteSource) Blob(ctx context.Context, d ispec.Descriptor) ([]byte, error) {
	var b limited
	err := r.s.blob(ctx, wire.Content{Digest: string(d.Digest), Size: d.Size}, &b)
	return exact(d, b, err)
}

// exact holds bytes against their descriptor.
func exact(d ispec.Descriptor, b []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != d.Size || d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return nil, fail(wire.BadContent, "%s: %d bytes that are not those", d.Digest, len(b))
	}
	return b, nil
}

// limited collects bytes whose number the writer has bounded.
type limited []byte

func (l *limited) Write(p []byte) (int, error) {
	*l = append(*l, p...)
	return len(p), nil
}
