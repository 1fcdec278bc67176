// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/signature"
)

// cosign finds the real one, or skips.
func cosign(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GANTRY_TEST_BIN")
	if home, err := os.UserHomeDir(); dir == "" && err == nil {
		dir = filepath.Join(home, ".cache/gantry-test/bin")
	}
	if p, err := exec.LookPath(filepath.Join(dir, "cosign")); err == nil {
		return p
	}
	if p, err := exec.LookPath("cosign"); err == nil {
		return p
	}
	t.Skip("ability missing: cosign 3 in $GANTRY_TEST_BIN or ~/.cache/gantry-test/bin")
	return ""
}

// remote is a repository of an in-process registry.
type remote struct {
	t    *testing.T
	host string
}

const repo = "demo/hello"

func newRemote(t *testing.T, referrers bool) remote {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.WithReferrersSupport(referrers), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return remote{t, strings.TrimPrefix(s.URL, "http://")}
}

func (r remote) name() string { return r.host + "/" + repo }

func (r remote) do(method, path, mediaType string, body []byte) []byte {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.host+"/v2/"+repo+path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		r.t.Fatalf("%s %s: %s %v %s", method, path, res.Status, err, data)
	}
	return data
}

func (r remote) blob(b Blob) {
	r.t.Helper()
	r.do("POST", "/blobs/uploads/?digest="+b.Descriptor.Digest.String(), "application/octet-stream", b.Bytes)
}

func (r remote) manifest(ref string, b Blob) {
	r.t.Helper()
	r.do("PUT", "/manifests/"+ref, b.Descriptor.MediaType, b.Bytes)
}

// push stores an artifact as whoever calls this package does.
func (r remote) push(a Artifact) {
	r.t.Helper()
	for _, b := range a.Blobs {
		r.blob(b)
	}
	ref := a.Tag
	if ref == "" {
		ref = a.Manifest.Descriptor.Digest.String()
	}
	r.manifest(ref, a.Manifest)
}

// image pushes the smallest image there is, and returns its descriptor.
func (r remote) image() ispec.Descriptor {
	r.t.Helper()
	config := blob(ispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`))
	data, err := json.Marshal(ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest,
		Config: config.Descriptor, Layers: []ispec.Descriptor{},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	m := blob(ispec.MediaTypeImageManifest, data)
	r.blob(config)
	r.manifest("v1", m)
	return m.Descriptor
}

func run(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=secret", "TUF_ROOT="+dir, "HOME="+dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// What we sign, real cosign verifies; and it refuses what it should, so that
// its yes means something. Both registries, both forms.
func TestRealCosignVerifiesOurs(t *testing.T) {
	bin := cosign(t)
	for _, referrers := range []bool{true, false} {
		for _, form := range []string{"bundle", "legacy"} {
			t.Run(fmt.Sprintf("%s,referrers=%v", form, referrers), func(t *testing.T) {
				dir := t.TempDir()
				r := newRemote(t, referrers)
				d := r.image()
				priv, pub, err := Keygen([]byte("secret"))
				if err != nil {
					t.Fatal(err)
				}
				key, err := LoadKey(priv, []byte("secret"))
				if err != nil {
					t.Fatal(err)
				}
				_, stranger, err := Keygen(nil)
				if err != nil {
					t.Fatal(err)
				}
				r.signOurs(form, key, d, !referrers)
				verify := func(pub []byte) (string, error) {
					if err := os.WriteFile(filepath.Join(dir, "k.pub"), pub, 0o600); err != nil {
						t.Fatal(err)
					}
					return run(t, dir, bin, "verify", "--key", "k.pub", "--insecure-ignore-tlog=true", "--allow-http-registry", r.name()+"@"+d.Digest.String())
				}
				if out, err := verify(pub); err != nil {
					t.Errorf("cosign verify: %v\n%s", err, out)
				}
				if out, err := verify(stranger); err == nil {
					t.Errorf("cosign verifies with a stranger's key:\n%s", out)
				}
			})
		}
	}
}

func (r remote) signOurs(form string, key crypto.Signer, d ispec.Descriptor, fallback bool) {
	r.t.Helper()
	if form == "legacy" {
		payload, ann, err := Legacy(key, r.name(), d.Digest)
		if err != nil {
			r.t.Fatal(err)
		}
		a, err := LegacyManifest(nil, payload, ann, d.Digest)
		if err != nil {
			r.t.Fatal(err)
		}
		r.push(a)
		return
	}
	b, err := Bundle(key, d.Digest)
	if err != nil {
		r.t.Fatal(err)
	}
	a, err := BundleManifest(b, d, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	r.push(a)
	if fallback {
		x, err := FallbackIndex(nil, a.Manifest.Descriptor)
		if err != nil {
			r.t.Fatal(err)
		}
		r.manifest(FallbackTag(d.Digest), x)
	}
}

// What real cosign signs with a key that we made, we accept, and its signature
// joins ours instead of replacing it.
func TestOursAcceptsRealCosign(t *testing.T) {
	bin := cosign(t)
	dir := t.TempDir()
	r := newRemote(t, true)
	d := r.image()
	priv, pub, err := Keygen([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"k.key": priv, "empty.json": []byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, err := LoadKey(priv, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	r.signOurs("bundle", key, d, false)
	out, err := run(t, dir, bin, "sign", "--yes", "--key", "k.key", "--signing-config", "empty.json", "--allow-http-registry", r.name()+"@"+d.Digest.String())
	if err != nil {
		t.Fatalf("cosign sign: %v\n%s", err, out)
	}
	k, err := signature.ParseKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	p := policyFor(t, r.host, pub)
	s := signature.Subject{Reference: r.name() + ":v1", Name: r.name(), Manifest: d.Digest}
	v := p.Judge(s, r.referrers(d.Digest))
	if !v.Accepted || v.By[0].KeyID != k.ID || len(v.Findings) != 2 || !v.Findings[0].Counts || !v.Findings[1].Counts {
		t.Errorf("%s", v.Explain())
	}
}

func policyFor(t *testing.T, prefix string, pub []byte) *signature.Policy {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := signature.AddRule([]string{dir}, signature.NewRule{Prefix: prefix, Keys: [][]byte{pub}}); err != nil {
		t.Fatal(err)
	}
	p, err := signature.LoadPolicy([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (r remote) referrers(d digest.Digest) []signature.Signature {
	r.t.Helper()
	var x ispec.Index
	if err := json.Unmarshal(r.do("GET", "/referrers/"+d.String(), "", nil), &x); err != nil {
		r.t.Fatal(err)
	}
	var sigs []signature.Signature
	for _, m := range signature.Order(x.Manifests) {
		found, err := signature.ReadAttached(r.do("GET", "/manifests/"+m.Digest.String(), "", nil), d)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, a := range found {
			a.Signature.Payload = r.do("GET", "/blobs/"+a.Blob.Digest.String(), "", nil)
			sigs = append(sigs, a.Signature)
		}
	}
	return sigs
}

// cosign verify hashes with SHA-256 whatever the curve, and takes Ed25519 in
// its pure form, although cosign sign pairs P-384 with SHA-384 and uses
// Ed25519ph: it refuses what it signed itself with such keys. We sign what it
// verifies, and accept both.
func TestRealCosignVerifiesEveryKindOfKey(t *testing.T) {
	bin := cosign(t)
	dir := t.TempDir()
	r := newRemote(t, true)
	d := r.image()
	all := keys(t)
	for _, key := range all {
		r.signOurs("bundle", key, d, false)
	}
	for name, key := range all {
		pub, err := Public(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), pub, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := run(t, dir, bin, "verify", "--key", name, "--insecure-ignore-tlog=true", "--allow-http-registry", r.name()+"@"+d.Digest.String()); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
