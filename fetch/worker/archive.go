// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"archive/tar"
	"bytes"
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
}

func readArchive(f *os.File) (*archive, error) {
	if err := uncompressed(f); err != nil {
		return nil, err
	}
	a := &archive{f: f, entries: map[string]wire.Content{}}
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
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := a.add(h); err != nil {
			return nil, err
		}
	}
}

func (a *archive) add(h *tar.Header) error {
	at, err := a.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	name := path.Clean(strings.TrimPrefix(h.Name, "./"))
	if _, twice := a.entries[name]; twice {
		return fail(wire.Bad, "the archive holds %q twice", wire.Clean(name, 128))
	}
	if len(a.entries) == maxArchiveEntries {
		return fail(wire.Bad, "the archive holds more than %d files", maxArchiveEntries)
	}
	a.entries[name] = wire.Content{Offset: at, Size: h.Size}
	return nil
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
	if _, ok := a.entries["manifest.json"]; ok {
		return " but one of docker save; convert it with: skopeo copy docker-archive:FILE oci-archive:FILE.oci"
	}
	return ""
}

// uncompressed refuses what tar would only call broken.
func uncompressed(f *os.File) error {
	head := make([]byte, 6)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read archive: %w", err)
	}
	for name, magic := range map[string]string{"gzip": "\x1f\x8b", "zstd": "\x28\xb5\x2f\xfd", "xz": "\xfd7zXZ\x00", "bzip2": "BZh"} {
		if bytes.HasPrefix(head[:n], []byte(magic)) {
			return fail(wire.Bad, "the archive is compressed with %s; decompress it first", name)
		}
	}
	return nil
}
