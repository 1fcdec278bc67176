// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/jsonin"
)

// Attached is one signature a manifest offers. Blob is the payload still to
// be brought; its zero value means there is nothing worth bringing, and
// Signature goes to Judge as it is, to be reported.
type Attached struct {
	Blob      ispec.Descriptor
	Signature Signature
}

// ErrOtherSubject is a signature manifest that is attached to something else.
// In a list that a layout shares among its images that is nothing wrong.
var ErrOtherSubject = errors.New("it belongs to another image")

// ReadAttached reads a manifest found while looking for signatures of subject:
// a referrer (what the referrers API or the fallback index lists) or the
// manifest of the .sig tag. The listing is never believed: the subject and the
// kind are taken from the manifest itself.
func ReadAttached(manifest []byte, subject digest.Digest) ([]Attached, error) {
	if len(manifest) > MaxSignature {
		return nil, fmt.Errorf("signature manifest of %d bytes; at most %d are read", len(manifest), MaxSignature)
	}
	m, err := image.ParseArtifact(manifest, "")
	if err != nil {
		return nil, fmt.Errorf("signature manifest: %w", err)
	}
	if m.Subject != nil && m.Subject.Digest != subject {
		return nil, fmt.Errorf("manifest refers to %s, not to %s: %w", clip(string(m.Subject.Digest)), subject, ErrOtherSubject)
	}
	kind := m.ArtifactType
	if kind == "" {
		kind = m.Config.MediaType
	}
	base := Signature{Digest: subject, Manifest: manifest}
	switch {
	case m.Subject != nil && (kind == BundleType || kind == bundleTypeOld):
		return attachedLayers(m, base, FormatBundle, BundleType, bundleTypeOld)
	case m.Subject == nil || kind == legacyArtifact:
		return attachedLayers(m, base, FormatLegacy, LegacyType)
	}
	base.Format, base.Manifest = clip(kind), nil
	return []Attached{{Signature: base}}, nil
}

func attachedLayers(m ispec.Manifest, base Signature, format string, types ...string) ([]Attached, error) {
	var out []Attached
	for _, l := range m.Layers {
		if !slices.Contains(types, l.MediaType) {
			continue
		}
		if err := image.ValidDigest(l.Digest); err != nil {
			return nil, fmt.Errorf("signature layer %q: %w", clip(string(l.Digest)), err)
		}
		if l.Size < 0 || l.Size > MaxSignature {
			return nil, fmt.Errorf("signature layer of %d bytes; at most %d are read", l.Size, MaxSignature)
		}
		if out = append(out, Attached{Blob: l, Signature: base}); len(out) > MaxSignatures {
			return nil, fmt.Errorf("more than %d signatures in one manifest", MaxSignatures)
		}
		s := &out[len(out)-1].Signature
		s.Format = format
		if format == FormatLegacy {
			s.Annotations = l.Annotations
		}
	}
	if len(out) == 0 {
		return nil, errors.New("manifest holds no signature")
	}
	if format == FormatBundle && len(out) != 1 {
		return nil, fmt.Errorf("manifest holds %d bundles where exactly one belongs", len(out))
	}
	return out, nil
}

func manifestLayers(data []byte) ([]ispec.Descriptor, error) {
	var m struct {
		Layers []ispec.Descriptor `json:"layers"`
	}
	if err := jsonin.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	return m.Layers, nil
}

// Order sorts the descriptors of a referrers listing so that what names itself
// one of our formats comes first, then what some registries list without a
// usable type, then the rest: a flood of SBOMs must not push the signature
// past MaxSignatures. The order is a matter of effort, not of trust.
func Order(list []ispec.Descriptor) []ispec.Descriptor {
	rank := func(d ispec.Descriptor) int {
		switch {
		case d.ArtifactType == BundleType && d.Annotations["dev.sigstore.bundle.predicateType"] == SignPredicate:
			return 0
		case d.ArtifactType == BundleType, d.ArtifactType == bundleTypeOld, d.ArtifactType == legacyArtifact:
			return 1
		case d.ArtifactType == "", d.ArtifactType == ispec.MediaTypeEmptyJSON, d.ArtifactType == ispec.MediaTypeImageConfig:
			return 2
		}
		return 3
	}
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b ispec.Descriptor) int { return rank(a) - rank(b) })
	return out
}
