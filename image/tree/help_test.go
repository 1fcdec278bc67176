// SPDX-License-Identifier: Apache-2.0

package tree_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/image/tree/layer"
)

const tarGzip = "application/vnd.oci.image.layer.v1.tar+gzip"

// archive builds the tar of one layer. Entries without a time get one with
// nanoseconds, so that their loss would be seen.
type archive struct {
	t   testing.TB
	buf bytes.Buffer
	tw  *tar.Writer
	n   int
}

func newArchive(t testing.TB) *archive {
	a := &archive{t: t}
	a.tw = tar.NewWriter(&a.buf)
	return a
}

func (a *archive) add(h tar.Header, content string) *archive {
	a.t.Helper()
	if a.n++; h.ModTime.IsZero() {
		h.ModTime = time.Unix(1_600_000_000+int64(a.n), 123_456_789)
	}
	if h.Format == tar.FormatUnknown {
		h.Format = tar.FormatPAX
	}
	h.Size = int64(len(content))
	if err := a.tw.WriteHeader(&h); err != nil {
		a.t.Fatalf("header %q: %v", h.Name, err)
	}
	if _, err := io.WriteString(a.tw, content); err != nil {
		a.t.Fatal(err)
	}
	return a
}

func (a *archive) dir(name string) *archive {
	return a.add(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}, "")
}

func (a *archive) file(name, content string) *archive {
	return a.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content)
}

func (a *archive) link(name, target string) *archive {
	return a.add(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, "")
}

func (a *archive) symlink(name, target string) *archive {
	return a.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, "")
}

func (a *archive) tar() []byte {
	a.t.Helper()
	if err := a.tw.Close(); err != nil {
		a.t.Fatal(err)
	}
	return a.buf.Bytes()
}

// blob is a compressed layer as a registry has it.
type blob struct {
	data   []byte
	blob   digest.Digest
	diffID digest.Digest
}

func gzipped(t testing.TB, plain []byte) blob {
	t.Helper()
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return blob{b.Bytes(), digest.FromBytes(b.Bytes()), digest.FromBytes(plain)}
}

func openDir(t testing.TB) *tree.Dir {
	t.Helper()
	d, err := tree.Open(filepath.Join(t.TempDir(), "trees"), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// convert does for one layer what a fetch does.
func convert(d *tree.Dir, b blob) (tree.Layer, error) {
	if l, ok := d.Layer(b.blob); ok {
		return l, nil
	}
	st, err := d.Stage(context.Background(), b.blob)
	if err != nil {
		return tree.Layer{}, err
	}
	defer st.Abort()
	sum, err := layer.Convert(bytes.NewReader(b.data), tarGzip, b.diffID, tree.DefaultLimits(), st.Data(), st.Index())
	if err != nil {
		return tree.Layer{}, err
	}
	return st.Commit(b.diffID, sum)
}

// build does for an image what a fetch does.
func build(d *tree.Dir, blobs ...blob) (tree.Tree, error) {
	var layers []tree.Layer
	for _, b := range blobs {
		l, err := convert(d, b)
		if err != nil {
			return tree.Tree{}, err
		}
		layers = append(layers, l)
	}
	im, err := d.StageImage(context.Background(), layers)
	if errors.Is(err, tree.ErrExists) {
		if t, ok := d.Tree(layers); ok {
			return t, nil
		}
	}
	if err != nil {
		return tree.Tree{}, err
	}
	defer im.Abort()
	var in []io.ReaderAt
	for _, f := range im.Inputs() {
		in = append(in, f)
	}
	if err := layer.Merge(in, tree.DefaultLimits(), im.Out()); err != nil {
		return tree.Tree{}, err
	}
	return im.Commit()
}

func mustBuild(t testing.TB, d *tree.Dir, archives ...*archive) tree.Tree {
	t.Helper()
	var blobs []blob
	for _, a := range archives {
		blobs = append(blobs, gzipped(t, a.tar()))
	}
	tr, err := build(d, blobs...)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// mount mounts a tree where paths can reach it: the descriptor of a detached
// mount, through /proc.
func mount(t testing.TB, d *tree.Dir, tr tree.Tree) *os.File {
	t.Helper()
	needRoot(t)
	m, err := d.Mount(tr)
	if errors.Is(err, tree.ErrNoErofs) {
		t.Skipf("ability missing: EROFS mounts: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("ability missing: root")
	}
}

// under returns a path below a directory held by a descriptor.
func under(f *os.File, name string) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(f.Fd())), name)
}
