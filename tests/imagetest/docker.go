// SPDX-License-Identifier: Apache-2.0

package imagetest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Saved is an image and its names in an archive of docker save.
type Saved struct {
	Packed
	Names []string
}

// DockerArchive writes an archive of docker save. Style is "old" (Docker
// before 25 and podman: plain layers, each in a directory of its own, a layer
// that comes twice as a link) or "hybrid" (Docker since 25: an OCI layout with
// a manifest.json beside). compression is of the whole: "", "gzip", "zstd".
func DockerArchive(name, style, compression string, images ...Saved) error {
	files, err := dockerFiles(style, images)
	if err != nil {
		return err
	}
	b, err := Tar(files)
	if err != nil {
		return err
	}
	if b, _, err = compress(b, compression); err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o644)
}

func dockerFiles(style string, images []Saved) ([]File, error) {
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var files []File
	var list []entry
	index := ispec.Index{MediaType: ispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	made := map[string]bool{}
	add := func(f File) {
		if !made[f.Path] {
			files = append(files, f)
		}
		made[f.Path] = true
	}
	first := map[string]string{}
	for n, i := range images {
		e := entry{RepoTags: i.Names}
		for m, b := range i.Blobs {
			name := "blobs/sha256/" + b.Descriptor.Digest.Encoded()
			config := b.DiffID == ""
			switch {
			case style == "hybrid":
				add(File{Path: name, Body: b.Bytes})
			case config:
				name = b.Descriptor.Digest.Encoded() + ".json"
				add(File{Path: name, Body: b.Bytes})
			default:
				plain, err := unpack(b)
				if err != nil {
					return nil, err
				}
				name = fmt.Sprintf("%032d%032d/layer.tar", n, m)
				if was := first[string(b.DiffID)]; was != "" {
					add(File{Path: name, Type: tar.TypeSymlink, Link: "../" + was})
				} else {
					add(File{Path: name, Body: plain})
					first[string(b.DiffID)] = name
				}
			}
			if config {
				e.Config = name
			} else {
				e.Layers = append(e.Layers, name)
			}
		}
		if style == "hybrid" {
			add(File{Path: "blobs/sha256/" + i.Manifest.Descriptor.Digest.Encoded(), Body: i.Manifest.Bytes})
			index.Manifests = append(index.Manifests, i.Manifest.Descriptor)
		}
		list = append(list, e)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	files = append(files, File{Path: "manifest.json", Body: b})
	if style == "hybrid" {
		x, err := json.Marshal(index)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Path: "index.json", Body: x}, File{Path: "oci-layout", Body: []byte(`{"imageLayoutVersion":"1.0.0"}`)})
	}
	return files, nil
}

func unpack(b Blob) ([]byte, error) {
	switch b.Descriptor.MediaType {
	case ispec.MediaTypeImageLayer:
		return b.Bytes, nil
	case ispec.MediaTypeImageLayerGzip, DockerLayer:
		r, err := gzip.NewReader(bytes.NewReader(b.Bytes))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	}
	return nil, fmt.Errorf("no plain form of %s", b.Descriptor.MediaType)
}
