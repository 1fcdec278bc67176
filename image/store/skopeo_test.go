// SPDX-License-Identifier: Apache-2.0

package store

import (
	"archive/tar"
	"bytes"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// skopeo runs the real tool, which reads and writes layouts by a library that is
// not ours.
func skopeo(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("ability missing: skopeo is not installed")
	}
	var stderr bytes.Buffer
	cmd := exec.Command(path, append([]string{"--insecure-policy"}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("skopeo %v: %v\n%s", args, err, stderr.Bytes())
	}
	return out
}

func putTarImage(t *testing.T, s *Store) ispec.Descriptor {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "hello", Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer := put(t, s, ispec.MediaTypeImageLayer, b.Bytes())
	config := put(t, s, ispec.MediaTypeImageConfig, ispec.Image{
		Platform: amd64, RootFS: ispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	})
	return put(t, s, ispec.MediaTypeImageManifest, ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest, Config: config, Layers: []ispec.Descriptor{layer},
	})
}

// skopeo reads our store by canonical names, digests and ports included, and we
// read what it made of it and what it put into it.
func TestStore_skopeoReadsAndWritesIt(t *testing.T) {
	dir, copied := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "copy")
	s := open(t, dir)
	d := putTarImage(t, s)
	for _, n := range []string{"nginx:1.27", "registry:5000/a/b", "quay.io/a/b:1@" + string(d.Digest)} {
		tag(t, s, n, d)
		raw := skopeo(t, "inspect", "--raw", "oci:"+dir+":"+parse(t, n).String())
		if digest.FromBytes(raw) != d.Digest {
			t.Errorf("%s: skopeo reads %s", n, raw)
		}
	}
	// An index of which only this machine's image was fetched.
	d.Platform = &ispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	absent := ispec.Descriptor{MediaType: ispec.MediaTypeImageManifest, Digest: zeroHex, Size: 3, Platform: &ispec.Platform{OS: "linux", Architecture: "s390x"}}
	tag(t, s, "multi", put(t, s, ispec.MediaTypeImageIndex, ispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{absent, d},
	}))
	skopeo(t, "copy", "oci:"+dir+":docker.io/library/multi:latest", "oci:"+filepath.Join(t.TempDir(), "one")+":v1")
	skopeo(t, "copy", "oci:"+dir+":docker.io/library/nginx:1.27", "oci:"+copied+":v1")
	layout, err := OpenLayout(copied)
	if err != nil {
		t.Fatal(err)
	}
	defer layout.Close()
	there, err := layout.Lookup("v1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := layout.Image(there, amd64)
	if err != nil || len(img.Manifest.Layers) != 1 {
		t.Errorf("what skopeo copied: %+v, %v", img, err)
	}
	skopeo(t, "copy", "oci:"+copied+":v1", "oci:"+dir+":docker.io/library/other:2")
	if _, err := s.Manifest(parse(t, "other:2"), amd64); err != nil {
		t.Errorf("what skopeo put into the store: %v", err)
	}
	// Its index.json is another than ours; names are found and set all the same.
	tag(t, s, "third", d)
	for _, n := range []string{"nginx:1.27", "registry:5000/a/b", "other:2", "third"} {
		if _, err := s.Manifest(parse(t, n), amd64); err != nil {
			t.Error(err)
		}
	}
}
