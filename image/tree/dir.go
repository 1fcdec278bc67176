// SPDX-License-Identifier: Apache-2.0

// Package tree keeps the read-only root file systems of images as files: two
// per layer, shared by every image that has the layer, and one EROFS per image
// that names the layers' data as its devices.
//
//	layers/<blob>-v1.data .idx .json   a converted layer and its sealed record
//	images/<key>-v1.erofs .json        merged metadata and its sealed record
//	plain/<key>-v1/root                a directory, where EROFS is not to be had
//	locks/ loops/                      who is at work; where a file is attached
//
// The package handles no foreign tar: that is package layer, in a process that
// can do nothing else. What comes out of it is hashed here, and only what has
// the recorded digest is mounted.
package tree

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/internal/jsonin"
)

// ErrExists means that somebody else finished the work while we waited.
var ErrExists = errors.New("converted by somebody else meanwhile")

// ErrChanged means that a file of a tree is not what was sealed.
var ErrChanged = errors.New("tree was changed")

// Dir is a directory of trees.
type Dir struct {
	path string
	root *os.Root
	key  []byte
}

// Open opens, and makes where it is missing, a directory of trees. With key
// the records of converted layers are sealed; without one none is believed, so
// every layer would be converted again: launches need no key, fetches do.
func Open(dir string, key []byte) (*Dir, error) {
	for _, sub := range []string{"layers", "images", "plain", "locks", "loops"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("open trees %s: %w", dir, err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open trees %s: %w", dir, err)
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open trees %s: %w", dir, err), root.Close())
	}
	return &Dir{path: path, root: root, key: key}, nil
}

// Path is where the trees lie.
func (d *Dir) Path() string { return d.path }

// Close closes the directory. Mounts made from it live on.
func (d *Dir) Close() error { return d.root.Close() }

// Key names the tree of these layer blobs, bottom first.
func Key(blobs []digest.Digest) string {
	h := sha256.New()
	fmt.Fprintf(h, "gantry tree %d\n", Version)
	for _, b := range blobs {
		fmt.Fprintln(h, b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func keyOf(layers []Layer) string {
	blobs := make([]digest.Digest, len(layers))
	for i, l := range layers {
		blobs[i] = l.Blob
	}
	return Key(blobs)
}

// layerName is a layer's file name without its ending. Callers have validated
// the digest, so that its text cannot lead elsewhere.
func layerName(blob digest.Digest) string {
	name := blob.Encoded()
	if blob.Algorithm() != digest.SHA256 {
		name = blob.Algorithm().String() + "-" + name
	}
	return "layers/" + name + "-v" + strconv.Itoa(Version)
}

func imageName(key string) string { return "images/" + key + "-v" + strconv.Itoa(Version) }

// sealed is a record as it lies on disk.
type sealed struct {
	Record json.RawMessage `json:"record"`
	Seal   string          `json:"seal"`
}

func (d *Dir) seal(name string, record []byte) string {
	h := hmac.New(sha256.New, d.key)
	fmt.Fprintf(h, "gantry tree record %d %s\n", Version, name)
	h.Write(record)
	return hex.EncodeToString(h.Sum(nil))
}

func (d *Dir) save(name string, v any) error {
	record, err := json.Marshal(v)
	if err != nil {
		return err
	}
	s := sealed{Record: record}
	if len(d.key) > 0 {
		s.Seal = d.seal(name, record)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.Write(d.root, name+".json", b, 0o600)
}

// load reads a record, refusing one that was not sealed under our key.
func (d *Dir) load(name string, v any) bool {
	if len(d.key) == 0 {
		return false
	}
	b, err := d.root.ReadFile(name + ".json")
	if err != nil {
		return false
	}
	var s sealed
	if jsonin.Unmarshal(b, &s) != nil || !hmac.Equal([]byte(s.Seal), []byte(d.seal(name, s.Record))) {
		return false
	}
	return jsonin.Unmarshal(s.Record, v) == nil
}

// Layer returns a layer that was converted before, if its record is ours and
// its files are still what the record says. That costs their hashing: a
// changed layer must be converted again, never sealed into another tree.
func (d *Dir) Layer(blob digest.Digest) (Layer, bool) {
	var l Layer
	if blob.Validate() != nil || !d.load(layerName(blob), &l) {
		return Layer{}, false
	}
	if l.Version != Version || l.Blob != blob || d.intact(l.Data) != nil || d.intact(l.Index) != nil {
		return Layer{}, false
	}
	return l, true
}

// Tree returns the tree of layers if it was merged before and is intact.
func (d *Dir) Tree(layers []Layer) (Tree, bool) {
	var t Tree
	key := keyOf(layers)
	if !d.load(imageName(key), &t) || t.Version != Version || t.Key != key || len(t.Layers) != len(layers) {
		return Tree{}, false
	}
	for i := range layers {
		if t.Layers[i].Data.Digest != layers[i].Data.Digest || t.Layers[i].Index.Digest != layers[i].Index.Digest {
			return Tree{}, false
		}
	}
	return t, d.intact(t.Image) == nil
}

// lock waits for the lock of that name.
func (d *Dir) lock(ctx context.Context, name string) (f *os.File, err error) {
	name = "locks/" + filepath.Base(name)
	for {
		f, err = d.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		if err := flock.TryExclusive(f); errors.Is(err, flock.ErrLocked) {
			if err := wait(ctx, f); err != nil {
				return nil, err
			}
		} else if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		// GC removes lock files nobody holds: one that is not there under its
		// name any more locks nothing.
		if d.same(name, f) {
			return f, nil
		}
		f.Close()
	}
}

// wait takes the lock. flock(2) cannot be given up, so after ctx ended the
// goroutine is left behind and gives the lock back as soon as it has it.
func wait(ctx context.Context, f *os.File) error {
	got := make(chan error, 1)
	go func() { got <- flock.Exclusive(f) }()
	select {
	case err := <-got:
		if err != nil {
			f.Close()
		}
		return err
	case <-ctx.Done():
		go func() { <-got; f.Close() }() //nolint:errcheck // nobody waits for it any more
		return fmt.Errorf("wait for %s: %w", f.Name(), ctx.Err())
	}
}

func (d *Dir) same(name string, f *os.File) bool {
	a, err1 := d.root.Lstat(name)
	b, err2 := f.Stat()
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// open opens a file of a tree for reading, and nothing that took its place.
func (d *Dir) open(name string) (*os.File, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("open %q: not a file of the trees directory", name)
	}
	return d.root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// intact tells whether a file is what its record says: by measurement where
// the kernel guards it, by hashing otherwise.
func (d *Dir) intact(want File) error {
	f, err := d.open(want.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = check(f, want, nil)
	return err
}

// hash reads f from its beginning.
func hash(f *os.File) (digest.Digest, int64, error) {
	h := sha256.New()
	// A megabyte at a time and told to be read ahead: at SHA-NI speed the
	// system calls are what is left to save.
	if err := fadvise(f, unix.FADV_SEQUENTIAL); err != nil {
		return "", 0, err
	}
	buf := make([]byte, 1<<20)
	n, err := io.CopyBuffer(h, struct{ io.Reader }{io.NewSectionReader(f, 0, 1<<62)}, buf)
	if err != nil {
		return "", n, fmt.Errorf("hash %s: %w", f.Name(), err)
	}
	return digest.NewDigest(digest.SHA256, h), n, nil
}

func fadvise(f *os.File, advice int) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return c.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), 0, 0, advice) })
}
