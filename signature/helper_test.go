// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

var update = flag.Bool("update", false, "rewrite golden files")

const testName = "registry.example/demo/hello"

var (
	testManifest = digest.FromString("manifest")
	testIndex    = digest.FromString("index")
)

// layer is one configuration layer under test.
type layer struct {
	t   testing.TB
	dir string
}

func newLayer(t testing.TB) layer {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Join(dir, "trust.d"), filepath.Join(dir, "trust"), filepath.Join(dir, "trust/keys")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil { // whatever the umask
			t.Fatal(err)
		}
	}
	return layer{t, dir}
}

func (l layer) write(name, text string) {
	l.t.Helper()
	file := filepath.Join(l.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l layer) rule(name, prefix, accept string, keys ...string) {
	l.t.Helper()
	text := fmt.Sprintf("[Trust]\nPrefix=%s\nAccept=%s\n", prefix, accept)
	for _, k := range keys {
		text += "Key=" + k + "\n"
	}
	l.write("trust.d/"+name, text)
}

func (l layer) key(name string, k Key) {
	l.t.Helper()
	pem, err := k.PEM()
	if err != nil {
		l.t.Fatal(err)
	}
	l.write("trust/keys/"+name, string(pem))
}

func (l layer) policy() *Policy { return loadPolicy(l.t, l.dir) }

func loadPolicy(t testing.TB, configPath ...string) *Policy {
	t.Helper()
	p, err := LoadPolicy(configPath)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// testKey makes a key pair and its public form.
func testKey(t testing.TB) (*ecdsa.PrivateKey, Key) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKey(priv.Public())
	if err != nil {
		t.Fatal(err)
	}
	return priv, k
}

func signWith(t testing.TB, key *ecdsa.PrivateKey, msg []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(msg)
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func statementOf(predicate string, d digest.Digest) string {
	return fmt.Sprintf(`{"_type":%q,"subject":[{"digest":{%q:%q}}],"predicateType":%q,"predicate":{}}`,
		StatementType, d.Algorithm(), d.Encoded(), predicate)
}

// bundleOf signs any payload; edit may spoil the bundle afterwards.
func bundleOf(t testing.TB, key *ecdsa.PrivateKey, payload string, edit func(b map[string]any)) Signature {
	t.Helper()
	sig := signWith(t, key, PAE(PayloadType, []byte(payload)))
	k, err := NewKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	b := map[string]any{
		"mediaType":            BundleType,
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": k.Hint()}},
		"dsseEnvelope": map[string]any{
			"payload":     base64.StdEncoding.EncodeToString([]byte(payload)),
			"payloadType": PayloadType,
			"signatures":  []any{map[string]any{"sig": base64.StdEncoding.EncodeToString(sig)}},
		},
	}
	if edit != nil {
		edit(b)
	}
	data, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return Signature{Format: FormatBundle, Digest: testManifest, Payload: data}
}

func simplePayload(ref string, d digest.Digest) string {
	return fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, ref, d)
}

func legacyOf(t testing.TB, key *ecdsa.PrivateKey, payload string) Signature {
	t.Helper()
	return Signature{Format: FormatLegacy, Digest: testManifest, Payload: []byte(payload), Annotations: map[string]string{
		AnnotationSignature: base64.StdEncoding.EncodeToString(signWith(t, key, []byte(payload))),
	}}
}

func testSubject() Subject {
	return Subject{Reference: testName + ":v1", Name: testName, Manifest: testManifest}
}

// trusting is a policy with one rule for testName's key.
func trusting(t testing.TB, k Key) *Policy {
	t.Helper()
	l := newLayer(t)
	l.key("acme.pub", k)
	l.rule("50-acme.conf", "registry.example", "sigstore-key", "acme.pub")
	return l.policy()
}

// golden compares text, with the directory of the test and the keys' names
// made constant.
func golden(t *testing.T, name, got string, constant ...string) {
	t.Helper()
	got = strings.NewReplacer(constant...).Replace(got) + "\n"
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n--- want\n%s--- got\n%s", file, want, got)
	}
}

func wantVerdict(t *testing.T, v Verdict, reason Reason, text string) {
	t.Helper()
	if v.Reason != reason || !strings.Contains(v.Explain(), text) {
		t.Errorf("verdict %s, want %s naming %q:\n%s", v.Reason, reason, text, v.Explain())
	}
	if accepted := reason == ReasonSigned || reason == ReasonInsecure; v.Accepted != accepted || (v.Err() == nil) != accepted {
		t.Errorf("accepted %v, error %v under reason %s", v.Accepted, v.Err(), reason)
	}
}
