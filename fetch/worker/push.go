// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/fetch/wire"
)

// pushBlob uploads what the parent hands over, unless it is there already.
// Only gantry sign pushes: blobs are small and are held in memory, which lets
// a retry start over.
func (s *session) pushBlob(ctx context.Context, c wire.Content, r io.Reader) error {
	d, b, err := received(c, r)
	if err != nil {
		return err
	}
	if there, err := s.remote.Blobs().Exists(ctx, d); err == nil && there {
		return nil
	}
	return s.remote.Blobs().Push(ctx, d, bytes.NewReader(b))
}

// pushManifest uploads a manifest, by tag when it has one. For one with a
// subject on a registry without the referrers API, oras-go maintains the
// fallback tag sha256-<hex>.
func (s *session) pushManifest(ctx context.Context, c wire.Content, r io.Reader) error {
	d, b, err := received(c, r)
	if err != nil {
		return err
	}
	ref := c.Reference
	if ref == "" {
		ref = c.Digest
	}
	return s.remote.Manifests().PushReference(ctx, d, bytes.NewReader(b), ref)
}

func received(c wire.Content, r io.Reader) (ispec.Descriptor, []byte, error) {
	if c.Size > wire.MaxSignatureTotal {
		return ispec.Descriptor{}, nil, fail(wire.TooBig, "push %s: %d bytes", c.Digest, c.Size)
	}
	b, err := io.ReadAll(io.LimitReader(r, c.Size+1))
	if err != nil {
		return ispec.Descriptor{}, nil, err
	}
	d := ispec.Descriptor{MediaType: c.MediaType, Digest: digest.Digest(c.Digest), Size: c.Size}
	if int64(len(b)) != c.Size || digest.FromBytes(b) != d.Digest {
		return d, nil, fmt.Errorf("push %s: not the bytes announced: %w", c.Digest, wire.ErrProtocol)
	}
	return d, b, nil
}
