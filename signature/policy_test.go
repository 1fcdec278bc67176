// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	l := newLayer(t)
	_, k := testKey(t)
	l.key("k.pub", k)
	l.rule("10-et.conf", "example.com/et", "sigstore-key", "k.pub")
	l.rule("20-deep.conf", "example.com/et/deep", "reject")
	l.rule("30-port.conf", "example.com:5000", "insecure")
	l.rule("40-oci.conf", "oci:/srv/images", "insecure")
	l.rule("50-hub.conf", "docker.io/library", "sigstore-key", "k.pub")
	l.rule("60-upper.conf", "GHCR.io/acme/", "reject")
	l.rule("70-root.conf", "oci-archive:/", "reject")
	p := l.policy()
	tests := []struct {
		name     string
		decision Decision
		prefix   string
	}{
		{"example.com/et", DecideSignatures, "example.com/et"},
		{"example.com/et/x", DecideSignatures, "example.com/et"},
		{"example.com/et/deep", DecideReject, "example.com/et/deep"},
		{"example.com/et/deep/er", DecideReject, "example.com/et/deep"},
		{"example.com/et/deeper", DecideSignatures, "example.com/et"},
		{"example.com", DecideNone, ""},
		{"example.com/e", DecideNone, ""},
		{"example.com:5000/et", DecideInsecure, "example.com:5000"},
		{"example.com:50001/et", DecideNone, ""},
		{"example.com.evil.org/et", DecideNone, ""},
		{"oci:/srv/images", DecideInsecure, "oci:/srv/images"},
		{"oci:/srv/images/web", DecideInsecure, "oci:/srv/images"},
		{"oci:/srv/images2", DecideNone, ""},
		{"oci-archive:/srv/images/web.tar", DecideReject, "oci-archive:/"},
		{"docker.io/library/nginx", DecideSignatures, "docker.io/library"},
		{"docker.io/libraryx/nginx", DecideNone, ""},
		{"ghcr.io/acme/web", DecideReject, "ghcr.io/acme"},
		{"", DecideNone, ""},
	}
	for _, tt := range tests {
		m := p.Match(tt.name)
		if m.Decision != tt.decision || m.Prefix != tt.prefix {
			t.Errorf("Match(%q) = %s at %q, want %s at %q", tt.name, m.Decision, m.Prefix, tt.decision, tt.prefix)
		}
	}
}

// rkt matched prefixes as strings: keys kept for example.com/et were trusted
// for example.com/etcd.
func TestPrefixEndsAtComponentAsRktDidNot(t *testing.T) {
	priv, k := testKey(t)
	l := newLayer(t)
	l.key("et.pub", k)
	l.rule("50-et.conf", "example.com/et", "sigstore-key", "et.pub")
	sig := bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)
	for name, reason := range map[string]Reason{
		"example.com/et":     ReasonSigned,
		"example.com/et/cd":  ReasonSigned,
		"example.com/etcd":   ReasonNoRule,
		"example.com/et-cd":  ReasonNoRule,
		"example.com/etc/et": ReasonNoRule,
	} {
		s := Subject{Reference: name + ":1", Name: name, Manifest: testManifest}
		if v := l.policy().Judge(s, []Signature{sig}); v.Reason != reason {
			t.Errorf("%s: %s, want %s", name, v.Reason, reason)
		}
	}
}

func TestEmptyPolicyDenies(t *testing.T) {
	priv, _ := testKey(t)
	sig := bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)
	for _, p := range []*Policy{{}, loadPolicy(t), loadPolicy(t, filepath.Join(t.TempDir(), "absent"))} {
		wantVerdict(t, p.Judge(testSubject(), []Signature{sig}), ReasonNoRule, "gantry trust add --prefix "+testName+" KEY.pub")
	}
}

func TestAlternativesAndReject(t *testing.T) {
	a, ka := testKey(t)
	_, kb := testKey(t)
	sig := bundleOf(t, a, statementOf(SignPredicate, testManifest), nil)
	l := newLayer(t)
	l.key("a.pub", ka)
	l.key("b.pub", kb)
	l.rule("10-b.conf", "registry.example", "sigstore-key", "b.pub")
	wantVerdict(t, l.policy().Judge(testSubject(), []Signature{sig}), ReasonUntrusted, "no matching rule")
	l.rule("20-a.conf", "registry.example", "sigstore-key", "a.pub")
	wantVerdict(t, l.policy().Judge(testSubject(), []Signature{sig}), ReasonSigned, "20-a.conf")
	l.rule("30-all.conf", "*", "reject")
	wantVerdict(t, l.policy().Judge(testSubject(), []Signature{sig}), ReasonSigned, "20-a.conf")
	l.rule("30-no.conf", "registry.example", "reject")
	wantVerdict(t, l.policy().Judge(testSubject(), []Signature{sig}), ReasonReject, "30-no.conf")
	// Only the rules of the longest prefix count, also when they are fewer.
	l.rule("40-web.conf", testName, "sigstore-key", "b.pub")
	wantVerdict(t, l.policy().Judge(testSubject(), []Signature{sig}), ReasonUntrusted, "40-web.conf")
	// insecure is an alternative; a signature that counts still goes first.
	l.rule("40-web.conf", testName, "insecure")
	wantVerdict(t, l.policy().Judge(testSubject(), []Signature{sig}), ReasonInsecure, "40-web.conf")
	l.rule("41-web.conf", testName, "sigstore-key", "a.pub")
	wantVerdict(t, l.policy().Judge(testSubject(), []Signature{sig}), ReasonSigned, "41-web.conf")
	if v := l.policy().Judge(testSubject(), []Signature{sig}); v.Insecure {
		t.Error("a signed image is called insecure")
	}
}

// Later layers win by file name; an empty file and a link to /dev/null mask.
func TestLayers(t *testing.T) {
	vendor, run, admin := newLayer(t), newLayer(t), newLayer(t)
	vendor.rule("10-a.conf", "a.example", "reject")
	vendor.rule("20-b.conf", "b.example", "reject")
	vendor.rule("30-c.conf", "c.example", "reject")
	run.rule("10-a.conf", "a.example", "insecure")
	admin.write("trust.d/20-b.conf", "")
	if err := os.Symlink("/dev/null", filepath.Join(admin.dir, "trust.d/30-c.conf")); err != nil {
		t.Fatal(err)
	}
	p := loadPolicy(t, vendor.dir, run.dir, admin.dir)
	for name, want := range map[string]Decision{"a.example/x": DecideInsecure, "b.example/x": DecideNone, "c.example/x": DecideNone} {
		if m := p.Match(name); m.Decision != want {
			t.Errorf("%s: %s, want %s (%v)", name, m.Decision, want, m.Rules)
		}
	}
	// Keys resolve the same way.
	_, old := testKey(t)
	_, fresh := testKey(t)
	vendor.key("k.pub", old)
	admin.key("k.pub", fresh)
	vendor.rule("40-d.conf", "d.example", "sigstore-key", "k.pub")
	m := loadPolicy(t, vendor.dir, run.dir, admin.dir).Match("d.example/x")
	if len(m.Rules) != 1 || m.Rules[0].Keys[0].ID != fresh.ID {
		t.Errorf("the admin's key does not replace the vendor's: %v", m.Rules)
	}
	admin.write("trust/keys/k.pub", "")
	m = loadPolicy(t, vendor.dir, run.dir, admin.dir).Match("d.example/x")
	if m.Decision != DecideClosed || !strings.Contains(m.Rules[0].Problem, "no such key") {
		t.Errorf("a masked key still serves: %v", m)
	}
}

// What is wrong with one file closes its prefix and no other; a file whose
// prefix nobody can tell may have been about any name, so it denies them all.
func TestFailClosedByPrefix(t *testing.T) {
	priv, k := testKey(t)
	sig := bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)
	build := func() layer {
		l := newLayer(t)
		l.key("k.pub", k)
		l.rule("10-good.conf", "registry.example", "sigstore-key", "k.pub")
		return l
	}
	judge := func(l layer) Verdict { return l.policy().Judge(testSubject(), []Signature{sig}) }

	l := build()
	l.write("trust.d/20-bad.conf", "[Trust]\nPrefix=other.example\nAccept=sigstore-key\nKey=k.pub\nColour=red\n")
	wantVerdict(t, judge(l), ReasonSigned, "10-good.conf")
	other := Subject{Reference: "other.example/x", Name: "other.example/x", Manifest: testManifest}
	wantVerdict(t, l.policy().Judge(other, []Signature{sig}), ReasonClosed, "line 5: Colour= is not known")

	l = build()
	l.write("trust.d/20-bad.conf", "[Trust]\nPrefix=registry.example\nAccept=sigstore-key\nKey=absent.pub\n")
	wantVerdict(t, judge(l), ReasonClosed, "Key=absent.pub")

	l = build()
	l.write("trust.d/20-lost.conf", "[Trust]\nPrefx=somewhere.example\nAccept=reject\n")
	wantVerdict(t, judge(l), ReasonClosed, "20-lost.conf, which may be about any image")

	l = build()
	if err := os.Chmod(filepath.Join(l.dir, "trust.d/10-good.conf"), 0o664); err != nil {
		t.Fatal(err)
	}
	l.rule("20-other.conf", "other.example", "sigstore-key", "k.pub")
	wantVerdict(t, judge(l), ReasonClosed, "writable by others, mode 0664 (chmod go-w ")
	wantVerdict(t, l.policy().Judge(other, []Signature{sig}), ReasonSigned, "20-other.conf")

	l = build()
	if err := os.Chmod(filepath.Join(l.dir, "trust/keys/k.pub"), 0o666); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, judge(l), ReasonClosed, "k.pub is writable by others")

	// Whoever may write the directory may have taken a rule away.
	l = build()
	if err := os.Chmod(filepath.Join(l.dir, "trust.d"), 0o777); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, judge(l), ReasonClosed, "trust.d is writable by others, mode 0777")
}

// A file that cannot be believed cannot mask one that can.
func TestUntrustedMask(t *testing.T) {
	vendor, admin := newLayer(t), newLayer(t)
	vendor.rule("10-no.conf", "registry.example", "reject")
	admin.rule("10-no.conf", "elsewhere.example", "insecure")
	if err := os.Chmod(filepath.Join(admin.dir, "trust.d/10-no.conf"), 0o622); err != nil {
		t.Fatal(err)
	}
	p := loadPolicy(t, vendor.dir, admin.dir)
	for _, name := range []string{"registry.example/x", "elsewhere.example/x"} {
		if m := p.Match(name); m.Decision != DecideClosed {
			t.Errorf("%s: %s, want closed", name, m.Decision)
		}
	}
}

func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("ability missing: root, to give a file away")
	}
	l := newLayer(t)
	l.rule("10-a.conf", "registry.example", "insecure")
	if err := os.Chown(filepath.Join(l.dir, "trust.d/10-a.conf"), 1234, -1); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, l.policy().Judge(testSubject(), nil), ReasonClosed, "belongs to user 1234, not to root")
}

// A policy crosses to the confined verifier as JSON and judges there the same.
func TestPolicyJSON(t *testing.T) {
	priv, k := testKey(t)
	p := trusting(t, k)
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var q Policy
	if err := json.Unmarshal(data, &q); err != nil {
		t.Fatal(err)
	}
	if q.Hash() != p.Hash() {
		t.Error("the hash changes on the way")
	}
	sigs := []Signature{bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil), legacyOf(t, priv, "{}")}
	a, b := p.Judge(testSubject(), sigs), q.Judge(testSubject(), sigs)
	if a.Explain() != b.Explain() || !b.Accepted {
		t.Errorf("verdicts differ:\n%s\n%s", a.Explain(), b.Explain())
	}
	data, err = json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var v Verdict
	if err := json.Unmarshal(data, &v); err != nil || v.Explain() != b.Explain() || v.Err() != nil {
		t.Errorf("the verdict changes on the way: %v\n%s", err, v.Explain())
	}
}

func TestHash(t *testing.T) {
	_, k := testKey(t)
	_, k2 := testKey(t)
	l := newLayer(t)
	l.key("k.pub", k)
	l.rule("10-a.conf", "registry.example", "sigstore-key", "k.pub")
	first := l.policy().Hash()
	if again := l.policy().Hash(); again != first {
		t.Error("the hash of one policy changes")
	}
	l.key("k.pub", k2)
	if l.policy().Hash() == first {
		t.Error("another key under the same name has the same hash")
	}
	l.key("k.pub", k)
	l.rule("20-b.conf", "b.example", "reject")
	if l.policy().Hash() == first {
		t.Error("another rule has the same hash")
	}
}

// A key file with two files naming one key, or one rule naming it twice,
// counts one signer: thresholds will count distinct keys.
func TestSignersAreDistinct(t *testing.T) {
	priv, k := testKey(t)
	l := newLayer(t)
	l.key("a.pub", k)
	l.key("b.pub", k)
	l.rule("10-a.conf", "registry.example", "sigstore-key", "a.pub", "b.pub", "a.pub")
	sig := bundleOf(t, priv, statementOf(SignPredicate, testManifest), nil)
	leg := legacyOf(t, priv, simplePayload(testName, testManifest))
	v := l.policy().Judge(testSubject(), []Signature{sig, sig, leg})
	if len(v.By) != 1 || len(v.Keys) != 1 || len(v.Findings) != 3 {
		t.Errorf("%d signers, %d keys, %d findings", len(v.By), len(v.Keys), len(v.Findings))
	}
}
