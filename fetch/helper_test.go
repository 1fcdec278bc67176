// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/fetch/wire"
)

// helperNamed puts a docker-credential-NAME, a shell script, first in PATH.
func helperNamed(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func authFileOf(t *testing.T, text string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "config.json")
	check(t, os.WriteFile(f, []byte(text), 0o600))
	return f
}

// Guards: credentials are found where podman login and docker login write them.
func TestAuthPaths(t *testing.T) {
	podmans := fmt.Sprintf("/run/containers/%d/auth.json", os.Getuid())
	for name, tt := range map[string]struct {
		env  []string // of XDG_RUNTIME_DIR, XDG_CONFIG_HOME, DOCKER_CONFIG, REGISTRY_AUTH_FILE
		want []string
	}{
		"a session": {[]string{"/run/user/7", "", "", ""}, []string{"/run/user/7/containers/auth.json", "/home/u/.config/containers/auth.json", "/home/u/.docker/config.json"}},
		"none":      {[]string{"", "/c", "/d", ""}, []string{podmans, "/c/containers/auth.json", "/d/config.json"}},
		"named":     {[]string{"/run/user/7", "", "", "/f"}, []string{"/f"}},
	} {
		t.Setenv("HOME", "/home/u")
		for i, k := range []string{"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"} {
			t.Setenv(k, tt.env[i])
		}
		if got := authPaths(""); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// Guards: what a helper answers is taken for the host it was asked about, and
// nothing it can say hangs, floods or leaks.
func TestCredentialHelpers(t *testing.T) {
	const mine = `{"credHelpers":{"ghcr.io":"mine"}}`
	answer := func(server, user, secret string) string {
		return fmt.Sprintf(`printf '{"ServerURL":"%s","Username":"%s","Secret":"%s"}'`, server, user, secret)
	}
	for name, tt := range map[string]struct {
		file, host, script string
		want               wire.Credential
		wrong              string
	}{
		"helper of the host":   {mine, "ghcr.io", answer("ghcr.io", "me", "secret"), wire.Credential{Username: "me", Password: "secret"}, ""},
		"only of that host":    {mine, "quay.io", "exit 1", wire.Credential{}, ""},
		"store":                {`{"credsStore":"mine"}`, "quay.io", answer("https://quay.io", "me", "s"), wire.Credential{Username: "me", Password: "s"}, ""},
		"hub":                  {`{"credsStore":"mine"}`, "docker.io", `read s; test "$s" = https://index.docker.io/v1/ && ` + answer("https://index.docker.io/v1/", "me", "s"), wire.Credential{Username: "me", Password: "s"}, ""},
		"it is asked get":      {mine, "ghcr.io", `test "$*" = get || exit 1; read s; test "$s" = ghcr.io || exit 1; ` + answer("", "me", "s"), wire.Credential{Username: "me", Password: "s"}, ""},
		"identity token":       {mine, "ghcr.io", answer("", "<token>", "t0k"), wire.Credential{IdentityToken: "t0k"}, ""},
		"has none":             {mine, "ghcr.io", "echo credentials not found in native keychain; exit 1", wire.Credential{}, ""},
		"fails":                {mine, "ghcr.io", "echo no keyring here >&2; exit 1", wire.Credential{}, "no keyring here"},
		"of another host":      {mine, "ghcr.io", answer("evil.example", "me", "s"), wire.Credential{}, "answers with a credential of evil.example"},
		"floods":               {mine, "ghcr.io", "yes", wire.Credential{}, "more than 65536 bytes"},
		"garbage is not shown": {mine, "ghcr.io", "echo s3cret", wire.Credential{}, "not the JSON of a credential"},
		"not installed":        {`{"credHelpers":{"ghcr.io":"other"}}`, "ghcr.io", "", wire.Credential{}, "docker-credential-other"},
		"a path":               {`{"credHelpers":{"ghcr.io":"x/../../mine"}}`, "ghcr.io", "", wire.Credential{}, "is not the name of a helper"},
		"the file goes before the store": {
			`{"credsStore":"mine","auths":{"ghcr.io":{"auth":"bWU6ZmlsZQ=="}}}`, "ghcr.io", "exit 1",
			wire.Credential{Username: "me", Password: "file"},
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			helperNamed(t, "mine", tt.script)
			c, err := findCredentials(t.Context(), authFileOf(t, tt.file), tt.host, "a/b")
			if c.Credential != tt.want || (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("got %+v, %v; want %+v, %q", c.Credential, err, tt.want, tt.wrong)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("a secret is shown: %v", err)
			}
		})
	}
}

// Guards: a fetch with a helper's credential, which the helper is asked for
// once and which redirects do not get.
func TestFetchWithHelper(t *testing.T) {
	s := newShop(t, true)
	h, ref := trusting(t, s), s.put(t, "a/b:v1", sample(t, 1))
	s.spoiled(basic(nil))
	asked := filepath.Join(t.TempDir(), "asked")
	helperNamed(t, "mine", `cat >>`+asked+`; echo >>`+asked+`; printf '{"Username":"me","Secret":"secret"}'`)
	_, err := h.fetch(ref, func(r *Request) { r.AuthFile = authFileOf(t, `{"credsStore":"mine"}`) })
	check(t, err)
	b, err := os.ReadFile(asked)
	check(t, err)
	if string(b) != s.host()+"\n" {
		t.Errorf("the helper was asked %q", b)
	}
}

// FuzzHelperAnswer: whatever a helper says, a credential is of the host it was
// asked about.
func FuzzHelperAnswer(f *testing.F) {
	f.Add([]byte(`{"ServerURL":"https://ghcr.io/v2/","Username":"<token>","Secret":"x"}`))
	f.Add([]byte(`{"ServerURL":"ghcr.io.evil/","Username":"a","Secret":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = helper{name: "x", host: "ghcr.io"}.read(b)
	})
}
