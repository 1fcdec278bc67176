// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
)

var amd64 = ispec.Platform{OS: "linux", Architecture: "amd64"}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func parse(t testing.TB, s string) image.Reference {
	t.Helper()
	ref, err := image.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func put(t testing.TB, s *Store, mediaType string, v any) ispec.Descriptor {
	t.Helper()
	b, ok := v.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	d, err := s.Put(mediaType, b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// putImage writes an image whose content depends on seed and returns its
// manifest's descriptor and all its blobs.
func putImage(t testing.TB, s *Store, seed, architecture string) (ispec.Descriptor, []digest.Digest) {
	t.Helper()
	layer := put(t, s, ispec.MediaTypeImageLayer, []byte("layer of "+seed))
	config := put(t, s, ispec.MediaTypeImageConfig, ispec.Image{
		Platform: ispec.Platform{OS: "linux", Architecture: architecture},
		RootFS:   ispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	})
	m := put(t, s, ispec.MediaTypeImageManifest, ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest,
		Config: config, Layers: []ispec.Descriptor{layer},
	})
	return m, []digest.Digest{layer.Digest, config.Digest, m.Digest}
}

// putSignature attaches something to a subject.
func putSignature(t testing.TB, s *Store, subject ispec.Descriptor) (ispec.Descriptor, []digest.Digest) {
	t.Helper()
	empty := put(t, s, ispec.MediaTypeEmptyJSON, []byte("{}"))
	payload := put(t, s, "application/vnd.example.signature", []byte("signature of "+subject.Digest))
	m := put(t, s, ispec.MediaTypeImageManifest, ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example.signature",
		Config: empty, Layers: []ispec.Descriptor{payload}, Subject: &subject,
	})
	return m, []digest.Digest{empty.Digest, payload.Digest, m.Digest}
}

func tag(t testing.TB, s *Store, name string, d ispec.Descriptor) {
	t.Helper()
	if err := s.Tag(parse(t, name), d); err != nil {
		t.Fatal(err)
	}
}

func TestStore_writeAndRead(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a", "store"))
	d, _ := putImage(t, s, "x", "amd64")
	ref := parse(t, "nginx:1.27")
	if _, err := s.Resolve(ref); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "nginx:1.27") {
		t.Errorf("before: %v", err)
	}
	tag(t, s, "nginx:1.27", d)
	img, err := s.Manifest(ref, amd64)
	if err != nil {
		t.Fatal(err)
	}
	if img.Descriptor.Digest != d.Digest || img.Index != "" || len(img.Manifest.Layers) != 1 || img.Config.OS != "linux" || img.Reference != ref {
		t.Errorf("got %+v", img)
	}
	if _, err := s.Manifest(ref, ispec.Platform{OS: "linux", Architecture: "arm64"}); err == nil {
		t.Error("an image for amd64 was given out for arm64")
	}
	f, err := s.Blob(img.Manifest.Layers[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "layer of x" {
		t.Errorf("layer is %q, %v", b, err)
	}
	entries, err := s.Entries()
	if err != nil || len(entries) != 1 || entries[0].Reference != ref || entries[0].Descriptor.Digest != d.Digest {
		t.Errorf("entries %+v, %v", entries, err)
	}
	if err := s.Untag(ref); err != nil {
		t.Fatal(err)
	}
	if err := s.Untag(ref); !errors.Is(err, ErrNotFound) {
		t.Errorf("second untag: %v", err)
	}
}

func TestStore_index(t *testing.T) {
	s := open(t, t.TempDir())
	d, _ := putImage(t, s, "x", "amd64")
	d.Platform = &amd64
	absent := ispec.Descriptor{
		MediaType: ispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 9,
		Platform: &ispec.Platform{OS: "linux", Architecture: "s390x"},
	}
	x := put(t, s, ispec.MediaTypeImageIndex, ispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{absent, d},
	})
	tag(t, s, "a", x)
	img, err := s.Manifest(parse(t, "a"), amd64)
	if err != nil || img.Index != x.Digest || img.ManifestDescriptor.Digest != d.Digest || img.Descriptor.Digest != x.Digest {
		t.Errorf("got %+v, %v", img, err)
	}
	if _, err := s.Manifest(parse(t, "a"), *absent.Platform); !errors.Is(err, ErrNotFound) {
		t.Errorf("absent platform: %v", err)
	}
	if _, err := s.GC(nil); err != nil {
		t.Errorf("GC with an absent child: %v", err)
	}
}

func TestResolve_byDigest(t *testing.T) {
	s := open(t, t.TempDir())
	d, _ := putImage(t, s, "x", "amd64")
	other, _ := putImage(t, s, "y", "amd64")
	tag(t, s, "nginx:1.27", d)
	tag(t, s, "quay.io/a/b", other)
	for typed, want := range map[string]bool{
		"nginx@" + string(d.Digest):               true,
		"nginx:1.27@" + string(d.Digest):          true,
		"nginx:other@" + string(d.Digest):         true,
		"nginx@" + string(other.Digest):           false,
		"quay.io/a/b@" + string(d.Digest):         false,
		"quay.io/a/b:latest":                      true,
		"nginx:1.2":                               false,
		"nginx:latest":                            false,
		"docker.io/library/nginx:1.27":            true,
		"quay.io/library/nginx:1.27":              false,
		"quay.io/a/b:latest@" + string(d.Digest):  false,
		"quay.io/a/b:x@" + string(other.Digest):   true,
		"oci:/x:docker.io/library/nginx:1.27":     false,
		"docker.io/library/nginx:1.27@" + zeroHex: false,
	} {
		got, err := s.Resolve(parse(t, typed))
		if want != (err == nil) || !want && !errors.Is(err, ErrNotFound) {
			t.Errorf("Resolve(%s) = %v, %v", typed, got.Digest, err)
		}
	}
	if err := s.Tag(parse(t, "nginx@"+string(other.Digest)), d); err == nil {
		t.Error("a reference with another digest was tagged")
	}
	if err := s.Tag(parse(t, "absent"), ispec.Descriptor{MediaType: ispec.MediaTypeImageManifest, Digest: zeroHex, Size: 1}); !errors.Is(err, ErrNotFound) {
		t.Errorf("tag of an absent blob: %v", err)
	}
}

const zeroHex = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// The bisection and the full reading of index.json must never differ, however
// many entries there are and whoever wrote them.
func TestResolve_bisectionAgreesWithFullReading(t *testing.T) {
	for _, n := range []int{0, 1, 2, 30, 31, 32, 33, 500} {
		s := open(t, t.TempDir())
		d, _ := putImage(t, s, "x", "amd64")
		x := emptyIndex()
		names := []string{"nginx:1", "nginx:11", "nginx:1.1", "x/nginx:1", "oci:/srv/a <b>&\"c:1", "oci:/srv/a", `oci:/s\n:x`}
		for i := range n {
			names = append(names, fmt.Sprintf("registry.example/%d/app:%d", i%7, i))
		}
		for i, typed := range names {
			e := d
			e.Size += int64(i)
			e.Annotations = map[string]string{"a": strings.Repeat("x", i*37%9000), "z": nameMember + "docker.io/library/nginx:1"}
			x.Manifests = append(x.Manifests, entry(parse(t, typed).String(), e))
		}
		x.Manifests = append(x.Manifests, entry("", d))
		if err := s.writeIndex(x); err != nil {
			t.Fatal(err)
		}
		for i, typed := range names {
			wanted := parse(t, typed).String()
			got, ok := s.findLine(wanted, func(d ispec.Descriptor) bool { return name(d) == wanted })
			if !ok || got.Size != d.Size+int64(i) {
				t.Errorf("%d entries: %s: found %v, size %d, want %d", n, typed, ok, got.Size, d.Size+int64(i))
			}
		}
		for _, typed := range []string{"a", "nginx:2", "zzz.example/a:b", "oci:/"} {
			wanted := parse(t, typed).String()
			if _, ok := s.findLine(wanted, func(d ispec.Descriptor) bool { return name(d) == wanted }); ok {
				t.Errorf("%d entries: %s: found", n, typed)
			}
		}
		checkForeignForms(t, s, names)
	}
}

// checkForeignForms rewrites index.json as other tools would.
func checkForeignForms(t *testing.T, s *Store, names []string) {
	t.Helper()
	x, err := s.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(x.Manifests)
	reversed, err := encodeIndex(x)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	pretty, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for form, b := range map[string][]byte{"reversed": reversed, "plain": plain, "pretty": pretty} {
		if err := os.WriteFile(filepath.Join(s.dir, indexFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		for i, typed := range names {
			if i > 10 && i%100 != 0 {
				continue // each reads the whole file
			}
			if d, err := s.Resolve(parse(t, typed)); err != nil || name(d) != parse(t, typed).String() {
				t.Errorf("%s, %d entries: %s: %v, %v", form, len(names), typed, name(d), err)
			}
		}
	}
}

func TestCVE_2021_41091_storeIsPrivate(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	d, blobs := putImage(t, s, "x", "amd64")
	tag(t, s, "x", d)
	for _, p := range []string{"", "blobs", "blobs/sha256", "ingest", "index.json", "oci-layout", "version", "blobs/sha256/" + blobs[0].Encoded()} {
		info, err := os.Stat(filepath.Join(dir, p))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, %v", p, info.Mode(), err)
		}
	}
}

func TestOpen_refusesNewerVersionByName(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, versionFile), []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir)
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "version 2; this gantry reads up to 1") {
		t.Errorf("got %v", err)
	}
}

func TestOpen_refuses(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"a file":             func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) },
		"a version of words": func(dir string) error { return os.WriteFile(dir+"/version", []byte("new"), 0o600) },
		"another layout": func(dir string) error {
			return os.WriteFile(dir+"/oci-layout", []byte(`{"imageLayoutVersion":"2.0.0"}`), 0o600)
		},
		"a directory as version": func(dir string) error { return os.Mkdir(dir+"/version", 0o700) },
	} {
		dir := filepath.Join(t.TempDir(), "store")
		if err := errors.Join(os.Mkdir(dir, 0o700), prepare(dir)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// A layout that another tool made becomes a store without losing an entry.
func TestOpen_takesOverLayout(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d, _ := putImage(t, s, "x", "amd64")
	tag(t, s, "x", d)
	for _, p := range []string{versionFile, nextFile} {
		if err := os.Remove(filepath.Join(dir, p)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := open(t, dir).Manifest(parse(t, "x"), amd64); err != nil {
		t.Error(err)
	}
}

func TestStore_refusesWhatIsNoBlob(t *testing.T) {
	s := open(t, t.TempDir())
	d, blobs := putImage(t, s, "x", "amd64")
	path := filepath.Join(s.dir, "blobs/sha256", blobs[0].Encoded())
	layer := ispec.Descriptor{MediaType: ispec.MediaTypeImageLayer, Digest: blobs[0], Size: int64(len("layer of x"))}
	for name, change := range map[string]func() error{
		"a flipped bit": func() error { return os.WriteFile(path, []byte("layer of y"), 0o600) },
		"a shorter one": func() error { return os.WriteFile(path, []byte("layer"), 0o600) },
		"a directory":   func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"a link":        func() error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) },
		"a link within": func() error { return errors.Join(os.Remove(path), os.Symlink("../../version", path)) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Bytes(layer, 1<<20); err == nil {
			t.Errorf("%s: read", name)
		}
		if err := s.Verify(layer); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
	if _, err := s.Bytes(d, 10); err == nil || !strings.Contains(err.Error(), "at most 10 are read") {
		t.Errorf("more than asked for was read: %v", err)
	}
}

func TestCVE_2024_3727_storePathsComeFromCheckedDigests(t *testing.T) {
	s := open(t, t.TempDir())
	for _, bad := range []digest.Digest{"", "sha256:../../version", "../version", "sha256:", "sha256:" + digest.Digest(strings.Repeat("A", 64))} {
		d := ispec.Descriptor{MediaType: "a/b", Digest: bad, Size: 2}
		if _, err := s.Blob(bad); err == nil {
			t.Errorf("Blob(%q) opens", bad)
		}
		if _, err := s.Bytes(d, 10); err == nil {
			t.Errorf("Bytes(%q) reads", bad)
		}
		if _, err := s.Writer(context.Background(), d); err == nil {
			t.Errorf("Writer(%q) writes", bad)
		}
		if err := s.Tag(parse(t, "a"), d); err == nil {
			t.Errorf("Tag(%q) tags", bad)
		}
		if s.Has(d) {
			t.Errorf("Has(%q)", bad)
		}
	}
}

// TestDamagedIndex: nothing is made of it, and an empty one in its place has what
// the blobs are named by.
func TestDamagedIndex(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d, _ := putImage(t, s, "x", "amd64")
	if err := s.Add("v1", d); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(dir, "index.json")
	for what, damage := range map[string]func() error{
		"cut":  func() error { return os.Truncate(index, 20) },
		"gone": func() error { return os.Remove(index) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Entries(); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: list: %v", what, err)
		}
		if err := s.Add("v2", d); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: add: %v", what, err)
		}
		if err := os.WriteFile(index, []byte(`{"schemaVersion":2,"manifests":[]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Add("v2", d); err != nil {
			t.Errorf("%s, then empty: add: %v", what, err)
		}
	}
}

func TestLayout_foreign(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenLayout(dir); err == nil {
		t.Error("an empty directory was opened as a layout")
	}
	for p, content := range map[string]string{
		"oci-layout": `{"imageLayoutVersion": "1.0.0"}`,
		"index.json": `{"schemaVersion":2,"manifests":[],"annotations":{"keep":"this"}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, p), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := OpenLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d, _ := putImage(t, s, "x", "amd64")
	if err := s.Add("v1", d); err != nil {
		t.Fatal(err)
	}
	sig, _ := putSignature(t, s, d)
	sig.ArtifactType = "application/vnd.example.signature"
	for range 2 {
		if err := s.Add("", sig); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"v1", ""} {
		if got, err := s.Lookup(n); err != nil || got.Digest != d.Digest {
			t.Errorf("Lookup(%q) = %v, %v", n, got.Digest, err)
		}
	}
	if _, err := s.Lookup("v2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Lookup(v2): %v", err)
	}
	entries, err := s.Entries()
	if err != nil || len(entries) != 2 {
		t.Errorf("entries %+v, %v", entries, err)
	}
	if err := s.Drop(""); err == nil {
		t.Error("all entries without a name were dropped")
	}
	if _, err := s.GC(nil); err == nil {
		t.Error("garbage was collected in somebody else's layout")
	}
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil || !strings.Contains(string(b), `"keep":"this"`) {
		t.Errorf("annotations are lost: %s, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, nextFile)); err == nil {
		t.Error("a file of ours is left in the layout")
	}
}

func TestStore_boundsIndex(t *testing.T) {
	s := open(t, t.TempDir())
	big := append([]byte(indexHead), make([]byte, image.MaxLayout)...)
	if err := os.WriteFile(filepath.Join(s.dir, indexFile), big, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(parse(t, "a")); err == nil || !strings.Contains(err.Error(), "are read") {
		t.Errorf("got %v", err)
	}
	x := emptyIndex()
	for i := range 16 {
		x.Manifests = append(x.Manifests, entry(fmt.Sprint(i), ispec.Descriptor{
			MediaType: "a/b", Digest: zeroHex,
			Annotations: map[string]string{"x": strings.Repeat("x", 1<<20)},
		}))
	}
	if err := s.writeIndex(x); err == nil || !strings.Contains(err.Error(), "remove images first") {
		t.Errorf("got %v", err)
	}
}

// fill makes a store of n images and returns the last one's reference.
func fill(b testing.TB, s *Store, n int) image.Reference {
	d, _ := putImage(b, s, "x", "amd64")
	x := emptyIndex()
	for i := range n {
		x.Manifests = append(x.Manifests, entry(fmt.Sprintf("registry.example/team/app-%04d:1.27", i), d))
	}
	if err := s.writeIndex(x); err != nil {
		b.Fatal(err)
	}
	return parse(b, fmt.Sprintf("registry.example/team/app-%04d:1.27", n-1))
}

// What a launch does: open, resolve, read manifest and configuration.
func BenchmarkLaunchPath(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("images=%d", n), func(b *testing.B) {
			dir := b.TempDir()
			ref := fill(b, open(b, dir), n)
			for b.Loop() {
				s, err := Open(dir)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := s.Manifest(ref, amd64); err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
		})
	}
}

func BenchmarkResolve(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("images=%d", n), func(b *testing.B) {
			s := open(b, b.TempDir())
			ref := fill(b, s, n)
			for b.Loop() {
				if _, err := s.Resolve(ref); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
