// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
)

// Image is what one reference means on one platform, with every document
// checked against its digest before it was parsed.
type Image struct {
	Reference image.Reference
	// Descriptor is what the reference names: an index or the manifest itself.
	Descriptor ispec.Descriptor
	// Index is the digest of the index; empty if there is none.
	Index              digest.Digest
	ManifestDescriptor ispec.Descriptor
	Manifest           ispec.Manifest
	ManifestBytes      []byte
	Config             ispec.Image
	ConfigBytes        []byte
}

// Names are those under which the image may be known: that of the reference, and
// for one with a digest the entry that has it, under another tag of the same
// repository.
func (i Image) Names() []string {
	names := []string{i.Reference.String()}
	if n := name(i.Descriptor); n != "" && n != names[0] && i.Reference.Digest != "" {
		names = append(names, n)
	}
	return names
}

// Manifest returns what a reference means on a platform. ErrNotFound means that
// the name, or what it leads to on this platform, is not in the store.
func (s *Store) Manifest(ref image.Reference, p ispec.Platform) (Image, error) {
	d, err := s.Resolve(ref)
	if err != nil {
		return Image{}, err
	}
	img, err := s.Image(d, p)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", ref.Familiar(), err)
	}
	img.Reference = ref
	return img, nil
}

// Image does what Manifest does for something that has no name yet.
func (s *Store) Image(d ispec.Descriptor, p ispec.Platform) (Image, error) {
	img := Image{Descriptor: d, ManifestDescriptor: d}
	// Parsing refuses what is not of the kind that the descriptor says.
	if image.KindOf(d.MediaType) == image.KindIndex {
		b, err := s.Bytes(d, image.MaxManifest)
		if err != nil {
			return Image{}, err
		}
		if img.ManifestDescriptor, err = choose(b, d.MediaType, p); err != nil {
			return Image{}, err
		}
		img.Index = d.Digest
	}
	if err := s.documents(&img); err != nil {
		return Image{}, err
	}
	return img, image.CheckPlatform(img.Config, p)
}

// Images returns what a reference means on each platform of which the store has
// the manifest. ErrNotFound means that the name is not there.
func (s *Store) Images(ref image.Reference) ([]Image, error) {
	d, err := s.Resolve(ref)
	if err != nil {
		return nil, err
	}
	images, err := s.images(ref, d)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref.Familiar(), err)
	}
	return images, nil
}

func (s *Store) images(ref image.Reference, d ispec.Descriptor) ([]Image, error) {
	one := Image{Reference: ref, Descriptor: d, ManifestDescriptor: d}
	if image.KindOf(d.MediaType) != image.KindIndex {
		err := s.documents(&one)
		return []Image{one}, err
	}
	b, err := s.Bytes(d, image.MaxManifest)
	if err != nil {
		return nil, err
	}
	x, err := image.ParseIndex(b, d.MediaType)
	if err != nil {
		return nil, err
	}
	one.Index = d.Digest
	var all []Image
	for _, m := range x.Manifests {
		if image.KindOf(m.MediaType) != image.KindManifest || !s.Has(m) {
			continue
		}
		one.ManifestDescriptor = m
		if err := s.documents(&one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// documents reads the manifest that was chosen and its configuration.
func (s *Store) documents(img *Image) error {
	b, err := s.Bytes(img.ManifestDescriptor, image.MaxManifest)
	if err != nil {
		return err
	}
	img.ManifestBytes = b
	if img.Manifest, err = image.ParseManifest(b, img.ManifestDescriptor.MediaType); err != nil {
		return err
	}
	if img.ConfigBytes, err = s.Bytes(img.Manifest.Config, image.MaxConfig); err != nil {
		return err
	}
	img.Config, err = image.ParseConfig(img.ConfigBytes, len(img.Manifest.Layers))
	return err
}

func choose(b []byte, mediaType string, p ispec.Platform) (ispec.Descriptor, error) {
	x, err := image.ParseIndex(b, mediaType)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	return image.Select(x, p)
}
