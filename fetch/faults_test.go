// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantryrun/gantry/tests/imagetest"
)

// bigSample has one layer that does not fit into any buffer on the way.
func bigSample(t testing.TB) imagetest.Packed {
	noise := make([]byte, 3<<19)
	x := uint32(1)
	for i := range noise {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	return sample(t, 0, func(i *imagetest.Image) {
		i.Layers = []imagetest.Layer{{Compression: "gzip", Files: []imagetest.File{{Path: "noise", Mode: 0o644, Body: noise}}}}
	})
}

// trusting is a house that takes anything: these tests are about transport.
func trusting(t *testing.T, s *shop) *house {
	h := newHouse(t)
	h.trust(s.host(), "insecure")
	return h
}

// Guards: a connection that is cut, again and again, is taken up at the byte
// where it was; a server that knows no ranges starts over; the result is whole.
func TestCutConnections(t *testing.T) {
	p := bigSample(t)
	layer := p.Blobs[0]
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprintf("ranges=%v", ranges), func(t *testing.T) {
			s := newShop(t, true)
			h, ref := trusting(t, s), s.put(t, "a/b:v1", p)
			var asked []string
			s.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, layer.Descriptor.Digest.String()) || r.Method != http.MethodGet {
					return false
				}
				asked = append(asked, r.Header.Get("Range"))
				cut(w, r, layer.Bytes, ranges, len(asked) < 4)
				return true
			})
			_, err := h.fetch(ref)
			check(t, err)
			if len(asked) != 4 || asked[0] != "" || !strings.HasPrefix(asked[1], "bytes=") || asked[1] == "bytes=0-" {
				t.Errorf("ranges asked for: %q", asked)
			}
		})
	}
}

// cut sends a third of what is left and hangs up.
func cut(w http.ResponseWriter, r *http.Request, b []byte, ranges, hangUp bool) {
	from := 0
	if v := r.Header.Get("Range"); ranges && v != "" {
		from, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(v, "bytes="), "-"))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
		w.Header().Set("Content-Length", strconv.Itoa(len(b)-from))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	}
	rest := b[from:]
	if hangUp {
		_, _ = w.Write(rest[:len(rest)/3])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(rest)
}

// Guards: everything a registry can send in place of what it should. Each is
// refused with a sentence that names it, and nothing is left.
func TestWrongContent(t *testing.T) {
	p := bigSample(t)
	layer, config, manifest := p.Blobs[0], p.Blobs[1], p.Manifest
	body := func(b []byte, header ...string) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			_, _ = w.Write(b)
		}
	}
	flipped := bytes.Clone(layer.Bytes)
	flipped[len(flipped)/2] ^= 1
	pinned := "@" + manifest.Descriptor.Digest.String()
	for name, tt := range map[string]struct {
		path, ref string
		answer    func(w http.ResponseWriter, r *http.Request)
		want      string
	}{
		"layer with a flipped bit": {layer.Descriptor.Digest.String(), ":v1", body(flipped), "digest"},
		"layer too short":          {layer.Descriptor.Digest.String(), ":v1", body(layer.Bytes[:1000]), "the manifest says"},
		"layer too long": {layer.Descriptor.Digest.String(), ":v1", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(layer.Bytes)
			w.(http.Flusher).Flush()
			_, _ = w.Write([]byte("more"))
		}, "more than"},
		"layer without end": {layer.Descriptor.Digest.String(), ":v1", func(w http.ResponseWriter, r *http.Request) {
			for _, err := w.Write(layer.Bytes); err == nil; _, err = w.Write(layer.Bytes) {
			}
		}, "more than"},
		"config of another":          {config.Descriptor.Digest.String(), ":v1", body(bytes.Repeat([]byte("x"), len(config.Bytes))), "wrong digest"},
		"manifest of another digest": {"/manifests/", pinned, body([]byte(`{"schemaVersion":2,"layers":[]}`), "Content-Type", manifest.Descriptor.MediaType), "wrong digest"},
		"manifest without end": {"/manifests/", ":v1", func(w http.ResponseWriter, r *http.Request) {
			for _, err := w.Write(layer.Bytes); err == nil; _, err = w.Write(layer.Bytes) {
			}
		}, "more than"},
		"manifest of another type":       {"/manifests/", ":v1", body(manifest.Bytes, "Content-Type", imagetest.DockerManifest), "handed over as"},
		"page instead of a manifest":     {"/manifests/", ":v1", body([]byte("<html>log in</html>"), "Content-Type", "text/html"), "JSON"},
		"range of another offset":        {layer.Descriptor.Digest.String(), ":v1", oddRange(layer.Bytes), "answered range"},
		"no such tag":                    {"/manifests/", ":v1", status(404, ""), "no such image or tag"},
		"forbidden":                      {"/manifests/", ":v1", status(403, `{"errors":[{"code":"DENIED","message":"not for you"}]}`), "not for you"},
		"internal error":                 {"/manifests/", ":v1", status(501, ""), "501"},
		"escape sequences in an message": {"/manifests/", ":v1", status(403, `{"errors":[{"code":"DENIED","message":"\u001b[2J\u0007hello"}]}`), "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, true)
			h := trusting(t, s)
			ref := strings.TrimSuffix(s.put(t, "a/b:v1", p), ":v1") + tt.ref
			s.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, tt.path) {
					return false
				}
				tt.answer(w, r)
				return true
			})
			_, err := h.fetch(ref)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q in it", err, tt.want)
			}
			if strings.ContainsAny(err.Error(), "\x1b\x07") {
				t.Errorf("escape sequences: %q", err)
			}
			h.nothingNamed(ref)
			s.spoiled(nil)
			if !strings.HasPrefix(name, "layer") {
				return
			}
			if _, err := h.fetch(ref); err != nil {
				t.Errorf("and then as it should be: %v", err)
			}
		})
	}
}

func status(code int, body string) func(w http.ResponseWriter, r *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// oddRange cuts the first answer and then goes on somewhere else.
func oddRange(b []byte) func(w http.ResponseWriter, r *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "" {
			cut(w, r, b, true, true)
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/%d", len(b)-1, len(b)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(b[5:])
	}
}

// Guards: patience. 429 with Retry-After, 503, 408 and a connection cut
// before its answer are tried again.
func TestPatience(t *testing.T) {
	for name, first := range map[string]func(w http.ResponseWriter){
		"429": func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		"503": func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"408": func(w http.ResponseWriter) { w.WriteHeader(http.StatusRequestTimeout) },
		"cut": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, true)
			h, ref := trusting(t, s), s.put(t, "a/b:v1", sample(t, 1))
			var n atomic.Int32
			s.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
				if n.Add(1) > 2 {
					return false
				}
				first(w)
				return true
			})
			_, err := h.fetch(ref)
			check(t, err)
			said := "fetch " + ref + ": " + s.host() + " answered 429 Too Many Requests and asks to wait 1s; trying again in 1s"
			if name == "429" && !strings.Contains(h.lines.String(), said) {
				t.Errorf("people are told %q, not why they wait", h.lines)
			}
		})
	}
}

// Guards: a manifest whose connection is cut is asked for again, as a layer is.
func TestCutManifest(t *testing.T) {
	s := newShop(t, true)
	p := sample(t, 1)
	h, ref := trusting(t, s), s.put(t, "a/b:v1", p)
	var n atomic.Int32
	s.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") || n.Add(1) > 2 {
			return false
		}
		w.Header().Set("Content-Type", p.Manifest.Descriptor.MediaType)
		cut(w, r, p.Manifest.Bytes, false, true)
		return true
	})
	_, err := h.fetch(ref)
	check(t, err)
}

// Guards: what is here of a fetch that failed half-way is not fetched again.
func TestRetryGoesOn(t *testing.T) {
	s := newShop(t, true)
	p := sample(t, 3)
	h, ref := trusting(t, s), s.put(t, "a/b:v1", p)
	last := p.Blobs[2].Descriptor.Digest.String()
	done := make(chan struct{})
	s.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, last) || r.Method != http.MethodGet {
			return false
		}
		w.WriteHeader(http.StatusGone)
		return true
	})
	close(done)
	if _, err := h.fetch(ref); err == nil {
		t.Fatal("fetched what is gone")
	}
	h.nothingNamed(ref)
	s.spoiled(nil)
	_, err := h.fetch(ref)
	check(t, err)
}

// Guards: names and ports that lead nowhere, each with its own sentence.
func TestUnreachable(t *testing.T) {
	h := newHouse(t)
	h.trust("127.0.0.1:1", "insecure")
	h.trust("nowhere.invalid", "insecure")
	_, err := h.fetch("127.0.0.1:1/a/b:v1")
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("closed port: %v", err)
	}
	_, err = h.fetch("nowhere.invalid/a/b:v1")
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("no such host: %v", err)
	}
}

// Guards: TLS by an authority this host does not know is refused with the
// reason; SSL_CERT_FILE and --insecure-options=tls are the two ways out.
func TestTLS(t *testing.T) {
	s := newShop(t, true)
	p := sample(t, 1)
	s.put(t, "a/b:v1", p)
	secure := httptest.NewTLSServer(s)
	t.Cleanup(secure.Close)
	h := newHouse(t)
	host := strings.TrimPrefix(secure.URL, "https://")
	h.trust(host, "insecure")
	ref := host + "/a/b:v1"
	_, err := h.fetch(ref)
	var problem *Problem
	if !errors.As(err, &problem) || !strings.Contains(err.Error(), "authority this host does not trust") || !strings.Contains(problem.Hint(), "--insecure-options=tls") {
		t.Fatalf("got %v", err)
	}
	_, err = h.fetch(ref, func(r *Request) { r.Insecure.TLS = true })
	check(t, err)
	cert := filepath.Join(t.TempDir(), "ca.pem")
	check(t, os.WriteFile(cert, pemOf(secure), 0o600))
	t.Setenv("SSL_CERT_FILE", cert)
	_, err = h.fetch(ref, func(r *Request) { r.Pull = Always })
	check(t, err)
}
