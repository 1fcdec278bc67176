// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/signature"
	"github.com/gantryrun/gantry/signature/sign"
	"github.com/gantryrun/gantry/tests/imagetest"
)

// house is a state directory, a policy directory and a key pair.
type house struct {
	t       testing.TB
	dir     string
	conf    string
	libexec string
	key     crypto.Signer
	pub     []byte
	lines   *lines
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), conf: t.TempDir(), libexec: libexec(t, "good"), lines: &lines{}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	check(t, err)
	h.key, h.pub = key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("DOCKER_CONFIG", "")
	return h
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// trust writes a rule for a prefix.
func (h *house) trust(prefix, accept string) {
	h.t.Helper()
	r := signature.NewRule{Prefix: prefix, Accept: accept}
	if accept == "sigstore-key" {
		r.Keys = [][]byte{h.pub}
	}
	_, _, err := signature.AddRule([]string{h.conf}, r)
	check(h.t, err)
}

// request opens the house for one fetch.
func (h *house) request(ref string) Request {
	h.t.Helper()
	r := Request{Libexec: h.libexec, Progress: h.lines, Platform: ispec.Platform{OS: "linux", Architecture: "amd64"}}
	var err error
	r.Ref, err = image.Parse(ref)
	check(h.t, err)
	r.Policy, err = signature.LoadPolicy([]string{h.conf})
	check(h.t, err)
	key, err := signature.HostKey(filepath.Join(h.dir, "host.key"))
	check(h.t, err)
	r.Store, err = store.Open(filepath.Join(h.dir, "store"))
	check(h.t, err)
	h.t.Cleanup(func() { r.Store.Close() })
	r.Trees, err = tree.Open(filepath.Join(h.dir, "trees"), key)
	check(h.t, err)
	h.t.Cleanup(func() { r.Trees.Close() })
	r.Receipts, err = signature.OpenReceiptsWithKey(filepath.Join(h.dir, "receipts"), key)
	check(h.t, err)
	h.t.Cleanup(func() { r.Receipts.Close() })
	return r
}

func (h *house) fetch(ref string, edits ...func(*Request)) (Result, error) {
	h.t.Helper()
	r := h.request(ref)
	for _, e := range edits {
		e(&r)
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Minute)
	defer cancel()
	return Fetch(ctx, r)
}

// sign attaches a signature the way gantry sign does.
func (h *house) sign(ref string, legacy bool) {
	h.t.Helper()
	r := h.request(ref)
	d, err := Resolve(h.t.Context(), r)
	check(h.t, err)
	tag := ""
	if legacy {
		tag = sign.LegacyTag(d.Digest)
	}
	check(h.t, Attach(h.t.Context(), r, tag, func(existing []byte) (Attachment, error) {
		a, err := h.artifact(r.Ref, d, legacy, existing)
		return attachment(a), err
	}))
}

func (h *house) artifact(ref image.Reference, d ispec.Descriptor, legacy bool, existing []byte) (sign.Artifact, error) {
	if !legacy {
		b, err := sign.Bundle(h.key, d.Digest)
		if err != nil {
			return sign.Artifact{}, err
		}
		return sign.BundleManifest(b, d, time.Unix(1700000000, 0))
	}
	payload, annotations, err := sign.Legacy(h.key, ref.Name(), d.Digest)
	if err != nil {
		return sign.Artifact{}, err
	}
	return sign.LegacyManifest(existing, payload, annotations, d.Digest)
}

func attachment(a sign.Artifact) Attachment {
	out := Attachment{Manifest: Content(a.Manifest), Tag: a.Tag}
	for _, b := range a.Blobs {
		out.Blobs = append(out.Blobs, Content(b))
	}
	return out
}

// nothingNamed makes sure that a failed fetch left nothing that could be run,
// and no temporary file of a living process.
func (h *house) nothingNamed(ref string) {
	h.t.Helper()
	r := h.request(ref)
	if d, err := r.Store.Resolve(r.Ref); err == nil {
		h.t.Errorf("%s is tagged %s", ref, d.Digest)
	}
	list, err := r.Receipts.List()
	check(h.t, err)
	for _, rc := range list {
		if rc.Reference == r.Ref.String() {
			h.t.Errorf("%s has a receipt", ref)
		}
	}
}

// lines records what people would see.
type lines struct {
	mu   sync.Mutex
	text []string
	seen map[digest.Digest][]Phase
}

func (l *lines) Line(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, s)
}

func (l *lines) Layer(d digest.Digest, _, _ int64, p Phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[digest.Digest][]Phase{}
	}
	if s := l.seen[d]; len(s) == 0 || s[len(s)-1] != p {
		l.seen[d] = append(s, p)
	}
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.text, "\n")
}

// shop is a registry on loopback whose every request is logged and may be
// spoiled.
type shop struct {
	*httptest.Server
	mu    sync.Mutex
	log   []string
	inner http.Handler
	spoil func(w http.ResponseWriter, r *http.Request) bool
}

func newShop(t testing.TB, referrers bool) *shop {
	t.Helper()
	s := &shop{inner: ggcr.New(ggcr.WithReferrersSupport(referrers), ggcr.Logger(log.New(io.Discard, "", 0)))}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.log = append(s.log, r.Method+" "+r.URL.Path)
	spoil := s.spoil
	s.mu.Unlock()
	if spoil == nil || !spoil(w, r) {
		s.inner.ServeHTTP(w, r)
	}
}

// spoiled sets what is asked before the registry; true means answered.
func (s *shop) spoiled(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoil = f
}

// count tells how many requests had all these words.
func (s *shop) count(words ...string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
next:
	for _, l := range s.log {
		for _, w := range words {
			if !strings.Contains(l, w) {
				continue next
			}
		}
		n++
	}
	return n
}

func (s *shop) host() string { return strings.TrimPrefix(s.URL, "http://") }

// put stores an image under name:tag.
func (s *shop) put(t testing.TB, name string, p imagetest.Packed) string {
	t.Helper()
	repo, tag, _ := strings.Cut(name, ":")
	for _, b := range p.Blobs {
		s.blob(t, repo, b.Bytes)
	}
	s.manifest(t, repo, tag, p.Manifest.Descriptor.MediaType, p.Manifest.Bytes)
	return s.host() + "/" + name
}

func (s *shop) blob(t testing.TB, repo string, b []byte) {
	t.Helper()
	url := fmt.Sprintf("%s/v2/%s/blobs/uploads/?digest=%s", s.URL, repo, digest.FromBytes(b))
	send(t, http.MethodPost, url, "application/octet-stream", b)
}

func (s *shop) manifest(t testing.TB, repo, ref, mediaType string, b []byte) {
	t.Helper()
	send(t, http.MethodPut, fmt.Sprintf("%s/v2/%s/manifests/%s", s.URL, repo, ref), mediaType, b)
}

func send(t testing.TB, method, url, mediaType string, b []byte) {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(b))
	check(t, err)
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %s %s", method, url, resp.Status, body)
	}
}

// sample is an image of n small layers.
func sample(t testing.TB, n int, edits ...func(*imagetest.Image)) imagetest.Packed {
	t.Helper()
	img := imagetest.Image{}
	img.Config.Config.Cmd = []string{"/bin/x"}
	kinds := []string{"gzip", "zstd", ""}
	for i := range n {
		body := bytes.Repeat([]byte{byte(i), 'x', byte(i * 7)}, 40_000)
		img.Layers = append(img.Layers, imagetest.Layer{Compression: kinds[i%3], Files: []imagetest.File{
			imagetest.Dir("d", 0o755), {Path: fmt.Sprintf("d/file%d", i), Mode: 0o644, Body: body},
		}})
	}
	for _, e := range edits {
		e(&img)
	}
	p, err := img.Pack()
	check(t, err)
	return p
}

// bundleIn returns a directory's file names, for before and after.
func filesBelow(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	check(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			out = append(out, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	}))
	return out
}
