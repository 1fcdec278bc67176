// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func pemOf(t *testing.T, k Key) []byte {
	t.Helper()
	b, err := k.PEM()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAddAndRemoveRule(t *testing.T) {
	priv, k := testKey(t)
	_, k2 := testKey(t)
	sig := []Signature{bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)}
	l := newLayer(t)
	file, ids, err := AddRule([]string{l.dir}, NewRule{Prefix: "Registry.Example/demo/", Keys: [][]byte{pemOf(t, k)}})
	if err != nil {
		t.Fatal(err)
	}
	if file != filepath.Join(l.dir, "trust.d/50-registry.example-demo.conf") || len(ids) != 1 || ids[0] != k.ID {
		t.Errorf("file %s, keys %v", file, ids)
	}
	wantVerdict(t, l.policy().Judge(testSubject(), sig), ReasonSigned, file)
	if _, _, err := AddRule([]string{l.dir}, NewRule{Prefix: "registry.example/demo", Keys: [][]byte{pemOf(t, k)}}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("adding twice: %v", err)
	}
	// A second key of the same prefix is an alternative.
	file2, _, err := AddRule([]string{l.dir}, NewRule{Prefix: "registry.example/demo", Keys: [][]byte{pemOf(t, k2)}})
	if err != nil || file2 == file {
		t.Fatalf("second key: %s, %v", file2, err)
	}
	wantVerdict(t, l.policy().Judge(testSubject(), sig), ReasonSigned, file)
	removed, err := RemoveRule([]string{l.dir}, "registry.example/demo", k.ID[:20])
	if err != nil || len(removed) != 1 || removed[0] != file {
		t.Fatalf("removed %v, %v", removed, err)
	}
	wantVerdict(t, l.policy().Judge(testSubject(), sig), ReasonUntrusted, file2)
	if _, err := RemoveRule([]string{l.dir}, "registry.example/demo", k.ID); !errors.Is(err, ErrNoRule) {
		t.Errorf("removing twice: %v", err)
	}
	if _, err := RemoveRule([]string{l.dir}, "registry.example/demo", ""); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, l.policy().Judge(testSubject(), sig), ReasonNoRule, "no rule")
}

// One key of several goes by rewriting the rule.
func TestRemoveOneKeyOfMany(t *testing.T) {
	_, k := testKey(t)
	_, k2 := testKey(t)
	l := newLayer(t)
	file, _, err := AddRule([]string{l.dir}, NewRule{Prefix: "registry.example", Keys: [][]byte{pemOf(t, k), pemOf(t, k2)}, Transparency: "if-present"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RemoveRule([]string{l.dir}, "registry.example", k.ID); err != nil {
		t.Fatal(err)
	}
	m := l.policy().Match(testName)
	if len(m.Rules) != 1 || m.Rules[0].File != file || len(m.Rules[0].Keys) != 1 || m.Rules[0].Keys[0].ID != k2.ID || m.Rules[0].Transparency != TransparencyIfPresent {
		t.Errorf("left: %+v", m)
	}
}

// A vendor's rule is masked, never touched.
func TestRemoveVendorRule(t *testing.T) {
	_, k := testKey(t)
	vendor, admin := newLayer(t), newLayer(t)
	vendor.key("k.pub", k)
	vendor.rule("10-vendor.conf", "registry.example", "sigstore-key", "k.pub")
	path := []string{vendor.dir, admin.dir}
	removed, err := RemoveRule(path, "registry.example", "k.pub")
	if err != nil || len(removed) != 1 || removed[0] != filepath.Join(admin.dir, "trust.d/10-vendor.conf") {
		t.Fatalf("removed %v, %v", removed, err)
	}
	if m := loadPolicy(t, path...).Match(testName); m.Decision != DecideNone {
		t.Errorf("still %s", m.Decision)
	}
	if _, err := os.Stat(filepath.Join(vendor.dir, "trust.d/10-vendor.conf")); err != nil {
		t.Error(err)
	}
}

// Guards: a rule that is added beside a vendor's takes no name from it: a file of
// the same name would put the vendor's reject out of force.
func TestAddBesideVendorRule(t *testing.T) {
	_, k := testKey(t)
	vendor, admin := newLayer(t), newLayer(t)
	vendor.rule("50-registry.example.conf", "registry.example", "reject")
	path := []string{vendor.dir, admin.dir}
	if _, _, err := AddRule(path, NewRule{Prefix: "registry.example", Keys: [][]byte{pemOf(t, k)}}); err != nil {
		t.Fatal(err)
	}
	if m := loadPolicy(t, path...).Match(testName); m.Decision != DecideReject || len(m.Rules) != 2 {
		t.Errorf("%s by %d rules", m.Decision, len(m.Rules))
	}
	if _, _, err := AddRule(path, NewRule{Prefix: "registry.example", Accept: "reject"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("what the vendor says already: %v", err)
	}
}

// Guards: keys that are added and removed at the same time are all added and
// removed, each by a process that says so.
func TestEditAtOnce(t *testing.T) {
	const n = 8
	var keys []Key
	var pems [][]byte
	for range 2 * n {
		_, k := testKey(t)
		keys, pems = append(keys, k), append(pems, pemOf(t, k))
	}
	l := newLayer(t)
	path := []string{l.dir}
	if _, _, err := AddRule(path, NewRule{Prefix: "registry.example", Keys: pems[:n]}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			// Each beside the first one, so that all want the same name.
			if _, _, err := AddRule(path, NewRule{Prefix: "registry.example", Keys: [][]byte{pems[n], pems[n+i]}}); err != nil && i != 0 {
				t.Error(err)
			}
		})
		all.Go(func() {
			if i == 0 {
				return
			}
			if _, err := RemoveRule(path, "registry.example", keys[i].ID); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	in := map[string]bool{}
	for _, r := range l.policy().Match(testName).Rules {
		for _, k := range r.Keys {
			in[k.ID] = true
		}
	}
	// Who may only read the rules must not be able to hold the lock.
	if st, err := os.Stat(filepath.Join(l.dir, "trust.d/.lock")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the lock: %v, %v", st, err)
	}
	for i, k := range keys {
		if want := i == 0 || i >= n; in[k.ID] != want {
			t.Errorf("key %d: trusted is %v, want %v", i, in[k.ID], want)
		}
	}
}

// Nothing is written when it makes no sense.
func TestAddRuleRefusals(t *testing.T) {
	_, k := testKey(t)
	pem := pemOf(t, k)
	for name, tt := range map[string]struct {
		r    NewRule
		want string
	}{
		"no key":         {NewRule{Prefix: "a.example"}, "accepts nobody"},
		"bad key":        {NewRule{Prefix: "a.example", Keys: [][]byte{[]byte("x")}}, "no PEM block"},
		"bad prefix":     {NewRule{Prefix: "nginx", Keys: [][]byte{pem}}, "does not begin with a registry"},
		"line in prefix": {NewRule{Prefix: "a.example/x\nAccept=insecure", Keys: [][]byte{pem}}, "is not a component"},
		"insecure star":  {NewRule{Prefix: "*", Accept: "insecure"}, "refused for Prefix=*"},
		"key and reject": {NewRule{Prefix: "a.example", Accept: "reject", Keys: [][]byte{pem}}, "means nothing beside"},
		"for later":      {NewRule{Prefix: "a.example", Accept: "notation"}, "not available"},
		"transparency":   {NewRule{Prefix: "a.example", Keys: [][]byte{pem}, Transparency: "require"}, "not available"},
	} {
		l := newLayer(t)
		if _, _, err := AddRule([]string{l.dir}, tt.r); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if left, _ := filepath.Glob(filepath.Join(l.dir, "trust*/*/*")); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	l := newLayer(t)
	if err := os.Chmod(filepath.Join(l.dir, "trust.d"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, _, err := AddRule([]string{l.dir}, NewRule{Prefix: "a.example", Accept: "reject"}); err == nil || !strings.Contains(err.Error(), "writable by others") {
		t.Errorf("open directory: %v", err)
	}
}

func TestAddRejectBesideKey(t *testing.T) {
	_, k := testKey(t)
	l := newLayer(t)
	if _, _, err := AddRule([]string{l.dir}, NewRule{Prefix: "a.example", Keys: [][]byte{pemOf(t, k)}}); err != nil {
		t.Fatal(err)
	}
	file, _, err := AddRule([]string{l.dir}, NewRule{Prefix: "a.example", Accept: "reject"})
	if err != nil || !strings.HasSuffix(file, "50-a.example-reject.conf") {
		t.Fatalf("%s, %v", file, err)
	}
	if m := l.policy().Match("a.example/x"); m.Decision != DecideReject {
		t.Errorf("%s", m.Decision)
	}
}
