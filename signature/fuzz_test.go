// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/internal/conf"
)

// addFixtures seeds a corpus with every file of the fixtures.
func addFixtures(f *testing.F, keep func(path string) bool) {
	f.Helper()
	err := filepath.WalkDir(fixtures, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !keep(path) {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			f.Add(data)
		}
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
}

// Whatever a policy file holds, it yields rules that either hold whole or deny,
// and never accept without proof by accident.
func FuzzPolicyFile(f *testing.F) {
	for _, s := range []string{
		"[Trust]\nPrefix=registry.example\nAccept=sigstore-key\nKey=k.pub\nTransparency=if-present\nSignedAs=other.example\n",
		"[Trust]\nPrefix=*\nAccept=reject\n", "[Trust]\nPrefix=oci:/srv/x\nAccept=insecure\n", "[Trust]\nPrefix=*\nAccept=insecure\n",
		"# only a comment\n", "[Trust\n", "=\n", "[Trust]\nPrefix=a.b\nPrefix=c.d\n", "\xff", "[Trust]\r\n",
	} {
		f.Add([]byte(s))
	}
	_, k := testKey(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		sections, err := conf.Parse(data)
		keys := keyring{reader: conf.NewReader(nil), seen: map[string]keyResult{"k.pub": {key: k}}}
		rules := parseRule(conf.File{Name: "x.conf", Path: "/x.conf", Sections: sections, Problem: err}, &keys)
		if len(rules) == 0 {
			t.Fatal("a file that is there says nothing")
		}
		for _, r := range rules {
			if again, err := CanonicalPrefix(r.Prefix); r.Prefix != unknownPrefix && (err != nil || again != r.Prefix) {
				t.Errorf("prefix %q is not canonical: %q, %v", r.Prefix, again, err)
			}
			if r.Problem != "" {
				continue
			}
			if r.Accept == AcceptInsecure && r.Prefix == everything || r.Accept == AcceptKey && len(r.Keys) == 0 || r.Accept == "" {
				t.Errorf("rule holds: %+v", r)
			}
		}
		p := &Policy{rules: rules}
		s := Subject{Reference: "unrelated.example/x", Name: "unrelated.example/x", Manifest: testManifest}
		if v := p.Judge(s, nil); v.Accepted && (v.Reason != ReasonInsecure || matchLength(s.Name, rules[0].Prefix) <= 0) {
			t.Errorf("accepted: %s", v.Explain())
		}
		if _, err := json.Marshal(p); err != nil {
			t.Error(err)
		}
	})
}

// No bytes make a bundle count but those a trusted key signed for the image.
func FuzzBundle(f *testing.F) {
	addFixtures(f, func(p string) bool { return strings.Contains(p, "bundle-") || strings.Contains(p, "attestation") })
	img := loadImage(f)
	p := fixturePolicy(f, img, "p256.pub")
	genuine := map[string]bool{}
	for _, name := range []string{"bundle-p256", "bundle-annotated"} {
		genuine[payloadOf(f, loadFixture(f, name, img.Manifest)[0].Payload)] = true
	}
	genuine[payloadOf(f, loadFixture(f, "bundle-index", img.Index)[0].Payload)] = true
	f.Fuzz(func(t *testing.T, data []byte) {
		v := p.Judge(img.subject(), []Signature{{Format: FormatBundle, Digest: img.Manifest, Payload: data}})
		if v.Accepted && !genuine[payloadOf(t, data)] {
			t.Errorf("accepted: %s", data)
		}
		safe(t, v.Explain())
	})
}

func payloadOf(t testing.TB, bundle []byte) string {
	t.Helper()
	var b struct {
		DSSEEnvelope struct{ Payload string }
	}
	if err := json.Unmarshal(bundle, &b); err != nil {
		t.Fatal(err)
	}
	return b.DSSEEnvelope.Payload
}

// safe checks that a text can be shown on a terminal.
func safe(t *testing.T, s string) {
	t.Helper()
	for _, r := range s {
		if r != '\n' && (r < ' ' || r == 0x7f || isFormat(r)) {
			t.Errorf("%q gets to the terminal", r)
		}
	}
}

// A payload that reads as simple signing names exactly one digest and one
// repository, and parses to the same with its members encoded again.
func FuzzSimpleSigning(f *testing.F) {
	addFixtures(f, func(p string) bool { return strings.Contains(p, "legacy-") })
	f.Add([]byte(simplePayload(testName, testManifest)))
	f.Fuzz(func(t *testing.T, data []byte) {
		ref, dgst, err := readSimple(data)
		if err != nil {
			return
		}
		var again struct {
			Critical struct {
				Identity map[string]string
				Image    map[string]string
				Type     string
			}
		}
		if err := json.Unmarshal(data, &again); err != nil {
			t.Fatalf("encoding/json reads it otherwise: %v", err)
		}
		if again.Critical.Identity["docker-reference"] != ref || again.Critical.Image["docker-manifest-digest"] != dgst || again.Critical.Type != legacyCritical {
			t.Errorf("two readers see two things in %q", data)
		}
		repositoryOf(ref)
	})
}

// Manifests from a registry.
func FuzzReadAttached(f *testing.F) {
	addFixtures(f, func(p string) bool { return strings.HasSuffix(p, "manifest.json") })
	img := loadImage(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := ReadAttached(data, img.Manifest)
		if err == nil && (len(found) == 0 || len(found) > MaxSignatures) {
			t.Errorf("%d signatures", len(found))
		}
		for _, a := range found {
			if a.Blob.Size < 0 || a.Blob.Size > MaxSignature || a.Signature.Digest != img.Manifest {
				t.Errorf("%+v", a)
			}
		}
	})
}

// No bytes pass for a receipt but those that were sealed.
func FuzzReceipt(f *testing.F) {
	// The same bytes in every process of the fuzzer: nothing here is random.
	img := loadImage(f)
	r := Receipt{Reference: img.Name + ":v1", Name: img.Name, Manifest: img.Manifest, Signatures: loadFixture(f, "bundle-p256", img.Manifest)}
	key := make([]byte, hostKeySize)
	good, err := encodeReceipt(key, r)
	if err != nil {
		f.Fatal(err)
	}
	other, err := encodeReceipt([]byte(strings.Repeat("k", hostKeySize)), r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(other)
	f.Add([]byte(fileHead))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := decodeReceipt(key, data); err == nil && string(data) != string(good) {
			t.Error("a forgery is read")
		}
	})
}

func FuzzParseKey(f *testing.F) {
	addFixtures(f, func(p string) bool { return strings.Contains(p, "keys/") })
	f.Add([]byte(rsa1024))
	f.Add([]byte(p224))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseKey(data)
		if err != nil {
			return
		}
		text, err := k.PEM()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseKey(text)
		if err != nil || again.ID != k.ID || again.Kind != k.Kind {
			t.Errorf("%+v reads back as %+v, %v", k, again, err)
		}
		k.verify([]byte("message"), data[:min(len(data), 72)])
	})
}
