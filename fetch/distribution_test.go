// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"

	"github.com/gantryrun/gantry/tests/imagetest"
)

// distribution starts the registry of Debian, which has no referrers API and
// asks for a password, and returns its address.
func distribution(t *testing.T, user, password string) string {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("ability missing: tool docker-registry: ", err)
	}
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "htpasswd"), fmt.Appendf(nil, "%s:%s\n", user, hash), 0o600))
	config := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s/data}}\n"+
		"http: {addr: '127.0.0.1:0'}\nauth: {htpasswd: {realm: test, path: %s/htpasswd}}\n", dir, dir)
	check(t, os.WriteFile(filepath.Join(dir, "config.yml"), []byte(config), 0o600))
	cmd := exec.Command(bin, "serve", filepath.Join(dir, "config.yml"))
	out, err := cmd.StderrPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		_, rest, found := strings.Cut(lines.Text(), "listening on ")
		if !found {
			continue
		}
		go func() {
			for lines.Scan() {
			}
		}()
		return strings.Trim(strings.Fields(rest)[0], `"`)
	}
	t.Fatal("the registry did not start")
	return ""
}

// upload pushes an image with basic authentication.
func upload(t *testing.T, host, repo, tag, user, password string, p imagetest.Packed) {
	t.Helper()
	do := func(method, url, mediaType string, b []byte) *http.Response {
		req, err := http.NewRequest(method, url, bytes.NewReader(b))
		check(t, err)
		req.SetBasicAuth(user, password)
		req.Header.Set("Content-Type", mediaType)
		resp, err := http.DefaultClient.Do(req)
		check(t, err)
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			t.Fatalf("%s %s: %s", method, url, resp.Status)
		}
		return resp
	}
	base := "http://" + host + "/v2/" + repo
	for _, b := range p.Blobs {
		at := do(http.MethodPost, base+"/blobs/uploads/", "", nil).Header.Get("Location")
		do(http.MethodPut, at+"&digest="+digest.FromBytes(b.Bytes).String(), "application/octet-stream", b.Bytes)
	}
	do(http.MethodPut, base+"/manifests/"+tag, p.Manifest.Descriptor.MediaType, p.Manifest.Bytes)
}

// Guards: a registry people really run: a password, no referrers API, both
// forms of signatures pushed and found.
func TestDistributionRegistry(t *testing.T) {
	host := distribution(t, "me", "secret")
	for _, legacy := range []bool{false, true} {
		t.Run(fmt.Sprintf("legacy=%v", legacy), func(t *testing.T) {
			h := newHouse(t)
			t.Setenv("REGISTRY_AUTH_FILE", login(t, host, "me", "secret"))
			repo := fmt.Sprintf("a/b%v", legacy)
			upload(t, host, repo, "v1", "me", "secret", sample(t, 2))
			ref := host + "/" + repo + ":v1"
			h.trust(host, "sigstore-key")
			h.sign(ref, legacy)
			h.sign(ref, legacy) // beside the first, not instead of it
			res, err := h.fetch(ref)
			check(t, err)
			if n := len(res.Receipt.Signatures); n < 1 {
				t.Errorf("%d signatures", n)
			}
			t.Setenv("REGISTRY_AUTH_FILE", login(t, host, "me", "wrong"))
			_, err = h.fetch(ref, func(r *Request) { r.Pull = Always })
			if err == nil || !strings.Contains(err.Error(), "401") && !strings.Contains(err.Error(), "password") {
				t.Errorf("wrong password: %v", err)
			}
		})
	}
}
