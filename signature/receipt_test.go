// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func openReceipts(t testing.TB, dir string) *Receipts {
	t.Helper()
	rs, err := OpenReceipts(filepath.Join(dir, "receipts"), filepath.Join(dir, "host.key"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rs.Close() })
	return rs
}

// testReceipt is a receipt as a fetch would keep it, and the policy it was
// proven under.
func testReceipt(t testing.TB) (Receipt, *Policy) {
	t.Helper()
	priv, k := testKey(t)
	p := trusting(t, k)
	r := Receipt{
		Reference: testName + ":v1", Name: testName, Manifest: testManifest, Index: testIndex,
		Config: digest.FromString("config"), Platform: "linux/amd64",
		Tree:       json.RawMessage(`{"version":1,"index":{"path":"images/<&>.erofs"}}`),
		Signatures: []Signature{bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)},
		PolicyHash: p.Hash(), Time: time.Unix(1790000000, 5), By: "0.1.0",
	}
	r.Verdict = p.Judge(r.Subject(), r.Signatures)
	if !r.Verdict.Accepted {
		t.Fatal(r.Verdict.Err())
	}
	return r, p
}

func TestReceiptRoundTrip(t *testing.T) {
	dir := t.TempDir()
	rs := openReceipts(t, dir)
	r, p := testReceipt(t)
	if err := rs.Save(r); err != nil {
		t.Fatal(err)
	}
	got, err := openReceipts(t, dir).Load(r.Reference, r.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	var tree, want any
	if err := json.Unmarshal(got.Tree, &tree); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(r.Tree, &want); err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(tree)
	b, _ := json.Marshal(want)
	if !bytes.Equal(a, b) || got.Version != 1 || !got.Time.Equal(r.Time) || !strings.HasPrefix(got.Seal, "hmac-sha256:") {
		t.Errorf("read back %+v", got)
	}
	// The verdict is recomputed from what the receipt kept.
	if v := p.Judge(got.Subject(), got.Signatures); !v.Accepted || v.Explain() != r.Verdict.Explain() {
		t.Errorf("judged again:\n%s", v.Explain())
	}
	// Without the key's rule the stored verdict is worth nothing.
	if v := (&Policy{}).Judge(got.Subject(), got.Signatures); v.Accepted {
		t.Error("accepted without a rule")
	}
	all, err := rs.List()
	if err != nil || len(all) != 1 || all[0].Reference != r.Reference {
		t.Errorf("list: %v, %v", all, err)
	}
	if err := rs.Remove(r.Reference, r.Manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := rs.Load(r.Reference, r.Manifest); !errors.Is(err, ErrNoReceipt) {
		t.Errorf("after removal: %v", err)
	}
	if err := rs.Remove(r.Reference, r.Manifest); err != nil {
		t.Errorf("removing twice: %v", err)
	}
}

// A receipt is one JSON object that any tool reads.
func TestReceiptIsJSON(t *testing.T) {
	dir := t.TempDir()
	r, _ := testReceipt(t)
	if err := openReceipts(t, dir).Save(r); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(onlyReceipt(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		GantryReceipt int
		Seal          string
		Receipt       Receipt
	}
	if err := json.Unmarshal(data, &file); err != nil || file.GantryReceipt != 1 || file.Receipt.Reference != r.Reference {
		t.Errorf("%v: %s", err, data)
	}
	st, err := os.Stat(onlyReceipt(t, dir))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func onlyReceipt(t testing.TB, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "receipts/*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("receipts: %v, %v", files, err)
	}
	return files[0]
}

// Any change of any byte breaks the seal: flips, truncations, additions.
func TestReceiptForgery(t *testing.T) {
	dir := t.TempDir()
	rs := openReceipts(t, dir)
	r, _ := testReceipt(t)
	if err := rs.Save(r); err != nil {
		t.Fatal(err)
	}
	file := onlyReceipt(t, dir)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, data []byte) {
		t.Helper()
		if _, err := decodeReceipt(rs.key, data); !errors.Is(err, ErrSeal) {
			t.Errorf("%s: %v, want ErrSeal", what, err)
		}
	}
	for i := range good {
		for _, bit := range []byte{1, 0x20, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= bit
			refused("a flipped bit", bad)
		}
		refused("a truncated receipt", good[:i])
	}
	refused("a longer receipt", append(bytes.Clone(good), ' '))
	refused("two receipts", append(bytes.Clone(good), good...))
	forged, err := encodeReceipt(make([]byte, hostKeySize), r)
	if err != nil {
		t.Fatal(err)
	}
	refused("another host's receipt", forged)
}

// An authentic receipt under another image's file name is no receipt of it.
func TestReceiptSwap(t *testing.T) {
	dir := t.TempDir()
	rs := openReceipts(t, dir)
	r, _ := testReceipt(t)
	if err := rs.Save(r); err != nil {
		t.Fatal(err)
	}
	evil := receiptName("registry.example/evil:v1", testManifest)
	if err := os.Rename(onlyReceipt(t, dir), filepath.Join(dir, "receipts", evil)); err != nil {
		t.Fatal(err)
	}
	if _, err := rs.Load("registry.example/evil:v1", testManifest); !errors.Is(err, ErrSeal) {
		t.Errorf("swapped receipt: %v", err)
	}
	if list, err := rs.List(); len(list) != 0 || !errors.Is(err, ErrSeal) {
		t.Errorf("list: %v, %v", list, err)
	}
	if receiptName("a", "b\nc") == receiptName("a\nb", "c") {
		t.Error("two images share a receipt's name")
	}
}

// What stands in a receipt's place and is none.
func TestReceiptNotAFile(t *testing.T) {
	dir := t.TempDir()
	rs := openReceipts(t, dir)
	name := filepath.Join(dir, "receipts", receiptName("r", testManifest))
	if err := os.Symlink("/dev/zero", name); err != nil {
		t.Fatal(err)
	}
	if _, err := rs.Load("r", testManifest); err == nil {
		t.Error("a link is read")
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := rs.Load("r", testManifest); !errors.Is(err, ErrSeal) {
		t.Errorf("a directory: %v", err)
	}
}

func TestReceiptVersion(t *testing.T) {
	r, _ := testReceipt(t)
	r.Version = ReceiptVersion + 1
	key := make([]byte, hostKeySize)
	data, err := encodeReceipt(key, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeReceipt(key, data); err == nil || !strings.Contains(err.Error(), "receipt of version 2; this gantry reads up to 1") {
		t.Errorf("a newer receipt: %v", err)
	}
}

func TestHostKey(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "host.key")
	var wg sync.WaitGroup
	keys := make([][]byte, 16)
	for i := range keys {
		wg.Go(func() {
			k, err := HostKey(file)
			if err != nil {
				t.Error(err)
			}
			keys[i] = k
		})
	}
	wg.Wait()
	for _, k := range keys {
		if len(k) != 32 || !bytes.Equal(k, keys[0]) {
			t.Fatal("concurrent makers hold different keys")
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := HostKey(file); err == nil || !strings.Contains(err.Error(), "is open to others") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	for name, build := range map[string]func(p string) error{
		"short":   func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) },
		"long":    func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("x"), 33), 0o600) },
		"link":    func(p string) error { return os.Symlink(file, p) },
		"dir":     func(p string) error { return os.Mkdir(p, 0o700) },
		"missing": func(string) error { return nil },
	} {
		p := filepath.Join(dir, name)
		if name == "missing" {
			p = filepath.Join(dir, "nowhere/host.key")
		}
		if err := build(p); err != nil {
			t.Fatal(err)
		}
		if k, err := HostKey(p); err == nil {
			t.Errorf("%s: got a key of %d bytes", name, len(k))
		}
	}
}
