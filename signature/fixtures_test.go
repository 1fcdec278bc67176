// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// The fixtures were signed by the real cosign; tests/fixtures/cosign/make.sh
// makes them.
const fixtures = "testdata/cosign"

type fixtureImage struct {
	Name                   string
	Manifest, Index, Other digest.Digest
}

func loadImage(t testing.TB) fixtureImage {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(fixtures, "image.json"))
	if err != nil {
		t.Fatal(err)
	}
	var i fixtureImage
	if err := json.Unmarshal(data, &i); err != nil {
		t.Fatal(err)
	}
	return i
}

func (i fixtureImage) subject() Subject {
	return Subject{Reference: i.Name + ":v1", Name: i.Name, Index: i.Index, Manifest: i.Manifest}
}

// loadFixture reads a signature manifest and its payloads as a fetch would.
func loadFixture(t testing.TB, name string, attached digest.Digest) []Signature {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join(fixtures, name, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	found, err := ReadAttached(manifest, attached)
	if err != nil {
		t.Fatal(err)
	}
	var sigs []Signature
	for _, a := range found {
		payload, err := os.ReadFile(filepath.Join(fixtures, name, a.Blob.Digest.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		if digest.FromBytes(payload) != a.Blob.Digest || int64(len(payload)) != a.Blob.Size {
			t.Fatalf("fixture %s: payload does not match its descriptor", name)
		}
		a.Signature.Payload = payload
		sigs = append(sigs, a.Signature)
	}
	return sigs
}

// fixtureKey copies a fixture's public key into a layer.
func fixtureKey(t testing.TB, l layer, name string) {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(fixtures, "keys", name))
	if err != nil {
		t.Fatal(err)
	}
	l.write("trust/keys/"+name, string(pem))
}

func fixturePolicy(t testing.TB, i fixtureImage, key string) *Policy {
	t.Helper()
	l := newLayer(t)
	fixtureKey(t, l, key)
	host, _, _ := strings.Cut(i.Name, "/")
	l.rule("50-demo.conf", host+"/demo", "sigstore-key", key)
	return l.policy()
}

// Everything real cosign signs with a trusted key counts, whatever the form
// and the kind of key, and everything else it signs does not.
func TestRealCosign(t *testing.T) {
	img := loadImage(t)
	tests := []struct {
		name, key string
		attached  digest.Digest
		reason    Reason
		text      string
	}{
		{"bundle-p256", "p256.pub", img.Manifest, ReasonSigned, "sigstore bundle"},
		{"bundle-p384", "p384.pub", img.Manifest, ReasonSigned, "sigstore bundle"},
		{"bundle-p521", "p521.pub", img.Manifest, ReasonSigned, "sigstore bundle"},
		{"bundle-ed25519", "ed25519.pub", img.Manifest, ReasonSigned, "sigstore bundle"},
		{"bundle-rsa2048", "rsa2048.pub", img.Manifest, ReasonSigned, "sigstore bundle"},
		{"bundle-annotated", "p256.pub", img.Manifest, ReasonSigned, "sigstore bundle"},
		{"bundle-index", "p256.pub", img.Index, ReasonSigned, "sigstore bundle"},
		{"bundle-stranger", "p256.pub", img.Manifest, ReasonUntrusted, "signed with a key that is in no matching rule (it calls itself sha256:"},
		{"bundle-other", "p256.pub", img.Other, ReasonUntrusted, "attached to " + img.Other.String()},
		{"attestation", "p256.pub", img.Manifest, ReasonUntrusted, "does not sign it"},
		{"legacy-p256", "p256.pub", img.Manifest, ReasonSigned, "simple signing"},
		{"legacy-p384", "p384.pub", img.Manifest, ReasonSigned, "simple signing"},
		{"legacy-p521", "p521.pub", img.Manifest, ReasonSigned, "simple signing"},
		{"legacy-ed25519", "ed25519.pub", img.Manifest, ReasonSigned, "simple signing"},
		{"legacy-rsa2048", "rsa2048.pub", img.Manifest, ReasonSigned, "simple signing"},
		{"legacy-two", "stranger.pub", img.Manifest, ReasonSigned, "no matching rule"},
		{"legacy-referrer", "p256.pub", img.Manifest, ReasonSigned, "simple signing"},
		{"legacy-other", "p256.pub", img.Manifest, ReasonUntrusted, "it signs " + img.Other.String()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := fixturePolicy(t, img, tt.key).Judge(img.subject(), loadFixture(t, tt.name, tt.attached))
			wantVerdict(t, v, tt.reason, tt.text)
		})
	}
}

// A bundle of another image's digest does not count even when a registry
// serves it as a referrer of this one.
func TestRealCosignForeignDigest(t *testing.T) {
	img := loadImage(t)
	sigs := loadFixture(t, "bundle-other", img.Other)
	sigs[0].Digest = img.Manifest
	v := fixturePolicy(t, img, "p256.pub").Judge(img.subject(), sigs)
	wantVerdict(t, v, ReasonUntrusted, "but it signs "+img.Other.String())
}

// A reference by child digest has no index: a signature on the index that
// also lists the child is no signature of it.
func TestRealCosignChildByDigest(t *testing.T) {
	img := loadImage(t)
	s := img.subject()
	s.Index = ""
	v := fixturePolicy(t, img, "p256.pub").Judge(s, loadFixture(t, "bundle-index", img.Index))
	wantVerdict(t, v, ReasonUntrusted, "which is not this image")
}

// Legacy payloads name a repository; the same digest under another name is
// refused unless the rule says what it was signed as.
func TestRealCosignMirror(t *testing.T) {
	img := loadImage(t)
	sigs := loadFixture(t, "legacy-p256", img.Manifest)
	s := img.subject()
	s.Name, s.Reference = "mirror.example/cache/demo/hello", "mirror.example/cache/demo/hello:v1"
	l := newLayer(t)
	fixtureKey(t, l, "p256.pub")
	l.rule("50-mirror.conf", "mirror.example/cache", "sigstore-key", "p256.pub")
	wantVerdict(t, l.policy().Judge(s, sigs), ReasonUntrusted, "it signs the repository "+img.Name)

	host, _, _ := strings.Cut(img.Name, "/")
	l.write("trust.d/50-mirror.conf", "[Trust]\nPrefix=mirror.example/cache\nAccept=sigstore-key\nKey=p256.pub\nSignedAs="+host+"\n")
	wantVerdict(t, l.policy().Judge(s, sigs), ReasonSigned, "simple signing")
}

// Any flipped byte of a signed payload or of its signature takes the trust
// away. What may change freely is listed: the hint, which only orders keys.
func TestEveryFlippedByteOfABundle(t *testing.T) {
	img := loadImage(t)
	p := fixturePolicy(t, img, "p256.pub")
	sig := loadFixture(t, "bundle-p256", img.Manifest)[0]
	sig.Manifest = nil // its digest would catch every flip before the signature does
	hint := strings.Index(string(sig.Payload), `"hint":"`) + len(`"hint":"`)
	hintEnd := hint + strings.IndexByte(string(sig.Payload[hint:]), '"')
	for i := range sig.Payload {
		flipped := sig
		flipped.Payload = append([]byte(nil), sig.Payload...)
		flipped.Payload[i] ^= 1
		if p.Judge(img.subject(), []Signature{flipped}).Accepted && (i < hint || i >= hintEnd) {
			t.Errorf("flipping byte %d (%q) of the bundle is accepted", i, sig.Payload[i])
		}
	}
}
