// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// expect checks which blobs are there.
func expect(t *testing.T, s *Store, want ...[]digest.Digest) {
	t.Helper()
	have, err := s.blobs()
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(want...)
	slices.Sort(all)
	slices.Sort(have)
	if all = slices.Compact(all); !slices.Equal(all, have) {
		t.Errorf("blobs %v, want %v", have, all)
	}
}

func collect(t *testing.T, s *Store, keep func(digest.Digest) bool) Freed {
	t.Helper()
	freed, err := s.GC(keep)
	if err != nil {
		t.Fatal(err)
	}
	return freed
}

// write runs f on a store of its own, so that no lease is left of it.
func write(t *testing.T, dir string, f func(s *Store)) {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	f(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestGC_keepsWhatIsNamed(t *testing.T) {
	dir := t.TempDir()
	var a, b, c []digest.Digest
	write(t, dir, func(s *Store) {
		var d ispec.Descriptor
		d, a = putImage(t, s, "a", "amd64")
		tag(t, s, "a", d)
		tag(t, s, "a:second", d)
		d, b = putImage(t, s, "b", "amd64")
		tag(t, s, "b", d)
		_, c = putImage(t, s, "c", "amd64")
	})
	s := open(t, dir)
	freed := collect(t, s, nil)
	expect(t, s, a, b)
	if freed.Blobs != len(c) || freed.Bytes == 0 || !freed.Live[a[0]] || freed.Live[c[0]] {
		t.Errorf("freed %+v", freed)
	}
	if err := s.Untag(parse(t, "a")); err != nil {
		t.Fatal(err)
	}
	collect(t, s, nil)
	expect(t, s, a, b)
	if err := s.Untag(parse(t, "a:second")); err != nil {
		t.Fatal(err)
	}
	collect(t, s, nil)
	expect(t, s, b)
}

func TestGC_keepsWhatIsPinned(t *testing.T) {
	dir := t.TempDir()
	var manifest ispec.Descriptor
	var a []digest.Digest
	write(t, dir, func(s *Store) {
		manifest, a = putImage(t, s, "a", "amd64")
		putImage(t, s, "b", "amd64")
	})
	s := open(t, dir)
	collect(t, s, func(d digest.Digest) bool { return d == manifest.Digest })
	expect(t, s, a)
}

func TestGC_keepsIndexesAndTheirChildren(t *testing.T) {
	dir := t.TempDir()
	var a, x []digest.Digest
	write(t, dir, func(s *Store) {
		var d ispec.Descriptor
		d, a = putImage(t, s, "a", "amd64")
		absent := ispec.Descriptor{MediaType: ispec.MediaTypeImageManifest, Digest: zeroHex, Size: 3}
		index := ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{d, absent}}
		inner := put(t, s, ispec.MediaTypeImageIndex, index)
		index.Manifests = []ispec.Descriptor{inner}
		outer := put(t, s, ispec.MediaTypeImageIndex, index)
		tag(t, s, "x", outer)
		x = []digest.Digest{inner.Digest, outer.Digest}
	})
	s := open(t, dir)
	collect(t, s, nil)
	expect(t, s, a, x)
}

// A signature lives as long as what it signs, and no longer.
func TestGC_attachmentsGoWithTheirSubject(t *testing.T) {
	dir := t.TempDir()
	var a, sig, second, fallback, kept []digest.Digest
	write(t, dir, func(s *Store) {
		var d, e, k ispec.Descriptor
		d, a = putImage(t, s, "a", "amd64")
		tag(t, s, "a", d)
		e, sig = putSignature(t, s, d)
		k, second = putSignature(t, s, e) // a signature of the signature
		for _, x := range []ispec.Descriptor{k, e} {
			if err := s.Add("", x); err != nil {
				t.Fatal(err)
			}
		}
		b := []byte("legacy")
		payload := put(t, s, "application/vnd.dev.cosign.simplesigning.v1+json", b)
		legacy := put(t, s, ispec.MediaTypeImageManifest, ispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2},
			Config:    payload, Layers: []ispec.Descriptor{payload},
		})
		if err := s.Add("sha256-"+d.Digest.Encoded()+".sig", legacy); err != nil {
			t.Fatal(err)
		}
		fallback = []digest.Digest{payload.Digest, legacy.Digest}
		d, kept = putImage(t, s, "kept", "amd64")
		if err := s.Add("", d); err != nil { // no name, attached to nothing: somebody's image
			t.Fatal(err)
		}
	})
	s := open(t, dir)
	collect(t, s, nil)
	expect(t, s, a, sig, second, fallback, kept)
	if err := s.Untag(parse(t, "a")); err != nil {
		t.Fatal(err)
	}
	freed := collect(t, s, nil)
	expect(t, s, kept)
	if entries, err := s.Entries(); err != nil || len(entries) != 1 || freed.Entries != 3 {
		t.Errorf("%d entries dropped, left %+v, %v", freed.Entries, entries, err)
	}
}

func TestGC_keepsWhatAnotherIsFetching(t *testing.T) {
	dir := t.TempDir()
	fetcher, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, a := putImage(t, fetcher, "a", "amd64")
	writing := ispec.Descriptor{MediaType: ispec.MediaTypeImageLayer, Digest: digest.FromString("abc"), Size: 3}
	w, err := fetcher.Writer(context.Background(), writing)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("ab")); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if freed := collect(t, s, nil); freed.Temporary != 0 {
		t.Errorf("removed %d temporary files of a living writer", freed.Temporary)
	}
	expect(t, s, a)
	if _, err := w.Write([]byte("c")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	collect(t, s, nil)
	expect(t, s, a, []digest.Digest{writing.Digest})
	tag(t, fetcher, "a", d)
	if err := fetcher.Close(); err != nil {
		t.Fatal(err)
	}
	collect(t, s, nil)
	expect(t, s, a)
}

// A blob that was already there for another image is kept once Writer has said
// so, though that other image is removed meanwhile.
func TestGC_keepsWhatAFetchFoundThere(t *testing.T) {
	dir := t.TempDir()
	var a []digest.Digest
	write(t, dir, func(s *Store) { _, a = putImage(t, s, "a", "amd64") })
	fetcher := open(t, dir)
	if _, err := fetcher.Writer(context.Background(), ispec.Descriptor{MediaType: "a/b", Digest: a[0], Size: int64(len("layer of a"))}); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	s := open(t, dir)
	collect(t, s, nil)
	expect(t, s, a[:1])
}

func TestGC_removesWhatTheDeadLeft(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, n := range []string{"ingest/sha256-" + zeroHex[7:], "ingest/lease-dead", ".tmp-index.json-dead"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if freed := collect(t, s, nil); freed.Temporary != 2 {
		t.Errorf("freed %+v", freed)
	}
	for _, d := range []string{"ingest", "."} {
		names, err := s.list(d)
		if err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "dead") }) || d == "ingest" && len(names) > 0 {
			t.Errorf("%s has %v, %v", d, names, err)
		}
	}
}

func TestGC_toleratesForeignAndBrokenDocuments(t *testing.T) {
	dir := t.TempDir()
	var all []digest.Digest
	write(t, dir, func(s *Store) {
		for i, b := range []string{"{", "[]", `{"layers":"x"}`, `{"layers":[{"digest":"../x"}]}`, "text", "{}", ""} {
			d := put(t, s, ispec.MediaTypeImageManifest, []byte(b))
			tag(t, s, "broken:"+string(rune('a'+i)), d)
			all = append(all, d.Digest)
		}
	})
	s := open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "blobs/sha256/not-a-blob"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	collect(t, s, nil)
	expect(t, s, all)
	if _, err := os.Stat(filepath.Join(dir, "blobs/sha256/not-a-blob")); err != nil {
		t.Error("what is not ours was removed")
	}
}

func BenchmarkGC(b *testing.B) {
	s := open(b, b.TempDir())
	x := emptyIndex()
	for i := range 100 {
		seed := strings.Repeat("x", i)
		d, _ := putImage(b, s, seed, "amd64")
		x.Manifests = append(x.Manifests, entry("app:"+seed, d))
	}
	if err := s.writeIndex(x); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.GC(nil); err != nil {
			b.Fatal(err)
		}
	}
}
