// SPDX-License-Identifier: Apache-2.0

package registries

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/internal/conf"
)

// load writes files as NAME, TEXT, … and loads them.
func load(t *testing.T, files ...string) (*Registries, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, subdir), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, subdir, files[i]), []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Load([]string{dir})
}

func TestMirrorsAreOfTheLongestName(t *testing.T) {
	r, err := load(t,
		"10.conf", "[Registry]\nName=registry.example.com\nMirror=one.lan\nDigestMirror=two.lan:5000/hub/\n",
		"20.conf", "[Registry]\nName=registry.example.com/acme/web\nMirror=three.lan/web\n",
		"30.conf", "[Registry]\nName=docker.io\nMirror=hub.lan/docker\n",
		"40.conf", "[Registry]\nName=registry.example.com/acme\nBlocked=yes\n",
		"50.conf", "[Registry]\nName=registry.example.com/acme/free\nBlocked=no\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host, repository string
		want             []Mirror
	}{
		{"registry.example.com", "a/b", []Mirror{{"one.lan", "a/b", false}, {"two.lan:5000", "hub/a/b", true}}},
		{"registry.example.com", "acme/web", []Mirror{{"three.lan", "web", false}}},
		{"registry.example.com", "acme/web/x", []Mirror{{"three.lan", "web/x", false}}},
		{"registry.example.com", "acme/website", []Mirror{{"one.lan", "acme/website", false}, {"two.lan:5000", "hub/acme/website", true}}},
		{"docker.io", "library/nginx", []Mirror{{"hub.lan", "docker/library/nginx", false}}},
		{"elsewhere.example.com", "a", nil},
	} {
		if got := r.Mirrors(c.host, c.repository); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s/%s: %+v, want %+v", c.host, c.repository, got, c.want)
		}
	}
	if r.Blocked("registry.example.com", "acme/web") == "" || r.Blocked("registry.example.com", "acmeweb") != "" || r.Blocked("registry.example.com", "acme/free/x") != "" {
		t.Error("blocked are the wrong ones")
	}
	var nothing *Registries
	if nothing.Mirrors("a.lan", "b") != nil || nothing.Blocked("a.lan", "b") != "" {
		t.Error("nothing knows something")
	}
}

func TestBadFiles(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"[Mirror]\nName=a.lan\n", "line 1: section [Mirror] is unknown: there is [Registry]"},
		{"[Registry]\nMirror=a.lan\n", "Name= is missing"},
		{"[Registry]\nName=a.lan\nName=b.lan\n", "line 3: Name=b.lan: there is one Name= in a file"},
		{"[Registry]\nName=nginx\n", "line 2: Name=nginx: it does not begin with a registry"},
		{"[Registry]\nName=https://a.lan\n", "line 2: Name=https://a.lan: it is not a registry"},
		{"[Registry]\nName=a.lan/Acme\n", "line 2: Name=a.lan/Acme: it is not a registry"},
		{"[Registry]\nName=a.lan/../b\n", "line 2: Name=a.lan/../b: it is not a registry"},
		{"[Registry]\nName=a.lan\nMirror=b.lan/x:1\n", "line 3: Mirror=b.lan/x:1: it is not a registry"},
		{"[Registry]\nName=a.lan\nMirrors=b.lan\n", "line 3: Mirrors=b.lan: unknown key; there are Name, Mirror"},
		{"[Registry]\nName=a.lan\nAuthority=ca.pem\n", "line 3: Authority=ca.pem: it is not a clean absolute path"},
		{"[Registry]\nName=a.lan\nKey=/etc/ssl/key.pem\n", "Certificate= and Key= go together"},
		{"[Registry]\nName=a.lan\nCertificate=/a\nCertificate=/b\nKey=/c\n", "line 4: Certificate=/b: it is there already"},
		{"[Registry]\nName=a.lan\nInsecure=yes\n", "line 3: Insecure=yes: it is http (no encryption) or tls"},
		{"[Registry]\nName=a.lan\nBlocked=maybe\n", "line 3: Blocked=maybe: it is yes or no"},
		{"Name=a.lan\n", "stands before the first [Section]"},
		{"[Registry]\nName=a.lan\nMirror=b.lan/x@sha256:0123\n", "it is not a registry"},
	} {
		_, err := load(t, "a.conf", c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "registries.d/a.conf: ") {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
	if _, err := load(t, "a.conf", "[Registry]\nName=a.lan\n", "b.conf", "[Registry]\nName=A.lan/\n"); err == nil || !strings.Contains(err.Error(), "a.conf has the same Name=") {
		t.Errorf("one name twice: %v", err)
	}
}

// armoured is a text in PEM, whatever it is a certificate of.
func armoured(text string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(text)}))
}

// Each matter is that of the longest name that says something of it.
func TestSettingsAreEachTheirOwn(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(armoured(filepath.Base(name))), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	r, err := load(t,
		"10.conf", "[Registry]\nName=a.lan\nAuthority="+file("ca", 0o644)+"\nInsecure=http\n",
		"20.conf", "[Registry]\nName=a.lan/web\nCertificate="+file("me", 0o644)+"\nKey="+file("key", 0o600)+"\n",
		"30.conf", "[Registry]\nName=b.lan\nAuthority="+filepath.Join(dir, "nothing")+"\n")
	if err != nil {
		t.Fatal(err)
	}
	r.certs = nil
	set, gives, err := r.Settings("a.lan", "web/x")
	if err != nil || string(set.Authorities) != armoured("ca")+"\n" || string(set.Certificate) != armoured("me") || !set.PlainHTTP || filepath.Base(gives) != "10.conf" {
		t.Errorf("%+v, %s, %v", set, gives, err)
	}
	if set, _, err := r.Settings("a.lan", "db"); err != nil || set.Certificate != nil || string(set.Authorities) != armoured("ca")+"\n" {
		t.Errorf("%+v, %v", set, err)
	}
	if _, _, err := r.Settings("b.lan", "db"); err == nil || !strings.Contains(err.Error(), "30.conf: Authority= of b.lan: ") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// Certificates as docker and podman have them are found too.
func TestCertificatesOfOthers(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "registry.lan:5000")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"ca.crt": 0o644, "client.cert": 0o644, "client.key": 0o600} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(armoured(name)), mode); err != nil {
			t.Fatal(err)
		}
	}
	r := &Registries{certs: []string{filepath.Join(dir, "none"), dir}}
	set, gives, err := r.Settings("registry.lan:5000", "a")
	if err != nil || gives != "" || string(set.Authorities) != armoured("ca.crt")+"\n" || string(set.Certificate) != armoured("client.cert") || string(set.Key) != armoured("client.key") {
		t.Errorf("%q %q %q %v", set.Authorities, set.Certificate, set.Key, err)
	}
	if set, _, err := r.Settings("registry.lan", "a"); err != nil || set.Authorities != nil {
		t.Errorf("another registry has %q, %v", set.Authorities, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[Registry]\nName=registry.example.com/acme\nMirror=one.lan\nDigestMirror=two.lan:5000/hub/\nAuthority=/a\nInsecure=http\n")
	f.Add("[Registry]\nName=docker.io\nMirror=a.lan//b\nBlocked=yes\nCertificate=/c\nKey=/k\n")
	f.Fuzz(func(t *testing.T, text string) {
		sections, err := conf.Parse([]byte(text))
		if err != nil {
			return
		}
		r, err := parse(conf.File{Path: "f", Sections: sections})
		if err != nil {
			return
		}
		s := &Registries{rules: []rule{r}}
		repository := strings.Trim(r.path+"/web", "/")
		for _, m := range s.Mirrors(r.host, repository) {
			if m.Host == "" || m.Repository == "" || strings.Contains(m.Repository, "//") || strings.Contains("/"+m.Repository+"/", "/../") {
				t.Errorf("%q leads to %+v", text, m)
			}
		}
	})
}
