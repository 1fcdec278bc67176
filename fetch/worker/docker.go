// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image"
)

// dockerManifest lists the images of an archive of docker save, old and new:
// since Docker 25 such an archive is an OCI layout too.
const dockerManifest = "manifest.json"

// What one list may hold. A message to the parent has room for no more layers.
const (
	maxDockerManifest = 4 << 20
	maxDockerImages   = 1000
	maxDockerLayers   = 256
)

// dockerEntry is one image of the list. What else tools write there
// (LayerSources, Parent) is not needed to find its parts.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// docker finds the parts of the image the reference names. Digests are claims,
// as everything said here is: the parent hashes what it reads.
func (l *layout) docker() (wire.DockerImage, error) {
	_, oci := l.tar.entries["index.json"]
	at, ok := l.tar.entries[dockerManifest]
	if !ok || l.order.Any && oci {
		if l.order.Any {
			return wire.DockerImage{Missing: true}, nil
		}
		return wire.DockerImage{}, l.notDocker(oci)
	}
	b, err := l.tar.read(at, maxDockerManifest)
	if err != nil {
		return wire.DockerImage{}, fail(wire.Bad, "%s of %s: %v", dockerManifest, l.order.Path, err)
	}
	images, err := parseDocker(b)
	if err != nil {
		return wire.DockerImage{}, fail(wire.Bad, "%s of %s: %v", dockerManifest, l.order.Path, err)
	}
	i, err := l.chooseDocker(images)
	if err != nil {
		return wire.DockerImage{}, err
	}
	return l.parts(images[i])
}

func (l *layout) notDocker(oci bool) error {
	hint := ""
	switch _, old := l.tar.entries["repositories"]; {
	case oci:
		hint = "; it is an OCI archive, which is written oci-archive:FILE"
	case old:
		hint = "; it was made by a Docker before 1.10, which cannot be verified"
	}
	return fail(wire.Bad, "%s holds no %s: it is not an archive of docker save%s", l.order.Path, dockerManifest, hint)
}

func parseDocker(b []byte) ([]dockerEntry, error) {
	var images []dockerEntry
	if err := json.Unmarshal(b, &images); err != nil {
		return nil, err
	}
	if len(images) > maxDockerImages {
		return nil, fmt.Errorf("%d images; at most %d are looked at", len(images), maxDockerImages)
	}
	for i, e := range images {
		if e.Config == "" || len(e.Layers) == 0 || len(e.Layers) > maxDockerLayers {
			return nil, fmt.Errorf("image %d has configuration %q and %d layers; 1 to %d are possible", i, wire.Clean(e.Config, 64), len(e.Layers), maxDockerLayers)
		}
	}
	return images, nil
}

// chooseDocker finds the image by name or place, or the only one there is.
func (l *layout) chooseDocker(images []dockerEntry) (int, error) {
	if place, ok := strings.CutPrefix(l.order.Tag, "@"); ok {
		i, err := strconv.Atoi(place)
		if err != nil || i < 0 || i >= len(images) {
			return 0, fail(wire.NotFound, "%s has no image %s; it holds %d", l.order.Path, l.order.Tag, len(images))
		}
		return i, nil
	}
	if l.order.Tag == "" && len(images) == 1 {
		return 0, nil
	}
	var names []string
	for i, e := range images {
		for _, name := range e.RepoTags {
			// By the grammar for all names: nginx:1 is docker.io/library/nginx:1.
			if ref, err := image.Parse(name); err == nil && l.order.Tag != "" && ref.String() == l.order.Tag {
				return i, nil
			}
			names = append(names, wire.Line(name, 128))
		}
		if len(e.RepoTags) == 0 {
			names = append(names, "@"+strconv.Itoa(i))
		}
	}
	have := strings.Join(names[:min(len(names), 20)], ", ")
	switch {
	case len(images) == 0:
		return 0, fail(wire.NotFound, "%s holds no image", l.order.Path)
	case l.order.Tag != "":
		return 0, fail(wire.NotFound, "%s has no image named %q; it has: %s", l.order.Path, l.order.Tag, have)
	}
	return 0, fail(wire.NotFound, "%s holds %d images; name one after a colon: %s", l.order.Path, len(images), have)
}

func (l *layout) parts(e dockerEntry) (wire.DockerImage, error) {
	var d wire.DockerImage
	at, ok := l.tar.entry(path.Clean(e.Config))
	if !ok {
		return d, fail(wire.Bad, "%s lacks the configuration %q", l.order.Path, wire.Clean(e.Config, 128))
	}
	b, err := l.tar.read(at, image.MaxConfig)
	if err != nil {
		return d, fail(wire.Bad, "configuration of %s: %v", l.order.Path, err)
	}
	config, err := image.ParseConfig(b, len(e.Layers))
	if err != nil {
		return d, fail(wire.Bad, "configuration of %s: %v", l.order.Path, err)
	}
	at.Digest = string(digest.FromBytes(b))
	d.Config = at
	for i, name := range e.Layers {
		layer, err := l.layer(name, config.RootFS.DiffIDs[i])
		if err != nil {
			return d, err
		}
		d.Layers = append(d.Layers, layer)
	}
	return d, nil
}

// layer finds one layer. A plain one has its diff ID for a digest, and a blob
// of a layout is named by its own; only what is compressed and named otherwise
// has to be read for it.
func (l *layout) layer(name string, diffID digest.Digest) (wire.Content, error) {
	name = path.Clean(name)
	at, ok := l.tar.entry(name)
	if !ok {
		return at, fail(wire.Bad, "%s lacks the layer %q", l.order.Path, wire.Clean(name, 128))
	}
	head := make([]byte, min(4, at.Size))
	if _, err := l.tar.f.ReadAt(head, at.Offset); err != nil {
		return at, fmt.Errorf("read archive: %w", err)
	}
	compression := ""
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		compression = "+gzip"
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		compression = "+zstd"
	}
	at.MediaType = "application/vnd.oci.image.layer.v1.tar" + compression
	if d, ok := blobName(name); ok {
		at.Digest = string(d)
		return at, nil
	}
	if compression == "" {
		at.Digest = string(diffID)
		return at, nil
	}
	d, err := digest.FromReader(io.NewSectionReader(l.tar.f, at.Offset, at.Size))
	if err != nil {
		return at, fmt.Errorf("read archive: %w", err)
	}
	at.Digest = string(d)
	return at, nil
}

// blobName reads blobs/sha256/<hex>.
func blobName(name string) (digest.Digest, bool) {
	rest, ok := strings.CutPrefix(name, "blobs/")
	algorithm, hex, _ := strings.Cut(rest, "/")
	d := digest.Digest(algorithm + ":" + hex)
	return d, ok && image.ValidDigest(d) == nil
}

func (a *archive) read(at wire.Content, most int64) ([]byte, error) {
	if at.Size > most {
		return nil, fmt.Errorf("%d bytes; at most %d are read", at.Size, most)
	}
	b := make([]byte, at.Size)
	if _, err := io.ReadFull(io.NewSectionReader(a.f, at.Offset, at.Size), b); err != nil {
		return nil, err
	}
	return b, nil
}
