// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
)

// blobPath returns where a blob is. The digest is checked first: it becomes a
// path (CVE-2024-3727).
func blobPath(d digest.Digest) (string, error) {
	if err := image.ValidDigest(d); err != nil {
		return "", err
	}
	return blobsDir + "/" + string(d.Algorithm()) + "/" + d.Encoded(), nil
}

// Has tells whether the blob is there with that size. Its content was checked
// when it was written. To rely on a blob that no name keeps, call Writer.
func (s *Store) Has(d ispec.Descriptor) bool {
	p, err := blobPath(d.Digest)
	if err != nil {
		return false
	}
	info, err := s.root.Lstat(p)
	return err == nil && info.Mode().IsRegular() && info.Size() == d.Size
}

// Blob opens a blob for reading. The caller closes it.
func (s *Store) Blob(d digest.Digest) (*os.File, error) {
	f, _, err := s.openBlob(d)
	return f, err
}

func (s *Store) openBlob(d digest.Digest) (*os.File, int64, error) {
	p, err := blobPath(d)
	if err != nil {
		return nil, 0, err
	}
	f, size, err := s.open(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("blob %s: %w", d, ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", d, err)
	}
	return f, size, nil
}

// Bytes reads a whole blob of at most so many bytes and checks it against size
// and digest.
func (s *Store) Bytes(d ispec.Descriptor, most int64) ([]byte, error) {
	f, size, err := s.openBlob(d.Digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size != d.Size {
		return nil, fmt.Errorf("blob %s: %d bytes where %d must be: %w", d.Digest, size, d.Size, ErrCorrupt)
	}
	if size > most {
		return nil, fmt.Errorf("blob %s: %d bytes, at most %d are read", d.Digest, size, most)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, ErrCorrupt)
	}
	return b, nil
}

// Verify reads a whole blob and checks it against size and digest.
func (s *Store) Verify(d ispec.Descriptor) error {
	f, size, err := s.openBlob(d.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if size != d.Size {
		return fmt.Errorf("blob %s: %d bytes where %d must be: %w", d.Digest, size, d.Size, ErrCorrupt)
	}
	v := d.Digest.Verifier()
	if _, err := io.Copy(v, f); err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if !v.Verified() {
		return fmt.Errorf("blob %s: %w", d.Digest, ErrCorrupt)
	}
	return nil
}

// Put writes a blob that is at hand and returns what describes it.
func (s *Store) Put(mediaType string, b []byte) (ispec.Descriptor, error) {
	d := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	w, err := s.Writer(context.Background(), d)
	if errors.Is(err, ErrExists) {
		return d, nil
	}
	if err != nil {
		return ispec.Descriptor{}, err
	}
	defer w.Abort()
	if _, err := w.Write(b); err != nil {
		return ispec.Descriptor{}, err
	}
	return d, w.Commit()
}

func (s *Store) fileMode() os.FileMode {
	if s.foreign {
		return 0o644
	}
	return 0o600
}
