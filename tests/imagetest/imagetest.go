// SPDX-License-Identifier: Apache-2.0

// Package imagetest makes OCI images from nothing but Go: good ones for tests,
// the demonstration and the benchmarks, and hostile ones that no tool would
// make. It shares no code with what it tests.
package imagetest

import (
	"archive/tar"
	"bytes"
	_ "crypto/sha256" // what go-digest computes with
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// File is one entry of a layer. The zero type is a regular file.
type File struct {
	Path     string
	Type     byte // of archive/tar
	Mode     int64
	UID, GID int
	Body     []byte
	Link     string
	Major    int64
	Minor    int64
	Xattrs   map[string]string
	Time     time.Time
	PAX      map[string]string
}

// Layer is a tar stream, from entries or given whole.
type Layer struct {
	Files       []File
	Raw         []byte // if set, the uncompressed bytes as they are
	Compression string // "gzip", "zstd" or "" for none
	Type        string // media type, if not the one that fits the compression
}

// Image is what becomes one manifest.
type Image struct {
	Layers      []Layer
	Config      ispec.Image
	Annotations map[string]string
	Docker      bool // Docker's schema 2 media types

	// Edits for hostile images, made on the bytes about to be stored.
	EditConfig   func([]byte) []byte
	EditManifest func([]byte) []byte
}

// The media types of Docker's schema 2.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// epoch is the time of everything that gives none, so that the same
// description always has the same digest.
var epoch = time.Unix(1700000000, 0).UTC()

// Tar returns the entries as an archive.
func Tar(files []File) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := header(f)
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("write header of %q: %w", f.Path, err)
		}
		if h.Size > 0 {
			if _, err := w.Write(f.Body); err != nil {
				return nil, fmt.Errorf("write %q: %w", f.Path, err)
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func header(f File) *tar.Header {
	h := &tar.Header{
		Name: f.Path, Typeflag: f.Type, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Linkname: f.Link,
		Devmajor: f.Major, Devminor: f.Minor, ModTime: f.Time, Format: tar.FormatPAX, PAXRecords: map[string]string{},
	}
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	if h.Typeflag == tar.TypeReg {
		h.Size = int64(len(f.Body))
	}
	if h.Mode == 0 {
		h.Mode = 0o644
		if h.Typeflag == tar.TypeDir {
			h.Mode = 0o755
		}
	}
	if h.ModTime.IsZero() {
		h.ModTime = epoch
	}
	for k, v := range f.Xattrs {
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	for k, v := range f.PAX {
		h.PAXRecords[k] = v
	}
	return h
}

// Blob is stored bytes and how they are described.
type Blob struct {
	Descriptor ispec.Descriptor
	Bytes      []byte
	DiffID     digest.Digest // of a layer
}

// Pack renders and compresses the layer.
func (l Layer) Pack() (Blob, error) {
	raw := l.Raw
	if raw == nil {
		var err error
		if raw, err = Tar(l.Files); err != nil {
			return Blob{}, err
		}
	}
	packed, mediaType, err := compress(raw, l.Compression)
	if err != nil {
		return Blob{}, err
	}
	if l.Type != "" {
		mediaType = l.Type
	}
	b := describe(mediaType, packed)
	b.DiffID = digest.FromBytes(raw)
	return b, nil
}

func compress(raw []byte, how string) ([]byte, string, error) {
	var b bytes.Buffer
	switch how {
	case "":
		return raw, ispec.MediaTypeImageLayer, nil
	case "gzip":
		w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		if err != nil {
			return nil, "", err
		}
		_, err = w.Write(raw)
		return closed(&b, ispec.MediaTypeImageLayerGzip, errors.Join(err, w.Close()))
	case "zstd":
		w, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			return nil, "", err
		}
		_, err = w.Write(raw)
		return closed(&b, ispec.MediaTypeImageLayerZstd, errors.Join(err, w.Close()))
	}
	return nil, "", fmt.Errorf("no compression %q", how)
}

func closed(b *bytes.Buffer, mediaType string, err error) ([]byte, string, error) {
	return b.Bytes(), mediaType, err
}

func describe(mediaType string, b []byte) Blob {
	return Blob{Bytes: b, Descriptor: ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}}
}

// Packed is an image as bytes: its manifest last.
type Packed struct {
	Blobs    []Blob
	Manifest Blob
	Platform ispec.Platform
}

// Pack renders the image.
func (i Image) Pack() (Packed, error) {
	var p Packed
	config := i.Config
	if config.Architecture == "" {
		config.Platform = ispec.Platform{OS: "linux", Architecture: "amd64"}
	}
	if config.RootFS.Type == "" {
		config.RootFS.Type = "layers"
	}
	m := ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest,
		Annotations: i.Annotations, Layers: []ispec.Descriptor{},
	}
	for _, l := range i.Layers {
		if i.Docker {
			l.Type, l.Compression = DockerLayer, "gzip"
		}
		b, err := l.Pack()
		if err != nil {
			return Packed{}, err
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, b.DiffID)
		m.Layers = append(m.Layers, b.Descriptor)
		p.Blobs = append(p.Blobs, b)
	}
	configType := ispec.MediaTypeImageConfig
	if i.Docker {
		m.MediaType, configType = DockerManifest, DockerConfig
	}
	c, err := encode(config, i.EditConfig)
	if err != nil {
		return Packed{}, err
	}
	configBlob := describe(configType, c)
	m.Config = configBlob.Descriptor
	manifest, err := encode(m, i.EditManifest)
	if err != nil {
		return Packed{}, err
	}
	p.Blobs = append(p.Blobs, configBlob)
	p.Manifest = describe(m.MediaType, manifest)
	p.Platform = config.Platform
	return p, nil
}

func encode(v any, edit func([]byte) []byte) ([]byte, error) {
	b, err := json.Marshal(v)
	if err == nil && edit != nil {
		b = edit(b)
	}
	return b, err
}

// Write puts the image into the layout at dir, creating it where needed, under
// the name ref, and returns the descriptor of its manifest.
func (i Image) Write(dir, ref string) (ispec.Descriptor, error) {
	p, err := i.Pack()
	if err != nil {
		return ispec.Descriptor{}, err
	}
	l := Layout(dir)
	if err := l.Put(append(p.Blobs, p.Manifest)...); err != nil {
		return ispec.Descriptor{}, err
	}
	return p.Manifest.Descriptor, l.Tag(p.Manifest.Descriptor, ref)
}

// WriteIndex puts several images under one name, as an index by platform.
func WriteIndex(dir, ref string, images ...Image) (ispec.Descriptor, error) {
	l := Layout(dir)
	index := ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex}
	for _, i := range images {
		p, err := i.Pack()
		if err != nil {
			return ispec.Descriptor{}, err
		}
		if err := l.Put(append(p.Blobs, p.Manifest)...); err != nil {
			return ispec.Descriptor{}, err
		}
		d := p.Manifest.Descriptor
		d.Platform = &p.Platform
		index.Manifests = append(index.Manifests, d)
	}
	b, err := json.Marshal(index)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	blob := describe(index.MediaType, b)
	if err := l.Put(blob); err != nil {
		return ispec.Descriptor{}, err
	}
	return blob.Descriptor, l.Tag(blob.Descriptor, ref)
}

// Layout is the directory of an OCI image layout.
type Layout string

// Put stores blobs.
func (l Layout) Put(blobs ...Blob) error {
	for _, b := range blobs {
		name := l.Blob(b.Descriptor.Digest)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, b.Bytes, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Blob names the file of a blob.
func (l Layout) Blob(d digest.Digest) string {
	return filepath.Join(string(l), "blobs", d.Algorithm().String(), d.Encoded())
}

// Tag names d in index.json, in place of what had that name.
func (l Layout) Tag(d ispec.Descriptor, ref string) error {
	index, err := l.Index()
	if err != nil {
		return err
	}
	if ref != "" {
		d.Annotations = map[string]string{ispec.AnnotationRefName: ref}
	}
	kept := index.Manifests[:0]
	for _, m := range index.Manifests {
		if ref == "" || m.Annotations[ispec.AnnotationRefName] != ref {
			kept = append(kept, m)
		}
	}
	index.Manifests = append(kept, d)
	sort.SliceStable(index.Manifests, func(i, j int) bool {
		return index.Manifests[i].Annotations[ispec.AnnotationRefName] < index.Manifests[j].Annotations[ispec.AnnotationRefName]
	})
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(string(l), ispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(string(l), ispec.ImageIndexFile), b, 0o644)
}

// Index reads index.json, an empty one where there is none.
func (l Layout) Index() (ispec.Index, error) {
	index := ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex}
	b, err := os.ReadFile(filepath.Join(string(l), ispec.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return index, nil
	}
	if err != nil {
		return index, err
	}
	return index, json.Unmarshal(b, &index)
}

// Archive writes the layout as an OCI archive.
func (l Layout) Archive(name string) error {
	var files []File
	err := filepath.WalkDir(string(l), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(string(l), path)
		files = append(files, File{Path: rel, Body: b})
		return err
	})
	if err != nil {
		return err
	}
	b, err := Tar(files)
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o644)
}
