// SPDX-License-Identifier: Apache-2.0

package tree_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	goerofs "github.com/erofs/go-erofs"
	"github.com/opencontainers/go-digest"
)

// TestUmociSeesTheSameDebian does what TestUmociSeesTheSameTree does with the
// root of a Debian system. The root is made once and kept in the user's cache.
func TestUmociSeesTheSameDebian(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("umoci needs a while for a Debian root")
	}
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip("ability missing: umoci")
	}
	plain, err := os.Open(debian(t))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(z, h), plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	base := blob{packed.Bytes(), digest.FromBytes(packed.Bytes()), digest.NewDigest(digest.SHA256, h)}
	upper := newArchive(t).file("usr/share/.wh.doc", "").file("etc/apt/.wh..wh..opq", "").file("etc/motd", "hello\n").
		link("usr/bin/bash2", "bin/bash").file("usr/bin/.wh.perl", "")
	againstUmoci(t, []blob{base, gzipped(t, upper.tar())})
}

func debian(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skipf("ability missing: a cache directory: %v", err)
	}
	path := filepath.Join(cache, "gantry-test", "debian-minbase.tar")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	tool, err := exec.LookPath("mmdebstrap")
	if err != nil {
		t.Skip("ability missing: mmdebstrap")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	tmp := path + ".tmp.tar"
	cmd := exec.Command(tool, "--quiet", "--variant=minbase", "bookworm", tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("ability missing: a Debian mirror: %v\n%s", err, out)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestGoErofsReadsOurImages has a reader that is not the kernel's read every
// name and byte of our images.
func TestGoErofsReadsOurImages(t *testing.T) {
	for name, layers := range map[string]func(testing.TB) []*archive{
		"odd": oddLayers, "links": linkLayers, "whiteouts": whiteoutLayers, "holes": holeLayers, "wide": wideLayers,
	} {
		t.Run(name, func(t *testing.T) {
			d := openDir(t)
			tr := mustBuild(t, d, layers(t)...)
			var devices []io.ReaderAt
			for _, l := range tr.Layers {
				if l.Data.Size > 0 {
					devices = append(devices, openFile(t, filepath.Join(d.Path(), l.Data.Path)))
				}
			}
			img, err := goerofs.Open(openFile(t, filepath.Join(d.Path(), tr.Image.Path)), goerofs.WithExtraDevices(devices...))
			if err != nil {
				t.Fatal(err)
			}
			needRoot(t)
			plain, err := d.Materialise(t.Context(), tr)
			if err != nil {
				t.Fatal(err)
			}
			sameFiles(t, os.DirFS(plain), img)
		})
	}
}

func openFile(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// sameFiles compares names, types, sizes, times and contents.
func sameFiles(t testing.TB, want, got fs.FS) {
	t.Helper()
	count := 0
	err := fs.WalkDir(got, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if count++; !fs.ValidPath(path) {
			return nil // package fs has no names but UTF-8; the kernel read it
		}
		a, err := fs.Lstat(want, path)
		if err != nil {
			return err
		}
		b, err := e.Info()
		if err != nil {
			return err
		}
		if a.Mode().Type() != b.Mode().Type() || a.Mode().Perm() != b.Mode().Perm() && a.Mode().Type() != fs.ModeSymlink || !a.ModTime().Equal(b.ModTime()) {
			t.Errorf("%q: %v %v, not %v %v", path, b.Mode(), b.ModTime(), a.Mode(), a.ModTime())
		}
		if !a.Mode().IsRegular() {
			return nil
		}
		x, err := fs.ReadFile(want, path)
		if err != nil {
			return err
		}
		y, err := fs.ReadFile(got, path)
		if err != nil {
			return err
		}
		if !bytes.Equal(x, y) {
			t.Errorf("%q: content differs", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	all := 0
	_ = fs.WalkDir(want, ".", func(string, fs.DirEntry, error) error { all++; return nil })
	if count != all {
		t.Errorf("%d names, not %d", count, all)
	}
}
