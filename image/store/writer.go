// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/internal/flock"
)

// Writer writes one blob. Nobody else writes the same blob meanwhile, and
// nobody sees it before Commit.
type Writer struct {
	s    *Store
	d    ispec.Descriptor
	temp string
	f    *os.File // locked; nil when done
	hash hash.Hash
	n    int64
}

// Writer starts a blob. When another process, or another goroutine, is writing
// the same blob, it waits for that one: ErrExists then means that the other has
// done the work, and a Writer that the other gave up or died. ErrExists comes at
// once when the blob is there already.
//
// In all cases GC keeps the blob from now on until this Store is closed or its
// process ends, so that a fetch can name it at its end.
func (s *Store) Writer(ctx context.Context, d ispec.Descriptor) (*Writer, error) {
	return s.begin(ctx, d, s.Has)
}

// Renew is Writer for a blob that is there but damaged, as Verify tells: what is
// committed takes its place.
func (s *Store) Renew(ctx context.Context, d ispec.Descriptor) (*Writer, error) {
	return s.begin(ctx, d, func(ispec.Descriptor) bool { return false })
}

func (s *Store) begin(ctx context.Context, d ispec.Descriptor, has func(ispec.Descriptor) bool) (*Writer, error) {
	w, err := s.writer(ctx, d, has)
	if err != nil {
		return nil, fmt.Errorf("write blob %s: %w", d.Digest, err)
	}
	return w, nil
}

func (s *Store) writer(ctx context.Context, d ispec.Descriptor, has func(ispec.Descriptor) bool) (*Writer, error) {
	if err := image.ValidDescriptor(d, image.MaxLayerSize); err != nil {
		return nil, err
	}
	if err := s.hold(d.Digest); err != nil {
		return nil, err
	}
	temp := ingestDir + "/" + string(d.Digest.Algorithm()) + "-" + d.Digest.Encoded()
	for {
		if has(d) {
			return nil, ErrExists
		}
		f, err := s.root.OpenFile(temp, os.O_RDWR|os.O_CREATE, s.fileMode())
		if err != nil {
			return nil, err
		}
		if err := lockContext(ctx, f); err != nil {
			return nil, err
		}
		// While this one waited, the other may have renamed or removed the file.
		if !s.linked(temp, f) {
			if err := f.Close(); err != nil {
				return nil, err
			}
			continue
		}
		return s.startWriter(d, temp, f, has)
	}
}

// startWriter has the lock on the file that is at temp.
func (s *Store) startWriter(d ispec.Descriptor, temp string, f *os.File, has func(ispec.Descriptor) bool) (*Writer, error) {
	w := &Writer{s: s, d: d, temp: temp, f: f, hash: d.Digest.Algorithm().Hash()}
	// The other may have finished between the look and the opening.
	if has(d) {
		w.Abort()
		return nil, ErrExists
	}
	// What a writer that died has left is not known to be flushed.
	if err := f.Truncate(0); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

// Write refuses to write more than the descriptor says.
func (w *Writer) Write(b []byte) (int, error) {
	if w.f == nil {
		return 0, fmt.Errorf("write blob %s: %w", w.d.Digest, fs.ErrClosed)
	}
	if w.n+int64(len(b)) > w.d.Size {
		return 0, fmt.Errorf("write blob %s: longer than the %d bytes it was said to have: %w", w.d.Digest, w.d.Size, ErrCorrupt)
	}
	n, err := w.f.Write(b)
	w.hash.Write(b[:n])
	w.n += int64(n)
	if err != nil {
		return n, fmt.Errorf("write blob %s: %w", w.d.Digest, err)
	}
	return n, nil
}

// Check tells whether what was written is the whole blob, and keeps it as it
// is.
func (w *Writer) Check() error {
	if w.n != w.d.Size {
		return fmt.Errorf("%d bytes where %d must be: %w", w.n, w.d.Size, ErrCorrupt)
	}
	algorithm := w.d.Digest.Algorithm()
	if got := w.hash.Sum(nil); fmt.Sprintf("%x", got) != w.d.Digest.Encoded() {
		return fmt.Errorf("is %s:%x: %w", algorithm, got, ErrCorrupt)
	}
	return nil
}

// Commit checks what was written against size and digest and makes it visible.
// When it returns nil the blob survives a power cut. Whatever it returns, the
// Writer is done.
func (w *Writer) Commit() error {
	if w.f == nil {
		return fmt.Errorf("commit blob %s: %w", w.d.Digest, fs.ErrClosed)
	}
	defer w.Abort()
	if err := w.commit(); err != nil {
		return fmt.Errorf("commit blob %s: %w", w.d.Digest, err)
	}
	return nil
}

func (w *Writer) commit() error {
	if err := w.Check(); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	p, err := blobPath(w.d.Digest)
	if err != nil {
		return err
	}
	dir := blobsDir + "/" + string(w.d.Digest.Algorithm())
	err = w.s.root.Rename(w.temp, p)
	if errors.Is(err, fs.ErrNotExist) {
		if err = w.s.makeBlobDir(dir); err == nil {
			err = w.s.root.Rename(w.temp, p)
		}
	}
	if err != nil {
		return err
	}
	// From here on the file is the blob and must not be removed as a temporary.
	defer w.close()
	return atomicfile.SyncDir(w.s.root, dir)
}

// Abort removes what was written. After Commit it does nothing, so it can be
// deferred.
func (w *Writer) Abort() {
	if w.f == nil {
		return
	}
	// Removed while locked: whoever waits for the lock then sees that the file
	// is gone and starts afresh. If it cannot be removed, GC will.
	_ = w.s.root.Remove(w.temp)
	w.close()
}

func (w *Writer) close() {
	_ = w.f.Close()
	w.f = nil
}

func (s *Store) makeBlobDir(dir string) error {
	mode := os.FileMode(0o700)
	if s.foreign {
		mode = 0o755
	}
	if err := s.root.MkdirAll(dir, mode); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.root, blobsDir)
}

// linked tells whether f is still the file at name.
func (s *Store) linked(name string, f *os.File) bool {
	here, err := s.root.Lstat(name)
	if err != nil {
		return false
	}
	ours, err := f.Stat()
	return err == nil && os.SameFile(here, ours)
}

// lockContext waits for the lock of f no longer than ctx lasts. It closes f when
// it fails. A wait that was given up goes on in a thread of the kernel's until
// the lock is had, and is then dropped; flock(2) knows no other way that would
// not be polling.
func lockContext(ctx context.Context, f *os.File) error {
	err := flock.TryExclusive(f)
	if err == nil {
		return nil
	}
	if !errors.Is(err, flock.ErrLocked) {
		return errors.Join(err, f.Close())
	}
	got := make(chan error, 1)
	go func() { got <- flock.Exclusive(f) }()
	select {
	case err := <-got:
		if err != nil {
			return errors.Join(err, f.Close())
		}
		return nil
	case <-ctx.Done():
		go func() {
			err := <-got
			_ = errors.Join(err, f.Close())
		}()
		return ctx.Err()
	}
}
