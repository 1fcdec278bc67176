// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/signature"
	"github.com/gantryrun/gantry/signature/sign"
	"github.com/gantryrun/gantry/tests/imagetest"
)

func layoutOf(t *testing.T, p imagetest.Packed, tag string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	l := imagetest.Layout(dir)
	check(t, l.Put(append(p.Blobs, p.Manifest)...))
	check(t, l.Tag(p.Manifest.Descriptor, tag))
	return dir
}

func archiveOf(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	check(t, imagetest.Layout(dir).Archive(name))
	return name
}

// signLayout signs the way gantry sign does it in a layout.
func (h *house) signLayout(dir, tag string, legacy, fallback bool) {
	h.t.Helper()
	l := imagetest.Layout(dir)
	x, err := l.Index()
	check(h.t, err)
	d := x.Manifests[0]
	ref, err := image.Parse("oci:" + dir + ":" + tag)
	check(h.t, err)
	a, err := h.artifact(ref, ispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, legacy, nil)
	check(h.t, err)
	blob := func(b sign.Blob) imagetest.Blob { return imagetest.Blob{Descriptor: b.Descriptor, Bytes: b.Bytes} }
	for _, b := range append(a.Blobs, a.Manifest) {
		check(h.t, l.Put(blob(b)))
	}
	if fallback {
		x, err := sign.FallbackIndex(nil, a.Manifest.Descriptor)
		check(h.t, err)
		check(h.t, l.Put(blob(x)))
		check(h.t, l.Tag(x.Descriptor, sign.FallbackTag(d.Digest)))
		return
	}
	check(h.t, l.Tag(a.Manifest.Descriptor, a.Tag))
}

// Guards: directories and archives, signed in each way a layout can carry it.
func TestFetchFromLayouts(t *testing.T) {
	for _, how := range []string{"referrer", "fallback", "legacy", "unsigned"} {
		for _, archive := range []bool{false, true} {
			name := how + map[bool]string{true: "-archive"}[archive]
			t.Run(name, func(t *testing.T) {
				h := newHouse(t)
				dir := layoutOf(t, sample(t, 3), "v1")
				if how != "unsigned" && !(archive && how == "legacy") {
					h.signLayout(dir, "v1", how == "legacy", how == "fallback")
				}
				ref := "oci:" + dir + ":v1"
				if archive {
					ref = "oci-archive:" + archiveOf(t, dir) + ":v1"
				}
				parsed, err := image.Parse(ref)
				check(t, err)
				h.trust(parsed.Name(), "sigstore-key")
				res, err := h.fetch(ref)
				if how == "unsigned" || archive && how == "legacy" {
					if !errors.Is(err, signature.ErrUntrusted) {
						t.Fatalf("got %v", err)
					}
					h.nothingNamed(ref)
					return
				}
				check(t, err)
				if !res.Receipt.Verdict.Accepted || len(res.Tree.Layers) != 3 {
					t.Errorf("got %+v", res.Receipt)
				}
			})
		}
	}
}

// Guards: a refusal tells of its own image alone, in a layout with another,
// signed one.
func TestLayoutIsShared(t *testing.T) {
	h := newHouse(t)
	dir := layoutOf(t, sample(t, 1), "other")
	h.signLayout(dir, "other", false, false)
	mine := sample(t, 2)
	l := imagetest.Layout(dir)
	check(t, l.Put(append(mine.Blobs, mine.Manifest)...))
	check(t, l.Tag(mine.Manifest.Descriptor, "mine"))
	h.trust("oci:"+dir, "sigstore-key")
	_, err := h.fetch("oci:" + dir + ":mine")
	if !errors.Is(err, signature.ErrUntrusted) || !strings.Contains(err.Error(), "found  no signature") {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), "passed over") {
		t.Errorf("it tells of another image's signature: %v", err)
	}
}

// Guards: the store can be read by skopeo.
func TestStoreIsReadBySkopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("ability missing: tool skopeo: ", err)
	}
	h := newHouse(t)
	ref := "oci:" + layoutOf(t, sample(t, 2), "v1") + ":v1"
	_, err = h.fetch(ref, func(r *Request) { r.Insecure.Image = true })
	check(t, err)
	parsed, err := image.Parse(ref)
	check(t, err)
	_ = parsed
	out, err := exec.Command(skopeo, "copy", "--insecure-policy", "oci:"+filepath.Join(h.dir, "store"), "oci:"+t.TempDir()+":x").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Guards: layouts that try to lead the parent elsewhere or are no layouts.
func TestOddLayouts(t *testing.T) {
	break1 := func(edit func(dir string, p imagetest.Packed)) string {
		p := sample(t, 1)
		dir := layoutOf(t, p, "v1")
		edit(dir, p)
		return "oci:" + dir + ":v1"
	}
	blob := func(dir string, p imagetest.Packed) string {
		return imagetest.Layout(dir).Blob(p.Blobs[0].Descriptor.Digest)
	}
	text := filepath.Join(t.TempDir(), "text")
	check(t, os.WriteFile(text, []byte("hello"), 0o600))
	gz := filepath.Join(t.TempDir(), "gz")
	check(t, os.WriteFile(gz, []byte("\x1f\x8b\x08hello"), 0o600))
	for name, tt := range map[string]struct{ ref, want string }{
		"blob is a link": {break1(func(d string, p imagetest.Packed) {
			check(t, os.Remove(blob(d, p)))
			check(t, os.Symlink("/etc/shadow", blob(d, p)))
		}), "too many levels"},
		"blob is missing": {break1(func(d string, p imagetest.Packed) { check(t, os.Remove(blob(d, p))) }), "has no blob"},
		"blob is another": {break1(func(d string, p imagetest.Packed) {
			check(t, os.Truncate(blob(d, p), 0))
			check(t, os.WriteFile(blob(d, p), make([]byte, p.Blobs[0].Descriptor.Size), 0o600))
		}), "sha256:"},
		"blob is short": {break1(func(d string, p imagetest.Packed) { check(t, os.Truncate(blob(d, p), 10)) }), "wrong size"},
		"index is a link": {break1(func(d string, _ imagetest.Packed) {
			check(t, os.Remove(filepath.Join(d, "index.json")))
			check(t, os.Symlink("/etc/passwd", filepath.Join(d, "index.json")))
		}), "too many levels"},
		"index is garbage": {break1(func(d string, _ imagetest.Packed) {
			check(t, os.WriteFile(filepath.Join(d, "index.json"), []byte("{"), 0o600))
		}), "index.json"},
		"no index": {break1(func(d string, _ imagetest.Packed) {
			check(t, os.Remove(filepath.Join(d, "index.json")))
		}), "not an OCI layout"},
		"no such name":       {strings.TrimSuffix(break1(func(string, imagetest.Packed) {}), "v1") + "v2", "it has: v1"},
		"archive is no tar":  {"oci-archive:" + text, "tar"},
		"archive compressed": {"oci-archive:" + gz, "decompress"},
		"archive is a dir":   {"oci-archive:" + t.TempDir(), "written oci:"},
		"layout is a file":   {"oci:" + text, "written oci-archive:"},
		"nothing there":      {"oci:/nonexistent/x", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			_, err := h.fetch(tt.ref, func(r *Request) { r.Insecure.Image = true })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			h.nothingNamed(tt.ref)
		})
	}
}
