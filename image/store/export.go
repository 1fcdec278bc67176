// SPDX-License-Identifier: Apache-2.0

package store

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/internal/atomicfile"
)

// Exported is an image that leaves the store.
type Exported struct {
	Image
	Name string   // org.opencontainers.image.ref.name; may be empty
	Tags []string // what docker load calls it
	// Attached are manifests that refer to the image, and Loose what they
	// need: neither is in the store.
	Attached []ispec.Descriptor
	Loose    map[digest.Digest][]byte
}

// contents is everything that images need, each blob once.
type contents struct {
	index  ispec.Index
	docker []dockerEntry
	stored map[digest.Digest]ispec.Descriptor
	loose  map[digest.Digest][]byte
}

// dockerEntry is an image in the manifest.json that docker load reads.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func contentsOf(images []Exported) contents {
	c := contents{index: emptyIndex(), stored: map[digest.Digest]ispec.Descriptor{}, loose: map[digest.Digest][]byte{}}
	attached := map[digest.Digest]bool{}
	for _, i := range images {
		e := entry(i.Name, i.Descriptor)
		if len(i.Tags) > 0 { // then it has a name, and with it annotations
			e.Annotations["io.containerd.image.name"] = i.Reference.String()
		}
		c.index.Manifests = append(c.index.Manifests, e)
		for _, d := range i.Attached {
			if !attached[d.Digest] {
				c.index.Manifests = append(c.index.Manifests, d)
			}
			attached[d.Digest] = true
		}
		maps.Copy(c.loose, i.Loose)
		entry := dockerEntry{Config: mustPath(i.Manifest.Config), RepoTags: i.Tags}
		for _, d := range i.Manifest.Layers {
			entry.Layers = append(entry.Layers, mustPath(d))
		}
		c.docker = append(c.docker, entry)
		for _, d := range append([]ispec.Descriptor{i.Descriptor, i.ManifestDescriptor, i.Manifest.Config}, i.Manifest.Layers...) {
			c.stored[d.Digest] = d
		}
	}
	return c
}

// mustPath names a blob of an image of the store, whose digests were checked.
func mustPath(d ispec.Descriptor) string {
	return blobsDir + "/" + string(d.Digest.Algorithm()) + "/" + d.Digest.Encoded()
}

// Archive writes images as a tar of an OCI layout; with docker as one that
// docker load reads too. The same images always give the same bytes.
func (s *Store) Archive(ctx context.Context, w io.Writer, docker bool, images []Exported) error {
	c := contentsOf(images)
	index, err := encodeIndex(c.index)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	head := []struct {
		name string
		data []byte
	}{{layoutFile, []byte(layoutContent)}, {indexFile, index}}
	if docker {
		b, err := json.Marshal(c.docker)
		if err != nil {
			return err
		}
		head = append(head, struct {
			name string
			data []byte
		}{"manifest.json", append(b, '\n')})
	}
	for _, f := range head {
		if err := addFile(t, f.name, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
			return err
		}
	}
	for _, d := range slices.Sorted(maps.Keys(c.loose)) {
		if err := addFile(t, mustPath(ispec.Descriptor{Digest: d}), int64(len(c.loose[d])), bytes.NewReader(c.loose[d])); err != nil {
			return err
		}
	}
	for _, d := range slices.Sorted(maps.Keys(c.stored)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.loose[d] != nil {
			continue
		}
		err := s.checked(c.stored[d], func(r io.Reader) error { return addFile(t, mustPath(c.stored[d]), c.stored[d].Size, r) })
		if err != nil {
			return err
		}
	}
	return t.Close()
}

func addFile(t *tar.Writer, name string, size int64, r io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}); err != nil {
		return err
	}
	_, err := io.Copy(t, r)
	return err
}

// checked hands a blob's bytes to use and fails if they were not the blob's.
func (s *Store) checked(d ispec.Descriptor, use func(io.Reader) error) error {
	f, size, err := s.openBlob(d.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if size != d.Size {
		return fmt.Errorf("blob %s: %d bytes where %d must be: %w", d.Digest, size, d.Size, ErrCorrupt)
	}
	v := d.Digest.Verifier()
	if err := use(io.TeeReader(f, v)); err != nil {
		return err
	}
	if !v.Verified() {
		return fmt.Errorf("blob %s: %w", d.Digest, ErrCorrupt)
	}
	return nil
}

// CopyTo adds images to a layout: their blobs, and then their names.
func (s *Store) CopyTo(ctx context.Context, to *Store, images []Exported) error {
	c := contentsOf(images)
	for _, b := range c.loose {
		if _, err := to.Put(ispec.MediaTypeImageManifest, b); err != nil {
			return err
		}
	}
	for _, d := range c.stored {
		if err := s.copyBlob(ctx, to, d); err != nil {
			return err
		}
	}
	for _, d := range c.index.Manifests {
		if err := to.Add(name(d), d); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) copyBlob(ctx context.Context, to *Store, d ispec.Descriptor) error {
	w, err := to.Writer(ctx, d)
	if errors.Is(err, ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Abort()
	err = s.checked(d, func(r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	})
	if err != nil {
		return err
	}
	return w.Commit()
}

// MakeLayout opens the layout in dir, making an empty one, for others to read,
// where there is none.
func MakeLayout(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { // not gantry's own store
		return nil, fmt.Errorf("make layout: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("make layout: %w", err)
	}
	if len(names) > 0 {
		return OpenLayout(dir)
	}
	index, err := encodeIndex(emptyIndex())
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("make layout: %w", err)
	}
	defer root.Close()
	if err := atomicfile.Write(root, indexFile, index, 0o644); err != nil {
		return nil, fmt.Errorf("make layout: %w", err)
	}
	if err := atomicfile.Write(root, layoutFile, []byte(layoutContent), 0o644); err != nil {
		return nil, fmt.Errorf("make layout: %w", err)
	}
	return OpenLayout(dir)
}
