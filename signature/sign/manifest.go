// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/signature"
)

// legacyConfigType is the type of the configuration of a .sig manifest.
const legacyConfigType = ispec.MediaTypeImageConfig

// Blob is content ready to be pushed or stored.
type Blob struct {
	Descriptor ispec.Descriptor
	Bytes      []byte
}

func blob(mediaType string, b []byte) Blob {
	return Blob{ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}, b}
}

// Artifact is a signature as a registry or a layout keeps it: the blobs first,
// then the manifest that names them.
type Artifact struct {
	Blobs    []Blob
	Manifest Blob
	Tag      string // the tag the manifest goes under, or "" for a referrer
}

// BundleManifest wraps a bundle in the referrer manifest of its subject. The
// manifest's descriptor carries the artifact type, as indexes list it.
func BundleManifest(bundle []byte, subject ispec.Descriptor, created time.Time) (Artifact, error) {
	config, layer := blob(ispec.MediaTypeEmptyJSON, []byte("{}")), blob(signature.BundleType, bundle)
	m := ispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ispec.MediaTypeImageManifest,
		ArtifactType: signature.BundleType,
		Config:       config.Descriptor,
		Layers:       []ispec.Descriptor{layer.Descriptor},
		Subject:      &ispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: map[string]string{
			"dev.sigstore.bundle.content":       "dsse-envelope",
			"dev.sigstore.bundle.predicateType": signature.SignPredicate,
			ispec.AnnotationCreated:             created.UTC().Format(time.RFC3339),
		},
	}
	data, err := json.Marshal(m)
	if err != nil {
		return Artifact{}, fmt.Errorf("encode signature manifest: %w", err)
	}
	a := Artifact{Blobs: []Blob{config, layer}, Manifest: blob(ispec.MediaTypeImageManifest, data)}
	a.Manifest.Descriptor.ArtifactType = signature.BundleType
	return a, nil
}

// FallbackTag is the tag of the index that lists the referrers of a digest in
// a registry without the referrers API.
func FallbackTag(subject digest.Digest) string {
	return subject.Algorithm().String() + "-" + subject.Encoded()
}

// LegacyTag is the tag of cosign's older form.
func LegacyTag(subject digest.Digest) string { return FallbackTag(subject) + ".sig" }

// FallbackIndex adds a referrer to the index under FallbackTag; existing is
// nil when there is none yet. One that is listed already is not added again.
func FallbackIndex(existing []byte, add ispec.Descriptor) (Blob, error) {
	x := ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{}}
	if existing != nil {
		var err error
		if x, err = image.ParseIndex(existing, ispec.MediaTypeImageIndex); err != nil {
			return Blob{}, fmt.Errorf("the tag for signatures holds something else than an index: %w", err)
		}
	}
	if !slices.ContainsFunc(x.Manifests, func(d ispec.Descriptor) bool { return d.Digest == add.Digest }) {
		x.Manifests = append(x.Manifests, add)
	}
	data, err := json.Marshal(x)
	if err != nil {
		return Blob{}, fmt.Errorf("encode fallback index: %w", err)
	}
	return blob(ispec.MediaTypeImageIndex, data), nil
}

// legacyConfig is the image configuration cosign puts under a .sig manifest:
// one diff ID and one empty history entry per signature.
type legacyConfig struct {
	Architecture string          `json:"architecture"`
	Created      string          `json:"created"`
	History      []legacyHistory `json:"history"`
	OS           string          `json:"os"`
	RootFS       legacyRootFS    `json:"rootfs"`
	Config       struct{}        `json:"config"`
}

type legacyHistory struct {
	Created string `json:"created"`
}

type legacyRootFS struct {
	Type    string          `json:"type"`
	DiffIDs []digest.Digest `json:"diff_ids"`
}

const zeroTime = "0001-01-01T00:00:00Z"

// LegacyManifest adds a legacy signature to the .sig manifest of its subject;
// existing is nil when there is none yet. Signatures that are there stay.
func LegacyManifest(existing, payload []byte, annotations map[string]string, subject digest.Digest) (Artifact, error) {
	layer := blob(signature.LegacyType, payload)
	layer.Descriptor.Annotations = annotations
	var layers []ispec.Descriptor
	if existing != nil {
		m, err := image.ParseArtifact(existing, ispec.MediaTypeImageManifest)
		if err != nil {
			return Artifact{}, fmt.Errorf("the tag %s holds something else than signatures: %w", LegacyTag(subject), err)
		}
		layers = m.Layers
	}
	layers = append(layers, layer.Descriptor)
	c := legacyConfig{Created: zeroTime, RootFS: legacyRootFS{Type: "layers"}}
	for _, l := range layers {
		c.History = append(c.History, legacyHistory{zeroTime})
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.Digest)
	}
	data, err := json.Marshal(c)
	if err != nil {
		return Artifact{}, fmt.Errorf("encode signature configuration: %w", err)
	}
	config := blob(legacyConfigType, data)
	data, err = json.Marshal(ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ispec.MediaTypeImageManifest,
		Config:    config.Descriptor,
		Layers:    layers,
	})
	if err != nil {
		return Artifact{}, fmt.Errorf("encode signature manifest: %w", err)
	}
	return Artifact{Blobs: []Blob{config, layer}, Manifest: blob(ispec.MediaTypeImageManifest, data), Tag: LegacyTag(subject)}, nil
}
