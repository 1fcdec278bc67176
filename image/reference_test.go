// SPDX-License-Identifier: Apache-2.0

package image

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

const (
	hex64    = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	sha256A  = "sha256:" + hex64
	longName = "a123456789b123456789c123456789d123456789e123456789f123456789g1234567"
)

func TestParse(t *testing.T) {
	for typed, want := range map[string]string{
		"nginx":                              "docker.io/library/nginx:latest",
		"nginx:1.27":                         "docker.io/library/nginx:1.27",
		"user/app":                           "docker.io/user/app:latest",
		"docker.io/nginx":                    "docker.io/library/nginx:latest",
		"Docker.IO/nginx":                    "docker.io/library/nginx:latest",
		"index.docker.io/nginx":              "docker.io/library/nginx:latest",
		"index.docker.io/user/app:1":         "docker.io/user/app:1",
		"docker.io/library/nginx:1.27":       "docker.io/library/nginx:1.27",
		"docker://nginx":                     "docker.io/library/nginx:latest",
		"docker://quay.io/a/b:1":             "quay.io/a/b:1",
		"registry:5000/a/b@" + sha256A:       "registry:5000/a/b@" + sha256A,
		"registry:5000/a":                    "registry:5000/a:latest",
		"REGISTRY:5000/a":                    "registry:5000/a:latest",
		"localhost/a":                        "localhost/a:latest",
		"localhost:5000/a:b":                 "localhost:5000/a:b",
		"localhost:5000":                     "docker.io/library/localhost:5000",
		"127.0.0.1:5000/x/y/z:T_1.2-3":       "127.0.0.1:5000/x/y/z:T_1.2-3",
		"[::1]:5000/a":                       "[::1]:5000/a:latest",
		"[2001:DB8:0:0::1]/a/b":              "[2001:db8::1]/a/b:latest",
		"nginx@" + sha256A:                   "docker.io/library/nginx@" + sha256A,
		"nginx:1.27@" + sha256A:              "docker.io/library/nginx:1.27@" + sha256A,
		"a--b/c__d/e.f_g":                    "docker.io/a--b/c__d/e.f_g:latest",
		"x:" + strings.Repeat("t", 128):      "docker.io/library/x:" + strings.Repeat("t", 128),
		"q.io/" + strings.Repeat("a", 255):   "q.io/" + strings.Repeat("a", 255) + ":latest",
		"oci:/srv/x":                         "oci:/srv/x",
		"oci:/srv//y/../x/:1.0":              "oci:/srv/x:1.0",
		"oci:/srv/x:1.0@" + sha256A:          "oci:/srv/x:1.0@" + sha256A,
		"oci:/srv/x@" + sha256A:              "oci:/srv/x@" + sha256A,
		"oci:/srv/me@home:app":               "oci:/srv/me@home:app",
		"oci:/srv/x:quay.io/a/b:1":           "oci:/srv/x:quay.io/a/b:1",
		"oci-archive:/srv/x.tar":             "oci-archive:/srv/x.tar",
		"oci-archive:-":                      "oci-archive:-",
		"docker-archive:/srv/x.tar":          "docker-archive:/srv/x.tar",
		"docker-archive:/srv/x.tar:web":      "docker-archive:/srv/x.tar:docker.io/library/web:latest",
		"docker-archive:/srv/x.tar:r:5/a:b":  "docker-archive:/srv/x.tar:r:5/a:b",
		"docker-archive:/srv/x.tar:@3":       "docker-archive:/srv/x.tar:@3",
		"docker-archive:-:web:1":             "docker-archive:-:docker.io/library/web:1",
		"oci-archive:/srv/with space.tar:v1": "oci-archive:/srv/with space.tar:v1",
	} {
		ref, err := Parse(typed)
		if err != nil {
			t.Errorf("Parse(%q): %v", typed, err)
			continue
		}
		if got := ref.String(); got != want {
			t.Errorf("Parse(%q) = %q, want %q", typed, got, want)
		}
		checkRoundTrip(t, ref)
	}
}

func TestParse_relativeLayoutBecomesAbsolute(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	ref, err := Parse("oci:out:1.0")
	if err != nil {
		t.Fatal(err)
	}
	want := Reference{Transport: Layout, Path: filepath.Join(dir, "out"), Tag: "1.0"}
	if ref != want || ref.Name() != "oci:"+want.Path {
		t.Errorf("got %+v, want %+v", ref, want)
	}
}

// A message must quote what was typed and say what is wrong with it.
func TestParse_refuses(t *testing.T) {
	for _, c := range []struct{ typed, says string }{
		{"", "empty"},
		{"Nginx", `must be lower-case; did you mean "library/nginx"`},
		{"quay.io/Org/app", `must be lower-case; did you mean "org/app"`},
		{"Org/app", "must be lower-case"},
		{"nginx:", "empty tag"},
		{"nginx:-1", `begins with "-"`},
		{"nginx:a b", `character " " is not`},
		{"nginx:a+b", `character "+"`},
		{"nginx:" + strings.Repeat("t", 129), "129 characters, at most 128"},
		{"quay.io/" + strings.Repeat("a", 256), "256 characters, at most 255"},
		{"nginx@sha256:abc", "3 characters after the colon"},
		{"nginx@sha256:" + strings.ToUpper(hex64), "must be lower-case"},
		{"nginx@sha256:" + strings.Repeat("g", 64), "not hexadecimal"},
		{"nginx@md5:" + hex64, `algorithm "md5" is not supported`},
		{"nginx@", "no algorithm"},
		{"nginx@latest", "no algorithm"},
		{"@" + sha256A, "a digest alone names no repository"},
		{sha256A, "a digest alone names no repository"},
		{hex64, "an identifier, not a name"},
		{"quay.io/", "ends with a slash"},
		{"quay.io/a/", "ends with a slash"},
		{"/srv/x", "a directory is written oci:/srv/x"},
		{"./x", "oci:./x"},
		{"../x", "oci:../x"},
		{"quay.io//a", "empty part between slashes"},
		{"quay.io/-a", `"-" where a letter or digit must be`},
		{"quay.io/a-", `ends with "-"`},
		{"quay.io/a___b", `"___" where`},
		{"quay.io/a..b", `".." where`},
		{"quay.io/a$b", `character "$"`},
		{"quay.io:0/a", "not a number from 1 to 65535"},
		{"quay.io:65536/a", "not a number from 1 to 65535"},
		{"quay.io:0443/a", "not a number from 1 to 65535"},
		{"quay.io:+80/a", "not a number from 1 to 65535"},
		{"quay.io:/a", "not a number from 1 to 65535"},
		{"quay.io:80:80/a", "must be in brackets"},
		{"::1/a", "must be in brackets"},
		{"[::1/a", "bracket"},
		{"[::1]x/a", "bracket"},
		{"[zz]/a", "not an IPv6 address"},
		{"[127.0.0.1]/a", "not an IPv6 address"},
		{"[fe80::1%eth0]/a", "zone"},
		{"[::ffff:7f00:1]/a", "IPv4"},
		{"quay..io/a", "empty part between dots"},
		{"quay.io./a", "empty part between dots"},
		{"-quay.io/a", "hyphen"},
		{"quay_x.io/a", `character "_"`},
		{longName + ".io/a", "longer than 63"},
		{strings.Repeat("a.", 130) + "io/a", "longer than 253"},
		{"https://quay.io/a", "leave the scheme out"},
		{"docker-archive:", "no path"},
		{"docker-archive:/x.tar:", "empty"},
		{"docker-archive:/x.tar:Web", "must be lower-case"},
		{"docker-archive:/x.tar:@x", "not a place"},
		{"docker-archive:/x.tar:@01", "not a place"},
		{"dir:/x", "transport dir: is not supported"},
		{"nginx\n", "control or invalid character at byte 5"},
		{"ngi\x00nx", "control or invalid character at byte 3"},
		{"ngi\xffnx", "control or invalid character at byte 3"},
		{"nginx\u202e", "control or invalid character at byte 5"},
		{"oci:", `no path after "oci:"`},
		{"oci::x", `no path after "oci:"`},
		{"oci:/x:", "empty name"},
		{"oci:/x:-a", "must begin with"},
		{"oci:/x:a b", `character " "`},
		{"oci:/x@sha256:abc", "3 characters after the colon"},
		{"oci:/x@sha256", "no algorithm"},
		{"oci:/" + strings.Repeat("a", 5000), "longer than 4095"},
	} {
		_, err := Parse(c.typed)
		if err == nil {
			t.Errorf("Parse(%q): no error, want %q", c.typed, c.says)
			continue
		}
		if msg := err.Error(); !strings.Contains(msg, c.says) || !strings.Contains(msg, quote(c.typed)) {
			t.Errorf("Parse(%q): %q, want the input and %q", c.typed, msg, c.says)
		}
	}
}

// The error of a hostile name must neither move the terminal's cursor nor fill
// its screen.
func TestParse_errorsAreTame(t *testing.T) {
	_, err := Parse("a\x1b[2J" + strings.Repeat("x", 10000))
	if err == nil || strings.ContainsRune(err.Error(), 0x1b) || len(err.Error()) > 400 {
		t.Errorf("error is %q", err)
	}
}

func TestFamiliar(t *testing.T) {
	for typed, want := range map[string]string{
		"docker.io/library/nginx:1.27":   "nginx:1.27",
		"nginx":                          "nginx:latest",
		"docker.io/user/app":             "user/app:latest",
		"docker.io/library/a/b":          "library/a/b:latest",
		"docker.io/localhost/a":          "docker.io/localhost/a:latest",
		"docker.io/library/oci:x":        "library/oci:x",
		"docker.io/a.b/c":                "docker.io/a.b/c:latest",
		"quay.io/a/b":                    "quay.io/a/b:latest",
		"docker.io/library/a@" + sha256A: "a@" + sha256A,
		"oci:/srv/x:1":                   "oci:/srv/x:1",
	} {
		ref, err := Parse(typed)
		if err != nil {
			t.Fatal(err)
		}
		if got := ref.Familiar(); got != want {
			t.Errorf("Parse(%q).Familiar() = %q, want %q", typed, got, want)
		}
	}
}

func TestCVE_2024_3727_digestsAreCheckedBeforeUse(t *testing.T) {
	for _, d := range []string{
		"", "sha256", "sha256:", "sha256:..", "sha256:../../../../etc/passwd", "../x:" + hex64, "sha256:" + hex64 + "/..",
		"sha256:" + hex64[:63] + "/", "sha256:" + hex64[:63] + "\x00", "SHA256:" + hex64, "sha256+b64:" + hex64,
		"sha384:" + hex64 + hex64[:32], "sha512:" + hex64, "sha256:" + strings.ToUpper(hex64), "sha256:" + hex64 + "\n",
		":" + hex64, "sha256::" + hex64,
	} {
		if ValidDigest(digest.Digest(d)) == nil {
			t.Errorf("ValidDigest(%q) accepts", d)
		}
	}
	for _, d := range []string{sha256A, "sha512:" + hex64 + hex64} {
		if err := ValidDigest(digest.Digest(d)); err != nil {
			t.Errorf("ValidDigest(%q): %v", d, err)
		}
	}
}

// checkRoundTrip wants the canonical and the familiar form to mean the same.
func checkRoundTrip(t *testing.T, ref Reference) {
	t.Helper()
	for _, form := range []string{ref.String(), ref.Familiar()} {
		again, err := Parse(form)
		if err != nil {
			t.Errorf("Parse(%q): %v", form, err)
		} else if again != ref {
			t.Errorf("Parse(%q) = %+v, want %+v", form, again, ref)
		}
	}
	if ref.Name() == "" || !strings.HasPrefix(ref.String(), ref.Name()) {
		t.Errorf("%q does not begin with its name %q", ref, ref.Name())
	}
}

// compare checks a string against the library that Docker and containerd use.
// Where both accept they must mean the same; where one refuses, the difference
// must be one of those that Parse documents.
func compare(t *testing.T, s string) {
	t.Helper()
	if strings.HasPrefix(s, "oci:") || strings.HasPrefix(s, "oci-archive:") || strings.HasPrefix(s, "docker-archive:") || transportHint(s) != "" || strings.HasPrefix(s, "docker://") {
		return
	}
	ours, err := Parse(s)
	theirs, theirErr := reference.ParseNormalizedNamed(s)
	switch {
	case err == nil && theirErr != nil:
		t.Errorf("Parse(%q) = %q, distribution/reference refuses: %v", s, ours, theirErr)
	case err != nil && theirErr == nil && !documented(theirs, s):
		t.Errorf("Parse(%q): %v, distribution/reference has %q", s, err, theirs)
	case err == nil && theirErr == nil:
		theirs = reference.TagNameOnly(theirs)
		if ours.String() != theirs.String() && !spelling(theirs) {
			t.Errorf("Parse(%q) = %q, distribution/reference has %q", s, ours, theirs)
		}
	}
}

// spelling is true for hosts with a spelling that Parse makes canonical.
func spelling(n reference.Named) bool {
	host := reference.Domain(n)
	return host != strings.ToLower(host) || strings.HasPrefix(host, "[")
}

// documented is true for what Parse refuses on purpose: see its comment.
func documented(n reference.Named, s string) bool {
	host := reference.Domain(n)
	if d, ok := n.(reference.Digested); ok && ValidDigest(d.Digest()) != nil {
		return true
	}
	bare, _, _ := strings.Cut(host, ".")
	switch {
	case strings.HasPrefix(host, "["), ValidDigest(digest.Digest(s)) == nil:
		return true
	case host != strings.ToLower(host) && !strings.ContainsAny(host, ".:"):
		return true
	case len(host) > maxHostLabel || len(bare) > maxHostLabel:
		return true
	}
	_, port, found := strings.Cut(host, ":")
	return found && (port == "0" || port[0] == '0' || len(port) > 5 || len(port) == 5 && port > "65535")
}

func TestParse_agreesWithDistribution(t *testing.T) {
	names := []string{
		"a", "a/b", "a/b/c", "A", "a/B", "A/b", "a.b", "a.b/c", "a_b/c", "a__b/c", "a-b/c", "-a/b", "a-/b", "a:1/b", "a:b/c",
		"localhost", "localhost/a", "Localhost/a", "localhost:80/a", "docker.io/a", "docker.io/a/b", "index.docker.io/a",
		"registry-1.docker.io/a", "1.2.3.4/a", "1.2.3.4:5/a", "[::1]/a", "[::1]:1/a", "[1::2:3]/a", "xn--n3h.com/a", "a.B/c",
		"a..b/c", "a.-b/c", "a//b", "/a", "a/", "", " ", "a b", "a/b.c/d", "a/.b", "a/_b", "a/b_", "library/a", "docker.io/library/a",
		hex64, "a/" + hex64, "sha256", "ü", "a/ü", "a:80", "a:80/b:80",
	}
	suffixes := []string{"", ":", ":t", ":T", ":_t", ":.t", ":-t", ":t:t", ":t/t", ":t@" + sha256A, "@" + sha256A, "@sha256:a", "@", "@a", "@" + sha256A + ":t", "@sha512:" + hex64}
	for _, n := range names {
		for _, x := range suffixes {
			compare(t, n+x)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"nginx", "Docker.io/a/b:1", "r:5000/a@" + sha256A, "oci:/x:y", "oci-archive:/x.tar@" + sha256A, "docker-archive:/x:a:1@" + sha256A, "docker-archive:-:@1", "[::1]:80/a", "docker://a", "a@sha512:" + hex64 + hex64,
		"oci:/a@b:c@d", "LOCALHOST/a", "a.b:1/c:2@" + sha256A, hex64, "x/" + longName,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		compare(t, s)
		ref, err := Parse(s)
		if err != nil {
			return
		}
		checkRoundTrip(t, ref)
		if ref.Transport == Registry && (ref.Host == "" || ref.Repository == "" || ref.Tag == "" && ref.Digest == "") {
			t.Errorf("Parse(%q) = %+v is incomplete", s, ref)
		}
		if ref.Transport != Registry && ref.Path != Stdin && !filepath.IsAbs(ref.Path) {
			t.Errorf("Parse(%q) has path %q", s, ref.Path)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		if _, err := Parse("registry.example:5000/a/b:1.27@" + sha256A); err != nil {
			b.Fatal(err)
		}
	}
}
