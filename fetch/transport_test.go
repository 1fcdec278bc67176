// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gantryrun/gantry/tests/imagetest"
)

func pemOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// login writes a credential for a host.
func login(t *testing.T, host, user, password string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "auth.json")
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	check(t, os.WriteFile(f, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, auth), 0o600))
	return f
}

// thief is another host: it remembers what credentials it was shown.
type thief struct {
	*httptest.Server
	mu    sync.Mutex
	shown []string
	asked int
}

func newThief(t *testing.T, tls bool, answer http.HandlerFunc) *thief {
	th := &thief{}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		th.mu.Lock()
		th.asked++
		if v := r.Header.Get("Authorization"); v != "" {
			th.shown = append(th.shown, v)
		}
		_ = r.ParseForm()
		if v := r.Form.Get("password"); v != "" {
			th.shown = append(th.shown, v)
		}
		th.mu.Unlock()
		answer(w, r)
	})
	if tls {
		th.Server = httptest.NewTLSServer(h)
	} else {
		th.Server = httptest.NewServer(h)
	}
	t.Cleanup(th.Close)
	return th
}

// basic demands a password for everything.
func basic(inner http.HandlerFunc) func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, ok := r.BasicAuth(); !ok || user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if inner == nil {
			return false
		}
		inner(w, r)
		return true
	}
}

// Guards: basic authentication from the file named, and the message when it
// is wrong or missing, which names the file that was looked at.
func TestBasicAuthentication(t *testing.T) {
	s := newShop(t, true)
	h, ref := trusting(t, s), s.put(t, "a/b:v1", sample(t, 1))
	s.spoiled(basic(nil))
	good, bad := login(t, s.host(), "me", "secret"), login(t, s.host(), "me", "wrong")
	other := login(t, "elsewhere.example", "me", "secret")
	for file, want := range map[string]string{bad: bad, other: "no credential for " + s.host(), "": "no credential file"} {
		_, err := h.fetch(ref, func(r *Request) { r.AuthFile = file })
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "wrong") {
			t.Errorf("with %q: %v", file, err)
		}
	}
	_, err := h.fetch(ref, func(r *Request) { r.AuthFile = good })
	check(t, err)
}

// Guards: a credential goes to the registry it is for and not to where the
// registry redirects a blob to: another host, or another port of it.
func TestCVE_2020_15157_NoCredentialAcrossRedirects(t *testing.T) {
	p := sample(t, 1)
	elsewhere := newThief(t, false, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(p.Blobs[0].Bytes) })
	s := newShop(t, true)
	h, ref := trusting(t, s), s.put(t, "a/b:v1", p)
	digest := p.Blobs[0].Descriptor.Digest.String()
	s.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
		if basic(nil)(w, r) {
			return true
		}
		if strings.HasSuffix(r.URL.Path, digest) {
			http.Redirect(w, r, elsewhere.URL+"/blob", http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	_, err := h.fetch(ref, func(r *Request) { r.AuthFile = login(t, s.host(), "me", "secret") })
	check(t, err)
	if elsewhere.asked == 0 || len(elsewhere.shown) != 0 {
		t.Errorf("asked %d times, shown %q", elsewhere.asked, elsewhere.shown)
	}
}

// Guards: the urls of a foreign layer are never followed.
func TestCVE_2020_15157_ForeignLayerURLs(t *testing.T) {
	th := newThief(t, false, func(w http.ResponseWriter, r *http.Request) {})
	s := newShop(t, true)
	p := sample(t, 1, func(i *imagetest.Image) {
		i.EditManifest = func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"layers":[{`, `"layers":[{"urls":["`+th.URL+`/x"],`, 1))
		}
	})
	h, ref := trusting(t, s), s.put(t, "a/b:v1", p)
	_, err := h.fetch(ref, func(r *Request) { r.AuthFile = login(t, s.host(), "me", "secret") })
	if err == nil || th.asked != 0 {
		t.Errorf("%d requests, error %v", th.asked, err)
	}
}

// Guards: a token server over http, named by a registry over https, gets
// nothing.
func TestCVE_2019_10214_NoCredentialToPlainRealm(t *testing.T) {
	th := newThief(t, false, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"token":"x"}`) })
	realmTest(t, th, true)
}

// Guards: a token server at an address of this host or of a cloud's metadata
// service is not asked, whoever names it.
func TestRealmSSRF(t *testing.T) {
	for _, realm := range []string{"http://169.254.169.254/latest", "https://[fe80::1]/token", "file:///etc/passwd", "http://0.0.0.0:80/"} {
		t.Run(realm, func(t *testing.T) {
			s := newShop(t, true)
			h, ref := trusting(t, s), s.put(t, "a/b:v1", sample(t, 1))
			s.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="x"`, realm))
				w.WriteHeader(http.StatusUnauthorized)
				return true
			})
			_, err := h.fetch(ref, func(r *Request) { r.AuthFile = login(t, s.host(), "me", "secret") })
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
		})
	}
}

func realmTest(t *testing.T, th *thief, secure bool) {
	t.Helper()
	registry := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, th.URL))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(registry.Close)
	host := strings.TrimPrefix(registry.URL, "https://")
	h := newHouse(t)
	h.trust(host, "insecure")
	_, err := h.fetch(host+"/a/b:v1", func(r *Request) {
		r.Insecure.TLS = secure
		r.AuthFile = login(t, host, "me", "secret")
	})
	if err == nil || len(th.shown) != 0 {
		t.Errorf("shown %q, error %v", th.shown, err)
	}
}

// Guards: a token from the server the registry names, on another port, is
// used for the registry; a redirect of the token request does not take the
// password along.
func TestTokenAuthentication(t *testing.T) {
	p := sample(t, 2)
	th := newThief(t, false, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"token":"stolen"}`) })
	for _, redirect := range []bool{false, true} {
		t.Run(fmt.Sprintf("redirect=%v", redirect), func(t *testing.T) {
			tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if redirect {
					http.Redirect(w, r, th.URL+"/token", http.StatusTemporaryRedirect)
					return
				}
				if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				fmt.Fprint(w, `{"token":"good"}`)
			}))
			t.Cleanup(tokens.Close)
			s := newShop(t, true)
			h, ref := trusting(t, s), s.put(t, "a/b:v1", p)
			s.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Authorization") == "Bearer good" {
					return false
				}
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x",scope="repository:a/b:pull"`, tokens.URL))
				w.WriteHeader(http.StatusUnauthorized)
				return true
			})
			_, err := h.fetch(ref, func(r *Request) { r.AuthFile = login(t, s.host(), "me", "secret") })
			if (err == nil) == redirect || len(th.shown) != 0 {
				t.Errorf("error %v, the thief was shown %q", err, th.shown)
			}
		})
	}
}

// Guards: a registry over https cannot send us to http.
func TestCVE_2025_24976_NoDowngrade(t *testing.T) {
	th := newThief(t, false, func(w http.ResponseWriter, r *http.Request) {})
	registry := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, th.URL+r.URL.Path, http.StatusFound)
	}))
	t.Cleanup(registry.Close)
	host := strings.TrimPrefix(registry.URL, "https://")
	h := newHouse(t)
	h.trust(host, "insecure")
	_, err := h.fetch(host+"/a/b:v1", func(r *Request) { r.Insecure.TLS = true })
	if err == nil || th.asked != 0 || !strings.Contains(err.Error(), "away from https") {
		t.Errorf("%d requests, error %v", th.asked, err)
	}
}

// Guards: a document that is a manifest and an index at once is neither.
func TestCVE_2021_41190_ManifestIndexConfusion(t *testing.T) {
	s := newShop(t, true)
	p := sample(t, 1, func(i *imagetest.Image) {
		i.EditManifest = func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"layers":`, `"manifests":[],"layers":`, 1))
		}
	})
	h, ref := trusting(t, s), s.put(t, "a/b:v1", p)
	_, err := h.fetch(ref)
	if err == nil || !strings.Contains(err.Error(), "both") {
		t.Errorf("got %v", err)
	}
	h.nothingNamed(ref)
}

// Guards: a digest that is a path never becomes one.
func TestCVE_2024_3727_DigestIsAPath(t *testing.T) {
	s := newShop(t, true)
	p := sample(t, 1)
	layer := p.Blobs[0].Descriptor.Digest.String()
	p.Manifest.Bytes = []byte(strings.Replace(string(p.Manifest.Bytes), layer, "sha256:../../../../../../../../etc/passwd", 1))
	h, ref := trusting(t, s), s.host()+"/a/b:v1"
	s.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", p.Manifest.Descriptor.MediaType)
		_, _ = w.Write(p.Manifest.Bytes)
		return true
	})
	_, err := h.fetch(ref)
	if err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("got %v", err)
	}
	if n := s.count("/blobs/"); n != 0 {
		t.Errorf("%d blobs asked for", n)
	}
}

// Guards: the forms credentials are written in, and helpers named in the
// message.
func TestCredentialFiles(t *testing.T) {
	write := func(text string) string {
		f := filepath.Join(t.TempDir(), "config.json")
		check(t, os.WriteFile(f, []byte(text), 0o600))
		return f
	}
	me := base64.StdEncoding.EncodeToString([]byte("me:se:cret"))
	for name, tt := range map[string]struct{ text, host, repo, user, wrong string }{
		"plain":            {`{"auths":{"ghcr.io":{"auth":"` + me + `"}}}`, "ghcr.io", "a/b", "me", ""},
		"hub as docker":    {`{"auths":{"https://index.docker.io/v1/":{"auth":"` + me + `"}}}`, "docker.io", "library/x", "me", ""},
		"another host":     {`{"auths":{"ghcr.io.evil.org":{"auth":"` + me + `"}}}`, "ghcr.io", "a/b", "", ""},
		"another port":     {`{"auths":{"ghcr.io:444":{"auth":"` + me + `"}}}`, "ghcr.io", "a/b", "", ""},
		"prefix":           {`{"auths":{"ghcr.io":{"username":"all"},"ghcr.io/a":{"auth":"` + me + `"}}}`, "ghcr.io", "a/b", "me", ""},
		"prefix of a name": {`{"auths":{"ghcr.io/a":{"auth":"` + me + `"}}}`, "ghcr.io", "ab/c", "", ""},
		"helper":           {`{"credHelpers":{"ghcr.io":"pass"}}`, "ghcr.io", "a/b", "", "docker-credential-pass"},
		"store":            {`{"credsStore":"pass","auths":{"ghcr.io":{}}}`, "ghcr.io", "a/b", "", "docker-credential-pass"},
		"store of others":  {`{"credsStore":"pass","auths":{"quay.io":{}}}`, "ghcr.io", "a/b", "", ""},
		"not base64":       {`{"auths":{"ghcr.io":{"auth":"%%"}}}`, "ghcr.io", "a/b", "", "base64"},
		"not JSON":         {`auths`, "ghcr.io", "a/b", "", "config.json"},
	} {
		c, err := findCredentials(t.Context(), write(tt.text), tt.host, tt.repo)
		if (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) || c.Username != tt.user {
			t.Errorf("%s: got %q, %v", name, c.Username, err)
		}
		if c.Username == "me" && c.Password != "se:cret" {
			t.Errorf("%s: password %q", name, c.Password)
		}
	}
	_, err := findCredentials(t.Context(), "/nonexistent", "ghcr.io", "a")
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was named and is missing: %v", err)
	}
}
