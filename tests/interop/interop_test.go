// SPDX-License-Identifier: Apache-2.0

// Package interop puts gantry beside the tools people already have: what cosign
// signs gantry accepts, what gantry signs cosign verifies, and skopeo, umoci
// and other runtimes read what gantry keeps and plans.
package interop

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/gantry"
)

// serve starts a registry on loopback.
func serve(t *testing.T, referrers bool) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.WithReferrersSupport(referrers)))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// tool runs a foreign program in an empty home.
func tool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "COSIGN_PASSWORD=", "COSIGN_YES=true")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tool(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func push(t *testing.T, h *gantry.Host, ref string) string {
	t.Helper()
	return must(t, h.Program("mkimage"), "--push", "inspect", ref)
}

func both(t *testing.T, test func(t *testing.T, referrers bool)) {
	t.Helper()
	for name, referrers := range map[string]bool{"referrers": true, "fallback": false} {
		t.Run(name, func(t *testing.T) { test(t, referrers) })
	}
}

// TestCosignVerifiesOurs: gantry signs, cosign verifies, in either kind of
// registry.
func TestCosignVerifiesOurs(t *testing.T) {
	ability.Require(t, ability.Root, ability.Tool("cosign"))
	both(t, func(t *testing.T, referrers bool) {
		h := gantry.New(t)
		host := serve(t, referrers)
		digest := push(t, h, host+"/acme/app:1")
		ref := host + "/acme/app@" + digest
		h.Must("sign", "--key", h.Key()+".key", host+"/acme/app:1")
		must(t, "cosign", "verify", "--key", h.Key()+".pub", "--insecure-ignore-tlog=true", "--allow-http-registry", ref)
		other := filepath.Join(t.TempDir(), "other")
		h.Must("trust", "keygen", "--output", other)
		if out, err := tool(t, "cosign", "verify", "--key", other+".pub", "--insecure-ignore-tlog=true", "--allow-http-registry", ref); err == nil {
			t.Errorf("cosign accepts another key: %s", out)
		}
	})
}

// TestWeAcceptCosigns: cosign signs with a key of its own making, gantry
// verifies, and another rule's key does not count.
func TestWeAcceptCosigns(t *testing.T) {
	ability.Require(t, ability.Root, ability.Tool("cosign"))
	both(t, func(t *testing.T, referrers bool) {
		h := gantry.New(t)
		host := serve(t, referrers)
		key := filepath.Join(t.TempDir(), "cosign")
		must(t, "cosign", "generate-key-pair", "--output-key-prefix", key)
		digest := push(t, h, host+"/acme/app:1")
		ref := host + "/acme/app@" + digest
		h.Must("trust", "add", "--prefix", host+"/acme", h.Key()+".pub")
		must(t, "cosign", "sign", "--key", key+".key", "--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry", ref)
		if r := h.Run("fetch", ref); r.Status != 125 {
			t.Fatalf("accepted under another key: %d %s", r.Status, r.Stderr)
		}
		h.Must("trust", "rm", "--prefix", host+"/acme")
		h.Must("trust", "add", "--prefix", host+"/acme", key+".pub")
		h.Must("run", "--rm", ref, "exit", "0")
	})
}

// TestStoreIsALayout: skopeo and umoci read what gantry fetched.
func TestStoreIsALayout(t *testing.T) {
	ability.Require(t, ability.Root, ability.Tool("skopeo"))
	h := gantry.New(t)
	host := serve(t, true)
	push(t, h, host+"/acme/app:1")
	h.Must("fetch", "--insecure-options=image", host+"/acme/app:1")
	store := filepath.Join(h.Dir, "lib", "store")
	b, err := os.ReadFile(filepath.Join(store, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Manifests []struct {
			Digest      string            `json:"digest"`
			Annotations map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(b, &index); err != nil || len(index.Manifests) == 0 {
		t.Fatalf("index.json: %v: %s", err, b)
	}
	out := filepath.Join(t.TempDir(), "copy")
	name := index.Manifests[0].Annotations["org.opencontainers.image.ref.name"]
	must(t, "skopeo", "copy", "oci:"+store+":"+name, "oci:"+out+":copy")
	if got := must(t, "skopeo", "inspect", "--raw", "oci:"+out+":copy"); !strings.Contains(got, "layers") {
		t.Errorf("skopeo reads %s", got)
	}
}
