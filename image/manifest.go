// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's image format, schema 2. It differs from OCI in these
// names alone.
const (
	MediaTypeDockerManifest   = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList       = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerConfig     = "application/vnd.docker.container.image.v1+json"
	MediaTypeDockerLayer      = "application/vnd.docker.image.rootfs.diff.tar"
	MediaTypeDockerLayerGzip  = MediaTypeDockerLayer + ".gzip"
	MediaTypeDockerLayerZstd  = MediaTypeDockerLayer + ".zstd"
	mediaTypeDockerForeign    = "application/vnd.docker.image.rootfs.foreign."
	mediaTypeOCIForeign       = "application/vnd.oci.image.layer.nondistributable."
	mediaTypeDockerSchema1    = "application/vnd.docker.distribution.manifest.v1+"
	mediaTypeEncryptedSuffix  = "+encrypted"
	mediaTypeDockerSchema1Old = "application/vnd.docker.distribution.manifest.v1"
)

// Kind is what a document of a registry is.
type Kind int

// The kinds.
const (
	KindUnknown Kind = iota
	KindManifest
	KindIndex
)

func (k Kind) String() string {
	switch k {
	case KindManifest:
		return "manifest"
	case KindIndex:
		return "index"
	}
	return "unknown"
}

// KindOf returns the kind a media type stands for.
func KindOf(mediaType string) Kind {
	switch mediaType {
	case ispec.MediaTypeImageManifest, MediaTypeDockerManifest:
		return KindManifest
	case ispec.MediaTypeImageIndex, MediaTypeDockerList:
		return KindIndex
	}
	return KindUnknown
}

// ManifestMediaTypes returns what a client accepts from a registry.
func ManifestMediaTypes() []string {
	return []string{ispec.MediaTypeImageIndex, ispec.MediaTypeImageManifest, MediaTypeDockerList, MediaTypeDockerManifest}
}

// DetectKind tells what b is. mediaType is what the one who handed it over said
// it is (the Content-Type, or the media type of its descriptor), or empty. That,
// the mediaType member and the members present must all say the same, so that
// no two readers see two different things in one document (CVE-2021-41190).
func DetectKind(b []byte, mediaType string) (Kind, error) {
	_, kind, err := detect(b, mediaType)
	return kind, err
}

// ParseManifest reads an image manifest, OCI or Docker schema 2. mediaType is
// as for DetectKind. The result has at least one layer, a configuration of an
// image, and nothing in it that points elsewhere; its MediaType is set.
func ParseManifest(b []byte, mediaType string) (ispec.Manifest, error) {
	m, err := ParseArtifact(b, mediaType)
	if err != nil {
		return ispec.Manifest{}, err
	}
	if err := checkImage(m); err != nil {
		return ispec.Manifest{}, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

// ParseArtifact reads a manifest that need not be an image: signatures and the
// like have other configurations and layers. It is as strict as ParseManifest
// about everything else.
func ParseArtifact(b []byte, mediaType string) (ispec.Manifest, error) {
	o, kind, err := detect(b, mediaType)
	if err != nil {
		return ispec.Manifest{}, err
	}
	if kind != KindManifest {
		return ispec.Manifest{}, fmt.Errorf("%s where a manifest must be", kind)
	}
	m := ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: o.MediaType, ArtifactType: o.ArtifactType,
		Config: o.Config, Layers: o.Layers, Subject: o.Subject, Annotations: o.Annotations,
	}
	if err := checkManifest(m); err != nil {
		return ispec.Manifest{}, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

// ParseIndex reads an image index or a Docker manifest list. mediaType is as
// for DetectKind. What the entries point to may well not exist.
func ParseIndex(b []byte, mediaType string) (ispec.Index, error) {
	o, kind, err := detect(b, mediaType)
	if err != nil {
		return ispec.Index{}, err
	}
	if kind != KindIndex {
		return ispec.Index{}, fmt.Errorf("%s where an index must be", kind)
	}
	x := ispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: o.MediaType, ArtifactType: o.ArtifactType,
		Manifests: o.Manifests, Subject: o.Subject, Annotations: o.Annotations,
	}
	if err := checkIndex(x); err != nil {
		return ispec.Index{}, fmt.Errorf("index: %w", err)
	}
	return x, nil
}

// document is a manifest and an index at once, so that one reading decides
// which of them it is. members tells what was there, null or not.
type document struct {
	SchemaVersion *int               `json:"schemaVersion"`
	MediaType     string             `json:"mediaType"`
	ArtifactType  string             `json:"artifactType"`
	Config        ispec.Descriptor   `json:"config"`
	Layers        []ispec.Descriptor `json:"layers"`
	Manifests     []ispec.Descriptor `json:"manifests"`
	Subject       *ispec.Descriptor  `json:"subject"`
	Annotations   map[string]string  `json:"annotations"`

	members []string
}

func (o document) has(name string) bool { return slices.Contains(o.members, name) }

// detect reads b and returns it with its MediaType set to what everybody agrees
// on.
func detect(b []byte, mediaType string) (document, Kind, error) {
	var o document
	var err error
	if o.members, err = decodeStrict(b, MaxManifest, documentShape(), &o); err != nil {
		return document{}, KindUnknown, fmt.Errorf("manifest or index: %w", err)
	}
	said := contentType(mediaType)
	if err := refuseSchema1(o, said); err != nil {
		return document{}, KindUnknown, err
	}
	if o.SchemaVersion == nil || *o.SchemaVersion != 2 {
		return document{}, KindUnknown, errors.New("manifest or index: schemaVersion is not 2")
	}
	kind, err := o.kind()
	if err != nil {
		return document{}, KindUnknown, err
	}
	o.MediaType, err = o.agree(kind, said)
	return o, kind, err
}

// contentType strips the parameters off a Content-Type. Its case does not
// matter there, though it does inside a document.
func contentType(s string) string {
	s, _, _ = strings.Cut(s, ";")
	return strings.ToLower(strings.TrimSpace(s))
}

func refuseSchema1(o document, said string) error {
	old := o.SchemaVersion != nil && *o.SchemaVersion == 1 || o.has("fsLayers")
	for _, mt := range []string{said, o.MediaType} {
		old = old || mt == mediaTypeDockerSchema1Old || strings.HasPrefix(mt, mediaTypeDockerSchema1)
	}
	if old {
		return errors.New("manifest: Docker image manifest schema 1 is not supported: its layers are not covered by its digest; push the image again with a current tool")
	}
	return nil
}

// kind decides by shape.
func (o document) kind() (Kind, error) {
	switch {
	case (o.has("layers") || o.has("config")) && o.has("manifests"):
		return KindUnknown, errors.New("manifest or index: has members of both (layers or config, and manifests)")
	case o.has("blobs"):
		return KindUnknown, errors.New("manifest: the artifact manifest with blobs was withdrawn from the specification and is not supported")
	case o.has("manifests"):
		return KindIndex, nil
	case o.has("layers") && o.has("config"):
		return KindManifest, nil
	}
	return KindUnknown, errors.New("manifest or index: has neither config and layers nor manifests")
}

// agree returns the media type when all sources that speak say the same.
func (o document) agree(kind Kind, said string) (string, error) {
	mt := o.MediaType
	switch {
	case mt == "" && said == "" && kind == KindManifest:
		mt = ispec.MediaTypeImageManifest
	case mt == "" && said == "":
		mt = ispec.MediaTypeImageIndex
	case mt == "":
		mt = said
	case said != "" && said != mt:
		return "", fmt.Errorf("%s: handed over as %s, but says of itself that it is %s", kind, quote(said), quote(mt))
	}
	if got := KindOf(mt); got == KindUnknown {
		return "", fmt.Errorf("%s: media type %s is not supported", kind, quote(mt))
	} else if got != kind {
		return "", fmt.Errorf("%s: media type %s means: %s", kind, quote(mt), got)
	}
	if o.MediaType == "" && (mt == MediaTypeDockerManifest || mt == MediaTypeDockerList) {
		return "", fmt.Errorf("%s: no mediaType member, which Docker's format has always", kind)
	}
	return mt, nil
}

// ParseLayout reads the index.json of an OCI layout. Its entries may be anything
// with a digest, and unlike any other index it may be empty.
func ParseLayout(b []byte) (ispec.Index, error) {
	var x ispec.Index
	if _, err := decodeStrict(b, MaxLayout, indexShape(), &x); err != nil {
		return ispec.Index{}, err
	}
	if x.SchemaVersion != 2 {
		return ispec.Index{}, errors.New("schemaVersion is not 2")
	}
	if x.MediaType != "" && x.MediaType != ispec.MediaTypeImageIndex {
		return ispec.Index{}, fmt.Errorf("media type %s is not that of an index", quote(x.MediaType))
	}
	for i, d := range x.Manifests {
		if err := ValidDescriptor(d, MaxLayerSize); err != nil {
			return ispec.Index{}, fmt.Errorf("manifests[%d]: %w", i, err)
		}
	}
	return x, nil
}

func checkManifest(m ispec.Manifest) error {
	if err := ValidDescriptor(m.Config, MaxConfig); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if len(m.Layers) > MaxLayers {
		return fmt.Errorf("%d layers, at most %d are allowed", len(m.Layers), MaxLayers)
	}
	sizes := map[digest.Digest]int64{m.Config.Digest: m.Config.Size}
	for i, l := range m.Layers {
		if err := ValidDescriptor(l, MaxLayerSize); err != nil {
			return fmt.Errorf("layers[%d]: %w", i, err)
		}
		if size, seen := sizes[l.Digest]; seen && size != l.Size {
			return fmt.Errorf("layers[%d]: %s has two sizes, %d and %d", i, l.Digest, size, l.Size)
		}
		sizes[l.Digest] = l.Size
	}
	if m.Subject != nil {
		if err := ValidDescriptor(*m.Subject, MaxManifest); err != nil {
			return fmt.Errorf("subject: %w", err)
		}
	}
	return nil
}

// checkImage checks what makes a manifest one of an image that can run.
func checkImage(m ispec.Manifest) error {
	switch mt := m.Config.MediaType; mt {
	case ispec.MediaTypeImageConfig, MediaTypeDockerConfig:
	default:
		return fmt.Errorf("config: media type %s is not that of an image; this is an artifact of another kind", quote(mt))
	}
	if len(m.Layers) == 0 {
		return errors.New("no layers; an image has at least one")
	}
	for i, l := range m.Layers {
		if err := checkLayerType(l.MediaType); err != nil {
			return fmt.Errorf("layers[%d]: %w", i, err)
		}
	}
	return nil
}

func checkLayerType(mt string) error {
	switch mt {
	case ispec.MediaTypeImageLayer, ispec.MediaTypeImageLayerGzip, ispec.MediaTypeImageLayerZstd,
		MediaTypeDockerLayer, MediaTypeDockerLayerGzip, MediaTypeDockerLayerZstd:
		return nil
	}
	switch {
	case strings.HasPrefix(mt, mediaTypeDockerForeign), strings.HasPrefix(mt, mediaTypeOCIForeign):
		return fmt.Errorf("media type %s: foreign layers are kept elsewhere than the image and are not fetched", quote(mt))
	case strings.HasSuffix(mt, mediaTypeEncryptedSuffix):
		return fmt.Errorf("media type %s: encrypted layers are not supported", quote(mt))
	}
	return fmt.Errorf("media type %s is not that of a layer", quote(mt))
}

func checkIndex(x ispec.Index) error {
	for i, d := range x.Manifests {
		if err := ValidDescriptor(d, MaxManifest); err != nil {
			return fmt.Errorf("manifests[%d]: %w", i, err)
		}
	}
	if x.Subject != nil {
		if err := ValidDescriptor(*x.Subject, MaxManifest); err != nil {
			return fmt.Errorf("subject: %w", err)
		}
	}
	return nil
}

// ValidDescriptor checks one pointer to content of at most so many bytes: digest,
// media type, size, and that the content is kept nowhere else.
func ValidDescriptor(d ispec.Descriptor, most int64) error {
	if err := ValidDigest(d.Digest); err != nil {
		return err
	}
	if err := checkMediaType(d.MediaType); err != nil {
		return err
	}
	switch {
	case d.Size < 0:
		return fmt.Errorf("size %d is negative", d.Size)
	case d.Size > most:
		return fmt.Errorf("size %d; at most %d is allowed", d.Size, most)
	case len(d.URLs) > 0:
		return errors.New("urls: content kept elsewhere is not fetched (CVE-2020-15157)")
	case d.Data != nil && (int64(len(d.Data)) != d.Size || d.Digest.Algorithm().FromBytes(d.Data) != d.Digest):
		return errors.New("data: is not what the digest says")
	}
	return nil
}

// checkMediaType checks the grammar type/subtype of RFC 6838, without
// parameters, which descriptors do not have.
func checkMediaType(s string) error {
	if s == "" {
		return errors.New("no media type")
	}
	kind, sub, found := strings.Cut(s, "/")
	if !found || !isTypeName(kind) || !isTypeName(sub) {
		return fmt.Errorf("media type %s is malformed", quote(s))
	}
	return nil
}

func isTypeName(s string) bool {
	if s == "" || len(s) > 127 || !isAlnum(rune(s[0])) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("!#$&-^_.+", r) }) < 0
}
