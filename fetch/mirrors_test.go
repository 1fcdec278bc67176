// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantryrun/gantry/fetch/registries"
	"github.com/gantryrun/gantry/fetch/wire"
)

// know writes files of registries.d and has a request know them.
func know(t *testing.T, files ...string) func(*Request) {
	t.Helper()
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "registries.d"), 0o755))
	for i, text := range files {
		check(t, os.WriteFile(filepath.Join(dir, "registries.d", fmt.Sprintf("%d.conf", i)), []byte("[Registry]\n"+text), 0o644))
	}
	known, err := registries.Load([]string{dir})
	check(t, err)
	return func(r *Request) { r.Registries = known }
}

// Guards: an image comes from a mirror under its own name, judged by its own
// rule, with the signatures that the mirror has; the source, which does not
// exist, is not asked.
func TestMirror(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		h, s := newHouse(t), newShop(t, true)
		const ref = "registry.invalid/acme/web:v1"
		at := s.put(t, "hub/acme/web:v1", sample(t, 2))
		h.trust("registry.invalid/acme", "sigstore-key")
		h.signAs(at, ref, legacy)
		res, err := h.fetch(ref, know(t, "Name=registry.invalid\nMirror="+s.host()+"/hub\n"))
		check(t, err)
		if got := res.Image.Reference.String(); got != ref || !res.Receipt.Verdict.Accepted || res.Receipt.Name != "registry.invalid/acme/web" {
			t.Errorf("%s: %+v", got, res.Receipt)
		}
		if !strings.Contains(h.lines.String(), "from the mirror "+s.host()+"/hub/acme/web") {
			t.Errorf("nobody says where it came from: %s", h.lines)
		}
	}
}

// signAs signs what lies at one place under another name.
func (h *house) signAs(at, name string, legacy bool) {
	h.t.Helper()
	r := h.request(at)
	d, err := Resolve(h.t.Context(), r)
	check(h.t, err)
	tag := ""
	if legacy {
		tag = "sha256-" + d.Digest.Encoded() + ".sig"
	}
	check(h.t, Attach(h.t.Context(), r, tag, func(existing []byte) (Attachment, error) {
		a, err := h.artifact(h.request(name).Ref, d, legacy, existing)
		return attachment(a), err
	}))
}

// Guards: what is wrong with a mirror is told in a line, and the next is asked,
// at last the source; a mirror cannot have another image accepted.
func TestMirrorsThatFail(t *testing.T) {
	s := newShop(t, true)
	good := sample(t, 1)
	ref := s.put(t, "acme/web:v1", good)
	other := newShop(t, true)
	other.put(t, "other/web:v1", sample(t, 2))
	spoilt := newShop(t, true)
	spoilt.put(t, "spoilt/web:v1", good)
	spoilt.spoiled(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, good.Blobs[0].Descriptor.Digest.String()) {
			return false
		}
		_, _ = w.Write(make([]byte, good.Blobs[0].Descriptor.Size))
		return true
	})
	for name, c := range map[string]struct{ mirror, says string }{
		"closed port":       {"127.0.0.1:1/web", "connection refused"},
		"no such image":     {other.host() + "/nothing", "has no such image or tag"},
		"unsigned":          {other.host() + "/other/web", "is not trusted"},
		"of another digest": {spoilt.host() + "/spoilt/web", "content does not match its digest"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.trust(s.host()+"/acme", "sigstore-key")
			h.sign(ref, false)
			if name == "of another digest" {
				h.signAs(spoilt.host()+"/spoilt/web:v1", ref, false)
			}
			res, err := h.fetch(ref, know(t, "Name="+s.host()+"/acme/web\nMirror="+c.mirror+"\n"))
			check(t, err)
			if res.Image.Descriptor.Digest != good.Manifest.Descriptor.Digest {
				t.Errorf("got %s", res.Image.Descriptor.Digest)
			}
			if !strings.Contains(h.lines.String(), "not from the mirror "+c.mirror) || !strings.Contains(h.lines.String(), c.says) {
				t.Errorf("says %s", h.lines)
			}
		})
	}
}

// Guards: a mirror for digests is not asked what a tag is; with --pull=newer an
// unreachable mirror does not stand for the source.
func TestDigestMirror(t *testing.T) {
	s, m := newShop(t, true), newShop(t, true)
	p := sample(t, 1)
	h, ref := trusting(t, s), s.put(t, "a/b:v1", p)
	m.put(t, "a/b:v1", p)
	edit := know(t, "Name="+s.host()+"\nDigestMirror="+m.host()+"\n")
	blocked := know(t, "Name="+s.host()+"\nMirror="+m.host()+"\nBlocked=yes\n")
	if _, err := h.fetch(ref, blocked); err == nil || m.count("GET") != 0 {
		t.Errorf("what is blocked was asked of a mirror %d times: %v", m.count("GET"), err)
	}
	_, err := h.fetch(ref, edit)
	check(t, err)
	if n := m.count("GET"); n != 0 {
		t.Errorf("asked %d times for a tag", n)
	}
	asked := s.count("GET")
	digested := s.host() + "/a/b@" + p.Manifest.Descriptor.Digest.String()
	_, err = h.fetch(digested, edit, func(r *Request) { r.Pull = Always })
	check(t, err)
	if m.count("GET") == 0 || s.count("GET") != asked {
		t.Errorf("for a digest the mirror was asked %d times, the source %d", m.count("GET"), s.count("GET")-asked)
	}
	newer := sample(t, 2)
	s.put(t, "a/b:v1", newer)
	res, err := h.fetch(ref, know(t, "Name="+s.host()+"\nMirror=127.0.0.1:1\n"), func(r *Request) { r.Pull = Newer })
	check(t, err)
	if res.Image.Descriptor.Digest != newer.Manifest.Descriptor.Digest {
		t.Error("an unreachable mirror kept what is here")
	}
}

// Guards: the source's credential is not the mirror's, and the other way round;
// nor is what was given up for the source given up for the mirror.
func TestMirrorGetsNoCredentialOfTheSource(t *testing.T) {
	s := newShop(t, true)
	h, ref := trusting(t, s), s.put(t, "a/b:v1", sample(t, 1))
	s.spoiled(basic(nil))
	mirror := newThief(t, false, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="mirror"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	at := strings.TrimPrefix(mirror.URL, "http://")
	_, err := h.fetch(ref, know(t, "Name="+s.host()+"\nMirror="+at+"\n"), func(r *Request) { r.AuthFile = login(t, s.host(), "me", "secret") })
	check(t, err)
	if mirror.asked == 0 || len(mirror.shown) != 0 {
		t.Errorf("the mirror was asked %d times and shown %q", mirror.asked, mirror.shown)
	}
	secure := httptest.NewTLSServer(s)
	t.Cleanup(secure.Close)
	_, err = h.fetch(ref, know(t, "Name="+s.host()+"\nMirror="+strings.TrimPrefix(secure.URL, "https://")+"\n"),
		func(r *Request) {
			r.AuthFile, r.Insecure.TLS, r.Pull = login(t, s.host(), "me", "secret"), true, Always
		})
	check(t, err)
	if !strings.Contains(h.lines.String(), "authority this host does not trust") {
		t.Errorf("the mirror's certificate was not looked at: %s", h.lines)
	}
}

// Guards: an authority is one registry's; a registry that wants to know us is
// shown a certificate, and nobody else is; what is blocked is not asked.
func TestRegistrySettings(t *testing.T) {
	s := newShop(t, true)
	s.put(t, "a/b:v1", sample(t, 1))
	dir := t.TempDir()
	write := func(name string, b []byte, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		check(t, os.WriteFile(name, b, mode))
		return name
	}
	cert, key := identity(t)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	secure := httptest.NewUnstartedServer(s)
	secure.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	host := strings.TrimPrefix(secure.URL, "https://")
	h := newHouse(t)
	h.trust(host, "insecure")
	ref := host + "/a/b:v1"
	name, authority := "Name="+host+"\n", "Authority="+write("ca.pem", pemOf(secure), 0o644)+"\n"
	ours := "Certificate=" + write("me.pem", cert, 0o644) + "\nKey=" + write("me.key", key, 0o600) + "\n"
	open := "Certificate=" + filepath.Join(dir, "me.pem") + "\nKey=" + write("open.key", key, 0o644) + "\n"
	for _, c := range []struct{ file, says, hint string }{
		{name + authority, "TLS with " + host, "Certificate= and Key="},
		{name + ours, "authority this host does not trust", "registries.d"},
		{"Name=elsewhere.example\n" + authority + ours, "authority this host does not trust", "registries.d"},
		{name + authority + open, "others can read the key (mode 0644)", ""},
		{name + "Authority=" + filepath.Join(dir, "me.key") + "\n" + ours, "have no certificate in PEM", ""},
		{name + "Blocked=yes\n" + authority + ours, "0.conf says that it is not to be asked", "Blocked=yes"},
		{name + "Insecure=tls\n" + ours, "", ""},
		{name + authority + ours, "", ""},
	} {
		_, err := h.fetch(ref, know(t, c.file), func(r *Request) { r.Pull = Always })
		var p *Problem
		switch {
		case c.says == "" && err != nil, c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: got %v, want %q", c.file, err, c.says)
		case c.hint != "" && (!errors.As(err, &p) || !strings.Contains(p.Hint(), c.hint)):
			t.Errorf("%s: hint of %#v, want %q", c.file, err, c.hint)
		}
	}
	if !strings.Contains(h.lines.String(), "may be somebody else, by Insecure= of") {
		t.Errorf("no warning: %s", h.lines)
	}
}

// identity is a certificate of ours that signs itself, with its key.
func identity(t *testing.T) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gantry"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	check(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(k)
	check(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

// Guards: what is suggested for TLS that fails can help.
func TestHintsForTLS(t *testing.T) {
	for said, want := range map[string]string{
		"it speaks plain HTTP, not TLS":                               "Insecure=http",
		"it ends the handshake: tls: certificate required":            "Certificate= and Key=",
		"its certificate is signed by an authority nobody here knows": "name its authority",
		"its certificate has expired or is not valid yet":             "a certificate that fits",
		"its certificate is for another name: x509: …":                "a certificate that fits",
	} {
		if got := (&registry{}).tlsHint(&wire.Error{Text: said}); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", said, got, want)
		}
	}
}
