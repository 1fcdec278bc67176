// SPDX-License-Identifier: Apache-2.0

package functional

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/gantry"
)

// TestDebian takes images of Debian packages the way they reach people: from a
// registry, signed, two images on one base layer. See tests/setup/images.sh.
func TestDebian(t *testing.T) {
	ability.Require(t, ability.Root)
	layout := os.Getenv("GANTRY_TEST_IMAGES")
	if _, err := os.Stat(filepath.Join(layout, "index.json")); err != nil {
		t.Skipf("ability missing: images of Debian packages, made by tests/setup/images.sh: %v", err)
	}
	h := gantry.New(t)
	repository := startRegistry(t, h) + "/debian"
	python, redis := repository+"/python:3", repository+"/redis:7"
	push(t, h, layout, "python", python)
	push(t, h, layout, "redis", redis)
	if r := h.Run("run", "--rm", python, "true"); r.Status != 125 || !strings.Contains(r.Stderr, "gantry sign --key") {
		t.Errorf("an unsigned image ran, or nothing says how to mend it: %d %s", r.Status, r.Stderr)
	}
	h.Must("sign", "--key", h.Key()+".key", python, redis)
	h.Must("trust", "add", "--prefix", repository, h.Key()+".pub")
	first := h.Run("fetch", python)
	second := h.Run("fetch", redis)
	if first.Status != 0 || strings.Count(first.Stderr, "layer ") != 2 {
		t.Fatalf("fetch of two layers: %d %s", first.Status, first.Stderr)
	}
	if second.Status != 0 || strings.Count(second.Stderr, "layer ") != 1 {
		t.Errorf("fetch of one layer on a base that is there: %d %s", second.Status, second.Stderr)
	}
	t.Run("python", func(t *testing.T) { testPython(t, h, python) })
	t.Run("redis", func(t *testing.T) { testRedis(t, h, redis) })
}

// startRegistry serves an empty registry on loopback until the test ends.
func startRegistry(t *testing.T, h *gantry.Host) string {
	t.Helper()
	portfile := filepath.Join(h.Dir, "port")
	cmd := exec.Command(h.Program("registry"), "--addr", "127.0.0.1:0", "--portfile", portfile, "--referrers")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		cmd.Wait()
	})
	var port []byte
	eventually(t, "the registry listens", func() bool {
		b, err := os.ReadFile(portfile)
		port = b
		return err == nil && len(b) > 0
	})
	return "127.0.0.1:" + strings.TrimSpace(string(port))
}

func push(t *testing.T, h *gantry.Host, layout, tag, target string) {
	t.Helper()
	out, err := exec.Command(h.Program("mkimage"), "--push", "oci:"+layout+":"+tag, target).CombinedOutput()
	if err != nil {
		t.Fatalf("push %s: %v: %s", target, err, out)
	}
}

// eventually waits for what another program does and announces to nobody.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// logged waits until the pod wrote text.
func logged(t *testing.T, h *gantry.Host, pod, text string) {
	t.Helper()
	eventually(t, pod+" writes "+text, func() bool { return strings.Contains(h.Run("logs", pod).Stdout, text) })
}
