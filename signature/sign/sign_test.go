// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/signature"
)

var subject = ispec.Descriptor{MediaType: ispec.MediaTypeImageManifest, Digest: digest.FromString("image"), Size: 5}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// keys is one key of every kind we sign with.
func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"p256": p256(t), "p384": p384, "p521": p521, "ed25519": ed, "rsa2048": r}
}

// policy trusts one key for registry.example.
func policy(t testing.TB, key crypto.Signer) *signature.Policy {
	t.Helper()
	pub, err := Public(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := signature.AddRule([]string{dir}, signature.NewRule{Prefix: "registry.example", Keys: [][]byte{pub}}); err != nil {
		t.Fatal(err)
	}
	p, err := signature.LoadPolicy([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// attached reads an artifact back as a fetch would.
func attached(t testing.TB, a Artifact) []signature.Signature {
	t.Helper()
	found, err := signature.ReadAttached(a.Manifest.Bytes, subject.Digest)
	if err != nil {
		t.Fatal(err)
	}
	var sigs []signature.Signature
	for _, f := range found {
		for _, b := range a.Blobs {
			if b.Descriptor.Digest == f.Blob.Digest {
				f.Signature.Payload = b.Bytes
			}
		}
		if f.Signature.Payload != nil {
			sigs = append(sigs, f.Signature)
		}
	}
	return sigs
}

func judge(p *signature.Policy, sigs []signature.Signature) signature.Verdict {
	const name = "registry.example/demo"
	return p.Judge(signature.Subject{Reference: name + ":1", Name: name, Manifest: subject.Digest}, sigs)
}

func TestSignAndJudge(t *testing.T) {
	for name, key := range keys(t) {
		t.Run(name, func(t *testing.T) {
			p := policy(t, key)
			b, err := Bundle(key, subject.Digest)
			if err != nil {
				t.Fatal(err)
			}
			a, err := BundleManifest(b, subject, time.Unix(1790000000, 0))
			if err != nil {
				t.Fatal(err)
			}
			if v := judge(p, attached(t, a)); !v.Accepted {
				t.Error(v.Err())
			}
			payload, ann, err := Legacy(key, "registry.example/demo", subject.Digest)
			if err != nil {
				t.Fatal(err)
			}
			if a, err = LegacyManifest(nil, payload, ann, subject.Digest); err != nil {
				t.Fatal(err)
			}
			if v := judge(p, attached(t, a)); !v.Accepted {
				t.Error(v.Err())
			}
			if want := "sha256-" + subject.Digest.Encoded() + ".sig"; a.Tag != want {
				t.Errorf("tag %s, want %s", a.Tag, want)
			}
		})
	}
}

// A second signer joins the first, in both places that several share.
func TestSecondSigner(t *testing.T) {
	one, two := p256(t), p256(t)
	var manifest []byte
	var a Artifact
	for _, key := range []crypto.Signer{one, two} {
		payload, ann, err := Legacy(key, "registry.example/demo", subject.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if a, err = LegacyManifest(manifest, payload, ann, subject.Digest); err != nil {
			t.Fatal(err)
		}
		manifest = a.Manifest.Bytes
	}
	for _, key := range []crypto.Signer{one, two} {
		if v := judge(policy(t, key), attached(t, a)); !v.Accepted || len(v.Findings) != 2 {
			t.Errorf("%v", v.Explain())
		}
	}

	var index []byte
	for i, key := range []crypto.Signer{one, two, two} {
		b, err := Bundle(key, subject.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			b = nil // the same referrer again
		}
		a, err := BundleManifest(b, subject, time.Unix(int64(i), 0))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			x, err := FallbackIndex(index, a.Manifest.Descriptor)
			if err != nil {
				t.Fatal(err)
			}
			index = x.Bytes
		}
	}
	var x ispec.Index
	if err := json.Unmarshal(index, &x); err != nil || len(x.Manifests) != 3 || x.Manifests[0].ArtifactType != signature.BundleType {
		t.Errorf("%v: %s", err, index)
	}
	if _, err := FallbackIndex(a.Manifest.Bytes, a.Manifest.Descriptor); err == nil {
		t.Error("a manifest is taken for the fallback index")
	}
	if _, err := LegacyManifest(index, nil, nil, subject.Digest); err == nil {
		t.Error("an index is taken for the .sig manifest")
	}
}

// What we write has the bytes cosign writes, but for keys, digests and times.
func TestSameShapeAsCosign(t *testing.T) {
	const dir = "testdata/cosign/"
	var img struct{ Name, Manifest string }
	read(t, dir+"image.json", &img)
	key := fixtureKey(t, "p256")
	manifest := digest.Digest(img.Manifest)

	var theirs ispec.Manifest
	read(t, dir+"bundle-p256/manifest.json", &theirs)
	theirBundle := readFile(t, dir+"bundle-p256/"+theirs.Layers[0].Digest.Encoded())
	ours, err := Bundle(key, manifest)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := withoutSig(t, string(ours)), withoutSig(t, string(theirBundle)); a != b {
		t.Errorf("bundle:\n%s\n%s", a, b)
	}
	a, err := BundleManifest(ours, *theirs.Subject, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var mine ispec.Manifest
	if err := json.Unmarshal(a.Manifest.Bytes, &mine); err != nil {
		t.Fatal(err)
	}
	mine.Layers[0].Digest, mine.Layers[0].Size = theirs.Layers[0].Digest, theirs.Layers[0].Size
	mine.Annotations[ispec.AnnotationCreated] = theirs.Annotations[ispec.AnnotationCreated]
	theirs.Config.ArtifactType = "" // cosign repeats it there; the specification has it on the manifest
	if got, want := encode(t, mine), encode(t, theirs); got != want {
		t.Errorf("bundle manifest:\n%s\n%s", got, want)
	}

	theirs = ispec.Manifest{}
	read(t, dir+"legacy-p256/manifest.json", &theirs)
	theirPayload := readFile(t, dir+"legacy-p256/"+theirs.Layers[0].Digest.Encoded())
	payload, ann, err := Legacy(key, img.Name, manifest)
	if err != nil || string(payload) != string(theirPayload) {
		t.Errorf("payload: %v\n%s\n%s", err, payload, theirPayload)
	}
	if a, err = LegacyManifest(nil, payload, ann, manifest); err != nil {
		t.Fatal(err)
	}
	mine = ispec.Manifest{}
	if err := json.Unmarshal(a.Manifest.Bytes, &mine); err != nil {
		t.Fatal(err)
	}
	mine.Layers[0].Annotations = theirs.Layers[0].Annotations
	if got, want := encode(t, mine), encode(t, theirs); got != want {
		t.Errorf("legacy manifest:\n%s\n%s", got, want)
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// withoutSig blanks the one part of a bundle that is random.
func withoutSig(t *testing.T, s string) string {
	t.Helper()
	head, _, ok := strings.Cut(s, `"sig":"`)
	if !ok {
		t.Fatalf("no signature in %s", s)
	}
	return head
}

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func read(t *testing.T, file string, v any) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, file), v); err != nil {
		t.Fatal(err)
	}
}

func fixtureKey(t *testing.T, name string) crypto.Signer {
	t.Helper()
	key, err := LoadKey(readFile(t, filepath.Join("testdata/cosign/keys", name+".key")), []byte("fixture"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Keys that real cosign made and encrypted are read, with the right password.
func TestKeysOfRealCosign(t *testing.T) {
	for _, name := range []string{"p256", "ed25519"} {
		pub, err := Public(fixtureKey(t, name))
		if err != nil || string(pub) != string(readFile(t, filepath.Join("testdata/cosign/keys", name+".pub"))) {
			t.Errorf("%s: %v\n%s", name, err, pub)
		}
	}
	data := readFile(t, "testdata/cosign/keys/p256.key")
	if _, err := LoadKey(data, []byte("wrong")); !errors.Is(err, ErrPassword) {
		t.Errorf("wrong password: %v", err)
	}
	older := strings.ReplaceAll(string(data), "SIGSTORE", "COSIGN")
	if _, err := LoadKey([]byte(older), []byte("fixture")); err != nil {
		t.Errorf("older PEM type: %v", err)
	}
}

func TestKeygen(t *testing.T) {
	for _, pass := range []string{"", "open sesame"} {
		priv, pub, err := Keygen([]byte(pass))
		if err != nil {
			t.Fatal(err)
		}
		if !Encrypted(priv) || Encrypted(pub) {
			t.Error("Encrypted mistakes the halves")
		}
		key, err := LoadKey(priv, []byte(pass))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Public(key); err != nil || string(again) != string(pub) {
			t.Errorf("%v: %s, want %s", err, again, pub)
		}
		if _, err := LoadKey(priv, []byte(pass+"x")); !errors.Is(err, ErrPassword) {
			t.Errorf("wrong password: %v", err)
		}
	}
}

func TestLoadKeyRefusals(t *testing.T) {
	priv, pub, err := Keygen(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(priv)
	spoil := func(from, to string) []byte {
		b := *block
		b.Bytes = []byte(strings.Replace(string(block.Bytes), from, to, 1))
		return pem.EncodeToMemory(&b)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(small)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":       {nil, "no PEM block"},
		"public":        {pub, "this is a public key"},
		"old EC":        {[]byte("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"), "convert it with openssl pkcs8"},
		"other":         {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "is not a private key"},
		"huge":          {make([]byte, maxKeyPEM+1), "at most"},
		"not JSON":      {spoil("{", "["), "decrypt private key"},
		"kdf":           {spoil("scrypt", "argon2"), "is not scrypt"},
		"cipher":        {spoil("nacl/secretbox", "rot13"), "is not nacl/secretbox"},
		"greedy scrypt": {spoil("65536", "1073741824"), "N=1073741824 r=8 p=1 are not accepted"},
		"wide scrypt":   {spoil(`"r":8`, `"r":80`), "are not accepted"},
		"nonce":         {spoil(`"nonce":"`, `"nonce":"AAAA`), "nonce of 27 bytes"},
		"weak RSA":      {pem.EncodeToMemory(&pem.Block{Type: pemPKCS8, Bytes: der}), "RSA of 1024 bits"},
	} {
		if _, err := LoadKey(tt.data, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	plain, err := x509.MarshalPKCS8PrivateKey(p256(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(pem.EncodeToMemory(&pem.Block{Type: pemPKCS8, Bytes: plain}), nil); err != nil {
		t.Errorf("plain PKCS #8: %v", err)
	}
}

func TestSignRefusesBadDigests(t *testing.T) {
	for _, d := range []digest.Digest{"", "sha256:x", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../../etc"} {
		if _, err := Bundle(p256(t), d); err == nil {
			t.Errorf("bundle of %q", d)
		}
		if _, _, err := Legacy(p256(t), "registry.example/demo", d); err == nil {
			t.Errorf("legacy of %q", d)
		}
	}
}

func FuzzLoadKey(f *testing.F) {
	for _, name := range []string{"p256.key", "ed25519.key", "p256.pub"} {
		data, err := os.ReadFile(filepath.Join("testdata/cosign/keys", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := LoadKey(data, []byte("fixture"))
		if err != nil {
			return
		}
		if _, err := Public(key); err != nil {
			t.Errorf("a key that was read has no public half: %v", err)
		}
	})
}
