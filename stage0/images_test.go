// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/signature"
)

// Guards: of a receipt that a newer gantry wrote nobody here knows which tree it
// is about, so none is removed; a receipt that was changed holds nothing back.
func TestCollectBesideUnreadableReceipts(t *testing.T) {
	e := Env{Dir: t.TempDir(), RunDir: t.TempDir(), ConfigPath: []string{t.TempDir()}}
	l, err := e.library()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	some := filepath.Join(l.trees.Path(), "layers", "some")
	write := func(file string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(some)
	newer := signature.Receipt{Version: signature.ReceiptVersion + 1, Reference: "r.example.com/a:1", Manifest: digest.FromString("a"), Time: time.Now()}
	if err := l.receipts.Save(newer); err != nil {
		t.Fatal(err)
	}
	if _, err := GCImages(e); err == nil || hint.Of(err) == "" {
		t.Errorf("beside a receipt of a newer gantry: %v", err)
	}
	if _, err := os.Stat(some); err != nil {
		t.Error(err)
	}
	if err := l.receipts.Remove(newer.Reference, newer.Manifest); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(e.Dir, "receipts", "broken.json"))
	if freed, err := GCImages(e); err != nil || freed.Trees != 1 {
		t.Errorf("beside a broken receipt: %+v, %v", freed, err)
	}
}

// Guards: images are collected beside a fetch. It has sealed its receipt and is
// about to set the name, and must find both when it has; the collection is no
// failure, and what it left is freed by the next one.
func TestCollectBesideFetch(t *testing.T) {
	e := Env{Dir: t.TempDir(), RunDir: t.TempDir(), ConfigPath: []string{t.TempDir()}}
	if _, err := signature.HostKey(filepath.Join(e.Dir, "host.key")); err != nil {
		t.Fatal(err)
	}
	l, err := e.library()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	release, err := l.trees.Hold()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := image.Parse("registry.example.com/acme/web:1")
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.store.Put(ispec.MediaTypeImageManifest, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	save := func(manifest digest.Digest) {
		t.Helper()
		treeJSON, err := json.Marshal(tree.Tree{})
		if err != nil {
			t.Fatal(err)
		}
		r := signature.Receipt{Reference: ref.String(), Name: ref.Name(), Manifest: manifest, Tree: treeJSON, Time: time.Now()}
		if err := l.receipts.Save(r); err != nil {
			t.Fatal(err)
		}
	}
	has := func(manifest digest.Digest) bool {
		_, err := l.receipts.Load(ref.String(), manifest)
		return err == nil
	}
	replaced := digest.FromString("replaced")
	save(replaced)
	save(d.Digest)
	if freed, err := GCImages(e); err != nil || !freed.Fetching {
		t.Fatalf("GC beside a fetch: %+v, %v", freed, err)
	}
	if err := l.store.Tag(ref, d); err != nil {
		t.Fatal(err)
	}
	release()
	if !has(d.Digest) {
		t.Error("GC took the receipt of an image that was being fetched")
	}
	if freed, err := GCImages(e); err != nil || freed.Fetching {
		t.Errorf("GC after the fetch: %+v, %v", freed, err)
	}
	if !has(d.Digest) || has(replaced) {
		t.Errorf("after GC: %v of the image, %v of the one it replaced", has(d.Digest), has(replaced))
	}
}
