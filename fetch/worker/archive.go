// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image"
)

// maxArchiveEntries bounds what is remembered of an archive.
const maxArchiveEntries = 100_000

// archive is a table of contents: where in the file each entry's bytes are.
// The parent reads layers from there itself and hashes them; offsets from
// this process are numbers to it, nothing more.
type archive struct {
	f       *os.File
	entries map[string]wire.Content
	links   map[string]string // old archives of docker save name a layer twice so
}

func readArchive(f *os.File) (*archive, error) {
	a := &archive{f: f, entries: map[string]wire.Content{}, links: map[string]string{}}
	// tar.Reader neither buffers nor reads ahead, so the file's own position
	// after Next is where the entry's bytes start.
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, fail(wire.Bad, "not a readable tar archive: %v", err)
		}
		if err := a.add(h); err != nil {
			return nil, err
		}
	}
}

func (a *archive) add(h *tar.Header) error {
	name := path.Clean(strings.TrimPrefix(h.Name, "./"))
	if len(a.entries)+len(a.links) >= maxArchiveEntries {
		return fail(wire.Bad, "the archive holds more than %d files", maxArchiveEntries)
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		a.links[name] = path.Join(path.Dir(name), h.Linkname) //nolint:gosec // a name in the archive: nothing is made of it
		return nil
	case tar.TypeLink:
		a.links[name] = path.Clean(h.Linkname)
		return nil
	case tar.TypeReg:
	default:
		return nil
	}
	at, err := a.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	if _, twice := a.entries[name]; twice {
		return fail(wire.Bad, "the archive holds %q twice", wire.Clean(name, 128))
	}
	a.entries[name] = wire.Content{Offset: at, Size: h.Size}
	return nil
}

// entry finds a file by its name, through one link at most: no tool makes a
// link to a link.
func (a *archive) entry(name string) (wire.Content, bool) {
	at, ok := a.entries[name]
	if !ok {
		at, ok = a.entries[a.links[name]]
	}
	return at, ok
}

// find names the place of a blob.
func (a *archive) find(d digest.Digest) (wire.Content, error) {
	if err := image.ValidDigest(d); err != nil {
		return wire.Content{}, err
	}
	at, ok := a.entries["blobs/"+string(d.Algorithm())+"/"+d.Encoded()]
	if !ok {
		return wire.Content{}, fail(wire.NotFound, "the archive holds no blob %s", d)
	}
	at.Digest = string(d)
	return at, nil
}

// dockerHint recognises what people mix up.
func (a *archive) dockerHint() string {
	if _, ok := a.entries[dockerManifest]; ok {
		return " but one of docker save; write docker-archive:FILE"
	}
	return ""
}
