// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/signature"
	"github.com/gantryrun/gantry/tests/imagetest"
)

// Guards: the whole way, from both kinds of registry, signed in both forms,
// pushed by us and found by us.
func TestFetchSigned(t *testing.T) {
	for _, referrers := range []bool{true, false} {
		for _, legacy := range []bool{true, false} {
			for _, docker := range []bool{true, false} {
				name := fmt.Sprintf("referrers=%v/legacy=%v/docker=%v", referrers, legacy, docker)
				t.Run(name, func(t *testing.T) {
					h, s := newHouse(t), newShop(t, referrers)
					ref := s.put(t, "a/b:v1", sample(t, 3, func(i *imagetest.Image) { i.Docker = docker }))
					h.trust(s.host()+"/a", "sigstore-key")
					h.sign(ref, legacy)
					res, err := h.fetch(ref)
					check(t, err)
					if !res.Fetched || !res.Receipt.Verdict.Accepted || len(res.Receipt.Signatures) != 1 || len(res.Tree.Layers) != 3 {
						t.Fatalf("got %+v", res.Receipt)
					}
					again, err := h.fetch(ref)
					check(t, err)
					if again.Fetched || again.Tree.Image != res.Tree.Image {
						t.Errorf("fetched again, or something else: %+v", again.Tree)
					}
				})
			}
		}
	}
}

// Guards: nothing of an image that is not trusted is asked for beyond its
// manifest, and nothing is kept of it.
func TestUnsignedIsRefusedBeforeItsLayers(t *testing.T) {
	h, s := newHouse(t), newShop(t, true)
	ref := s.put(t, "a/b:v1", sample(t, 2))
	for _, tt := range []struct {
		trust  string
		reason signature.Reason
	}{{"", signature.ReasonNoRule}, {"sigstore-key", signature.ReasonUnsigned}} {
		if tt.trust != "" {
			h.trust(s.host()+"/a", tt.trust)
		}
		_, err := h.fetch(ref)
		var r *signature.Refusal
		if !errors.As(err, &r) || r.Verdict.Reason != tt.reason {
			t.Fatalf("got %v, want %s", err, tt.reason)
		}
		if n := s.count("GET", "/blobs/"); n != 0 {
			t.Errorf("%d blobs were asked for", n)
		}
		h.nothingNamed(ref)
	}
}

// Guards: a signature by somebody else's key, and one made for another image.
func TestSignatureOfAnotherIsRefused(t *testing.T) {
	h, other, s := newHouse(t), newHouse(t), newShop(t, true)
	ref := s.put(t, "a/b:v1", sample(t, 1))
	h.trust(s.host(), "sigstore-key")
	other.sign(ref, false)
	other.sign(ref, true)
	if _, err := h.fetch(ref); !errors.Is(err, signature.ErrUntrusted) {
		t.Fatalf("got %v", err)
	}
	h.nothingNamed(ref)
}

// Guards: a signature on the index, or on the manifest of our platform, does;
// one on another platform's does not.
func TestIndexSignatures(t *testing.T) {
	for _, tt := range []struct {
		name string
		sign func(x, ours, theirs imagetest.Packed) digest.Digest
		good bool
	}{
		{"index", func(x, _, _ imagetest.Packed) digest.Digest { return x.Manifest.Descriptor.Digest }, true},
		{"chosen", func(_, o, _ imagetest.Packed) digest.Digest { return o.Manifest.Descriptor.Digest }, true},
		{"other", func(_, _, a imagetest.Packed) digest.Digest { return a.Manifest.Descriptor.Digest }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, s := newHouse(t), newShop(t, true)
			ours := sample(t, 1)
			theirs := sample(t, 2, func(i *imagetest.Image) {
				i.Config.Platform = ispec.Platform{OS: "linux", Architecture: "arm64"}
			})
			s.put(t, "a/b:ours", ours)
			s.put(t, "a/b:theirs", theirs)
			x := index(t, ours, theirs)
			s.manifest(t, "a/b", "v1", x.Manifest.Descriptor.MediaType, x.Manifest.Bytes)
			h.trust(s.host(), "sigstore-key")
			ref := s.host() + "/a/b:v1"
			h.sign(s.host()+"/a/b@"+string(tt.sign(x, ours, theirs)), false)
			res, err := h.fetch(ref)
			if (err == nil) != tt.good {
				t.Fatalf("got %v", err)
			}
			if err == nil && (res.Image.Index != x.Manifest.Descriptor.Digest || res.Image.ManifestDescriptor.Digest != ours.Manifest.Descriptor.Digest) {
				t.Errorf("got index %s, manifest %s", res.Image.Index, res.Image.ManifestDescriptor.Digest)
			}
		})
	}
}

func index(t *testing.T, images ...imagetest.Packed) imagetest.Packed {
	x := ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex}
	for _, p := range images {
		d := p.Manifest.Descriptor
		d.Platform = &p.Platform
		x.Manifests = append(x.Manifests, d)
	}
	b, err := json.Marshal(x)
	check(t, err)
	return imagetest.Packed{Manifest: imagetest.Blob{Bytes: b, Descriptor: ispec.Descriptor{
		MediaType: x.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b)),
	}}}
}

// Guards: the message when the platform is not among those of the index.
func TestPlatformMissing(t *testing.T) {
	h, s := newHouse(t), newShop(t, true)
	arm := sample(t, 1, func(i *imagetest.Image) { i.Config.Platform = ispec.Platform{OS: "linux", Architecture: "arm64"} })
	s.put(t, "a/b:arm", arm)
	x := index(t, arm)
	s.manifest(t, "a/b", "v1", x.Manifest.Descriptor.MediaType, x.Manifest.Bytes)
	h.trust(s.host(), "insecure")
	_, err := h.fetch(s.host() + "/a/b:v1")
	if err == nil || !strings.Contains(err.Error(), "linux/arm64") {
		t.Fatalf("got %v", err)
	}
}

// Guards: --insecure-options=image warns each time, is written down, and does
// not make the image trusted afterwards.
func TestInsecureImage(t *testing.T) {
	h, s := newHouse(t), newShop(t, true)
	ref := s.put(t, "a/b:v1", sample(t, 1))
	insecure := func(r *Request) { r.Insecure.Image = true }
	for range 2 {
		res, err := h.fetch(ref, insecure)
		check(t, err)
		if !res.Receipt.Insecure || res.Receipt.Verdict.Accepted {
			t.Errorf("receipt %+v", res.Receipt)
		}
	}
	if n := strings.Count(h.lines.String(), "warning"); n != 2 {
		t.Errorf("%d warnings: %s", n, h.lines)
	}
	if _, err := h.fetch(ref); !errors.Is(err, signature.ErrUntrusted) {
		t.Fatalf("without the option: %v", err)
	}
}

// Guards: what each pull policy asks of the source.
func TestPullPolicies(t *testing.T) {
	h, s := newHouse(t), newShop(t, true)
	ref := s.put(t, "a/b:v1", sample(t, 1))
	h.trust(s.host(), "insecure")
	pull := func(p Pull) func(*Request) { return func(r *Request) { r.Pull = p } }
	if _, err := h.fetch(ref, pull(Never)); !errors.Is(err, ErrNever) {
		t.Fatalf("never, not here: %v", err)
	}
	first, err := h.fetch(ref, pull(Missing))
	check(t, err)
	before := s.count("")
	for _, p := range []Pull{Never, Missing} {
		res, err := h.fetch(ref, pull(p))
		check(t, err)
		if res.Fetched || s.count("") != before {
			t.Errorf("%s asked the registry", p)
		}
	}
	for _, p := range []Pull{Always, Newer} {
		res, err := h.fetch(ref, pull(p))
		check(t, err)
		if res.Fetched || s.count("GET", "/blobs/") != 2 {
			t.Errorf("%s fetched what was here", p)
		}
	}
	s.put(t, "a/b:v1", sample(t, 2))
	for _, p := range []Pull{Missing, Never} {
		res, err := h.fetch(ref, pull(p))
		check(t, err)
		if res.Image.Descriptor.Digest != first.Image.Descriptor.Digest {
			t.Errorf("%s took the new one", p)
		}
	}
	res, err := h.fetch(ref, pull(Newer))
	check(t, err)
	if !res.Fetched || res.Image.Descriptor.Digest == first.Image.Descriptor.Digest {
		t.Error("newer did not take the new one")
	}
	s.Close()
	if _, err := h.fetch(ref, pull(Newer)); err != nil {
		t.Errorf("newer without a registry: %v", err)
	}
	if _, err := h.fetch(ref, pull(Always)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("always without a registry: %v", err)
	}
}

// Guards: removing a key un-trusts what is here, and adding it again trusts
// it without the network.
func TestPolicyChangeIsJudgedFromTheReceipt(t *testing.T) {
	h, s := newHouse(t), newShop(t, true)
	ref := s.put(t, "a/b:v1", sample(t, 1))
	h.trust(s.host()+"/a", "sigstore-key")
	h.sign(ref, false)
	_, err := h.fetch(ref)
	check(t, err)
	s.Close()
	_, err = signature.RemoveRule([]string{h.conf}, s.host()+"/a", "")
	check(t, err)
	never := func(r *Request) { r.Pull = Never }
	if _, err := h.fetch(ref, never); !errors.Is(err, signature.ErrUntrusted) {
		t.Fatalf("without the rule: %v", err)
	}
	h.trust(s.host(), "sigstore-key")
	if _, err := h.fetch(ref, never); err != nil {
		t.Fatalf("with another rule: %v", err)
	}
}

// Guards: many fetches of one image at once do the work once.
func TestConcurrentFetchesWorkOnce(t *testing.T) {
	h, s := newHouse(t), newShop(t, true)
	p := sample(t, 4)
	ref := s.put(t, "a/b:v1", p)
	h.trust(s.host(), "insecure")
	requests := make([]Request, 4)
	for i := range requests {
		requests[i] = h.request(ref)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(requests))
	for i, r := range requests {
		wg.Go(func() { _, errs[i] = Fetch(t.Context(), r) })
	}
	wg.Wait()
	check(t, errors.Join(errs...))
	for _, b := range p.Blobs[:4] {
		if n := s.count("GET", b.Descriptor.Digest.String()); n != 1 {
			t.Errorf("layer %s was fetched %d times", b.Descriptor.Digest, n)
		}
	}
}

// Guards: a layer used twice, and layers another image brought, are not
// fetched again; a configuration that lies about them is found out.
func TestSharedLayers(t *testing.T) {
	h, s := newHouse(t), newShop(t, true)
	h.trust(s.host(), "insecure")
	twice := sample(t, 1, func(i *imagetest.Image) { i.Layers = append(i.Layers, i.Layers[0]) })
	res, err := h.fetch(s.put(t, "a/b:v1", twice))
	check(t, err)
	if len(res.Tree.Layers) != 2 || s.count("GET", twice.Blobs[0].Descriptor.Digest.String()) != 1 {
		t.Errorf("%d layers, %d requests", len(res.Tree.Layers), s.count("GET", "/blobs/"))
	}
	lies := sample(t, 1, func(i *imagetest.Image) {
		i.EditConfig = func(b []byte) []byte {
			var c ispec.Image
			check(t, json.Unmarshal(b, &c))
			c.RootFS.DiffIDs[0] = digest.FromString("something else")
			b, err := json.Marshal(c)
			check(t, err)
			return b
		}
	})
	ref := s.put(t, "a/b:v2", lies)
	if _, err := h.fetch(ref); err == nil || !strings.Contains(err.Error(), "diff ID") {
		t.Errorf("converted before: %v", err)
	}
	if _, err := newHouseLike(h).fetch(ref); err == nil || !strings.Contains(strings.ToLower(err.Error()), "diff") {
		t.Errorf("never seen: %v", err)
	}
	h.nothingNamed(ref)
}

// newHouseLike has an empty store and the same policy.
func newHouseLike(h *house) *house {
	o := *h
	o.dir = h.t.TempDir()
	return &o
}

// Guards: a registry that has a referrers endpoint in name only (400, 406,
// an HTML page) is asked for the fallback tag.
func TestReferrersFallback(t *testing.T) {
	for _, answer := range []int{400, 404, 405, 406, 200} {
		t.Run(fmt.Sprint(answer), func(t *testing.T) {
			h, s := newHouse(t), newShop(t, false)
			ref := s.put(t, "a/b:v1", sample(t, 1))
			h.trust(s.host(), "sigstore-key")
			h.sign(ref, false)
			s.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/referrers/") {
					return false
				}
				w.Header().Set("Content-Type", "text/html")
				w.WriteHeader(answer)
				fmt.Fprint(w, "<html>no such thing</html>")
				return true
			})
			_, err := h.fetch(ref)
			check(t, err)
		})
	}
}
