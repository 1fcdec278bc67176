// SPDX-License-Identifier: Apache-2.0

package badinput

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/gantryrun/gantry/tests/imagetest"
)

// bad is what a registry does to a request; true: it answered.
type bad func(w http.ResponseWriter, r *http.Request) bool

// serve makes a registry with one image, a/app:1, that is bad.
func (f *fixture) serve(image imagetest.Packed, b bad, tls bool) {
	f.t.Helper()
	inner := registry.New()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b == nil || !b(w, r) {
			inner.ServeHTTP(w, r)
		}
	})
	s := httptest.NewUnstartedServer(h)
	put(f.t, inner, image)
	if tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	f.t.Cleanup(s.Close)
	_, f.registry, _ = strings.Cut(s.URL, "://")
	f.image = f.registry + "/a/app:1"
	f.Must("trust", "add", "--prefix", f.registry, "--accept", "insecure")
}

func put(t *testing.T, h http.Handler, p imagetest.Packed) {
	t.Helper()
	send := func(method, url, mediaType string, body []byte) {
		r := httptest.NewRequest(method, url, bytes.NewReader(body))
		r.Header.Set("Content-Type", mediaType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code/100 != 2 {
			t.Fatalf("%s %s: %d %s", method, url, w.Code, w.Body)
		}
	}
	for _, b := range p.Blobs {
		send("POST", "/v2/a/app/blobs/uploads/?digest="+string(b.Descriptor.Digest), "application/octet-stream", b.Bytes)
	}
	send("PUT", "/v2/a/app/manifests/1", p.Manifest.Descriptor.MediaType, p.Manifest.Bytes)
}

// status answers everything so.
func status(code int, body string) bad {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		if code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
		return true
	}
}

// only spoils what is below a path.
func only(part string, b bad) bad {
	return func(w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, part) && b(w, r)
	}
}

// hangUp sends some bytes of many and closes the connection.
func hangUp(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Length", "100000000")
	_, _ = w.Write([]byte("some"))
	panic(http.ErrAbortHandler)
}

// answer sends these bytes for whatever is asked.
func answer(mediaType string, b []byte) bad {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		if mediaType != "" {
			w.Header().Set("Content-Type", mediaType)
		}
		_, _ = w.Write(b)
		return true
	}
}

// endless never stops sending.
func endless(w http.ResponseWriter, _ *http.Request) bool {
	b := make([]byte, 64<<10)
	for {
		if _, err := w.Write(b); err != nil {
			return true
		}
	}
}

// foreignIndex is one that names a platform nobody has.
func foreignIndex(p imagetest.Packed) []byte {
	d := p.Manifest.Descriptor
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"plan9","architecture":"mips"}}]}`,
		d.MediaType, d.Digest, d.Size)
}
