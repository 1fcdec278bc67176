// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image/tree/erofs"
	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/internal/undo"
)

// staged is one file being written: under a temporary name that only the
// holder of its lock uses.
type staged struct {
	d    *Dir
	name string
	out  *os.File
}

func (d *Dir) create(name string) (*staged, error) {
	s := &staged{d: d, name: name}
	// Left by somebody who died: we hold the lock, so nobody writes it.
	if err := d.root.Remove(s.temp()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var err error
	s.out, err = d.root.OpenFile(s.temp(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return s, err
}

func (s *staged) temp() string { return path.Dir(s.name) + "/.tmp-" + path.Base(s.name) }

func (s *staged) discard() {
	s.out.Close()
	_ = s.d.root.Remove(s.temp())
}

// publish hashes what the converter wrote, has the kernel guard it where it
// can, and gives it its name. The directory is synced by the caller.
func (s *staged) publish() (File, error) {
	if err := s.out.Chmod(0o400); err != nil {
		return File{}, err
	}
	if err := s.out.Close(); err != nil {
		return File{}, err
	}
	f, err := s.d.open(s.temp())
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	if err := unwritable(f); err != nil {
		return File{}, err
	}
	verity, err := enableVerity(f)
	if err != nil {
		return File{}, err
	}
	// The disk is slow and so is SHA-256: side by side.
	synced := make(chan error, 1)
	go func() { synced <- f.Sync() }()
	sum, size, err := hash(f)
	if err := errors.Join(err, <-synced); err != nil {
		return File{}, err
	}
	if err := s.d.root.Rename(s.temp(), s.name); err != nil {
		return File{}, err
	}
	return File{Path: s.name, Digest: sum, Size: size, Verity: verity}, nil
}

// writerPatience is how long a copy of a descriptor may outlive its close.
const writerPatience = 2 * time.Second

// unwritable makes sure that nobody can still write f, a converter that was
// taken over least of all: a read lease is only granted on such a file. It
// ends when f is closed.
//
// A child of ours that is executing has copies of every descriptor, also of
// the one just closed, until the kernel gets to those that are close-on-exec.
// That is after it let go on the thread that forked, so no lock of ours or of
// package syscall keeps it from being seen here: it is waited out.
func unwritable(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	for until := time.Now().Add(writerPatience); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // nothing tells when a file is closed
		var errno error
		err := c.Control(func(fd uintptr) {
			_, errno = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK)
		})
		switch {
		case err != nil:
			return err
		case errors.Is(errno, unix.EAGAIN) && time.Now().Before(until):
			continue
		case errors.Is(errno, unix.EAGAIN):
			return fmt.Errorf("seal %s: somebody still has it open for writing", f.Name())
		case errors.Is(errno, unix.EINVAL), errors.Is(errno, unix.EACCES), errors.Is(errno, unix.EPERM):
			return nil // no leases on this file system, or not for us
		}
		return errno
	}
}

// Staging is a layer being converted. Its creator holds the layer's lock.
type Staging struct {
	d         *Dir
	blob      digest.Digest
	data, idx *staged
	clean     undo.Stack
}

// Stage begins the conversion of a blob. If somebody else is at it, Stage
// waits. It returns ErrExists if Layer has the result by then: a file that
// others have verified must not be replaced, not even by the same.
func (d *Dir) Stage(ctx context.Context, blob digest.Digest) (*Staging, error) {
	if err := blob.Validate(); err != nil {
		return nil, fmt.Errorf("stage layer %q: %w", blob, err)
	}
	st := &Staging{d: d, blob: blob}
	done := false
	defer func() {
		if !done {
			st.Abort()
		}
	}()
	release, err := d.Hold()
	if err != nil {
		return nil, fmt.Errorf("stage layer %s: %w", blob, err)
	}
	st.clean.Push(release)
	lock, err := d.lock(ctx, layerName(blob))
	if err != nil {
		return nil, fmt.Errorf("stage layer %s: %w", blob, err)
	}
	st.clean.Push(func() { lock.Close() })
	if _, ok := d.Layer(blob); ok {
		return nil, ErrExists
	}
	if st.data, err = st.create(".data"); err != nil {
		return nil, fmt.Errorf("stage layer %s: %w", blob, err)
	}
	if st.idx, err = st.create(".idx"); err != nil {
		return nil, fmt.Errorf("stage layer %s: %w", blob, err)
	}
	done = true
	return st, nil
}

func (st *Staging) create(ending string) (*staged, error) {
	s, err := st.d.create(layerName(st.blob) + ending)
	if err == nil {
		st.clean.Push(s.discard)
	}
	return s, err
}

// Data is the file that gets the contents.
func (st *Staging) Data() *os.File { return st.data.out }

// Index is the file that gets the records.
func (st *Staging) Index() *os.File { return st.idx.out }

// Abort gives everything back. After Commit it does nothing.
func (st *Staging) Abort() { st.clean.Run() }

// Commit seals what the converter wrote as the layer of this blob. The
// converter must be gone: a file that can still be written is refused.
func (st *Staging) Commit(diffID digest.Digest, sum Summary) (Layer, error) {
	defer st.Abort()
	l := Layer{Version: Version, Blob: st.blob, DiffID: diffID, Summary: sum}
	var err error
	if l.Data, err = st.data.publish(); err != nil {
		return Layer{}, fmt.Errorf("commit layer %s: %w", st.blob, err)
	}
	if l.Index, err = st.idx.publish(); err != nil {
		return Layer{}, fmt.Errorf("commit layer %s: %w", st.blob, err)
	}
	if err := atomicfile.SyncDir(st.d.root, "layers"); err != nil {
		return Layer{}, err
	}
	if err := st.d.save(layerName(st.blob), l); err != nil {
		return Layer{}, fmt.Errorf("commit layer %s: %w", st.blob, err)
	}
	return l, nil
}

// ImageStaging is an image being merged.
type ImageStaging struct {
	d      *Dir
	layers []Layer
	inputs []*os.File
	out    *staged
	clean  undo.Stack
}

// StageImage begins the merge of layers, bottom first. It waits, and returns
// ErrExists, as Stage does, for what Tree has.
func (d *Dir) StageImage(ctx context.Context, layers []Layer) (*ImageStaging, error) {
	im := &ImageStaging{d: d, layers: layers}
	err := im.begin(ctx)
	if err == nil {
		return im, nil
	}
	im.Abort()
	if errors.Is(err, ErrExists) {
		return nil, ErrExists
	}
	return nil, fmt.Errorf("stage image: %w", err)
}

func (im *ImageStaging) begin(ctx context.Context) error {
	name := imageName(keyOf(im.layers))
	release, err := im.d.Hold()
	if err != nil {
		return err
	}
	im.clean.Push(release)
	lock, err := im.d.lock(ctx, name)
	if err != nil {
		return err
	}
	im.clean.Push(func() { lock.Close() })
	if _, ok := im.d.Tree(im.layers); ok {
		return ErrExists
	}
	for _, l := range im.layers {
		f, err := im.d.open(l.Index.Path)
		if err != nil {
			return err
		}
		im.clean.Push(func() { f.Close() })
		im.inputs = append(im.inputs, f)
	}
	if im.out, err = im.d.create(name + ".erofs"); err != nil {
		return err
	}
	im.clean.Push(im.out.discard)
	return nil
}

// Inputs are the layers' indexes, bottom first.
func (im *ImageStaging) Inputs() []*os.File { return im.inputs }

// Out is the file that gets the EROFS.
func (im *ImageStaging) Out() *os.File { return im.out.out }

// Abort gives everything back. After Commit it does nothing.
func (im *ImageStaging) Abort() { im.clean.Run() }

// Commit seals the merged image and returns the tree.
func (im *ImageStaging) Commit() (Tree, error) {
	defer im.Abort()
	t := Tree{Version: Version, Key: keyOf(im.layers), Layers: im.layers}
	super, err := erofs.ReadSuper(im.out.out)
	if err != nil {
		return Tree{}, fmt.Errorf("commit image: %w", err)
	}
	if n := len(t.devices()); super.Devices != n {
		return Tree{}, fmt.Errorf("commit image: it names %d devices, its layers have %d", super.Devices, n)
	}
	if t.Image, err = im.out.publish(); err != nil {
		return Tree{}, fmt.Errorf("commit image: %w", err)
	}
	if err := atomicfile.SyncDir(im.d.root, "images"); err != nil {
		return Tree{}, err
	}
	if err := im.d.save(imageName(t.Key), t); err != nil {
		return Tree{}, fmt.Errorf("commit image: %w", err)
	}
	return t, nil
}

// devices are the data files the image needs, in the order of its table.
func (t *Tree) devices() []File {
	var files []File
	for _, l := range t.Layers {
		if l.Data.Size > 0 {
			files = append(files, l.Data)
		}
	}
	return files
}
