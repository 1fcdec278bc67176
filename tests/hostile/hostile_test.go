// SPDX-License-Identifier: Apache-2.0

// Package hostile hands gantry images that no honest builder makes, each signed
// by a trusted key, so that nothing but gantry itself stands in their way.
package hostile

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/gantry"
	"github.com/gantryrun/gantry/tests/imagetest"
)

// TestImages: each is refused by fetch, or starts and has done no harm; it never
// hangs, never crashes, and leaves nothing on the host.
func TestImages(t *testing.T) {
	ability.Require(t, ability.Root, ability.Tool("busybox"))
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	escape := filepath.Join(os.TempDir(), "gantry-escape")
	for _, attack := range imagetest.Attacks() {
		t.Run(attack.Name, func(t *testing.T) {
			h := gantry.New(t)
			base, err := imagetest.Busybox(busybox, h.Program("inspect"))
			if err != nil {
				t.Fatal(err)
			}
			ref := h.Add("image", attack.Image(base))
			before := snapshot(t)
			if r := h.Run("sign", "--key", h.Key()+".key", ref); r.Status != 0 {
				if !attack.Refused {
					t.Fatalf("sign: %s", r.Stderr)
				}
				return // what cannot even be signed cannot be trusted
			}
			r := h.Within(90*time.Second, "fetch", ref)
			check(t, "fetch", r)
			if attack.Refused {
				refuse(t, h, ref, r)
			} else if r.Status == 0 {
				check(t, "run", h.Within(60*time.Second, "run", "--rm", ref, "true"))
			}
			if after := snapshot(t); after != before {
				t.Errorf("the host has changed:\n%s\n%s", before, after)
			}
			for _, path := range []string{escape, "/tmp/gantry-escape"} {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%s was written", path)
				}
			}
		})
	}
}

// check wants an end of gantry's own or the app's making, and soon.
func check(t *testing.T, what string, r gantry.Result) {
	t.Helper()
	if r.Killed {
		t.Fatalf("%s did not end", what)
	}
	if strings.Contains(r.Stderr, "panic:") || strings.Contains(r.Stderr, "goroutine ") {
		t.Errorf("%s crashed:\n%s", what, r.Stderr)
	}
	for _, c := range r.Stderr {
		if c < ' ' && c != '\n' && c != '\t' {
			t.Errorf("%s prints the control character %q of the image", what, c)
		}
	}
}

func refuse(t *testing.T, h *gantry.Host, ref string, r gantry.Result) {
	t.Helper()
	if r.Status != 125 {
		t.Fatalf("fetch: exit status %d, want a refusal (125)\n%s", r.Status, r.Stderr)
	}
	t.Logf("%s", r.Stderr)
	if r := h.Run("run", "--rm", "--pull=never", ref, "true"); r.Status != 125 {
		t.Errorf("it runs all the same: exit status %d", r.Status)
	}
}

// snapshot is the state that images have been known to change.
func snapshot(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, path := range []string{"/etc/passwd", "/etc/group", "/etc/shadow", "/dev/null", "/tmp", "/proc/sys/kernel/core_pattern"} {
		fi, err := os.Lstat(path)
		if err != nil {
			continue
		}
		out.WriteString(path + " " + fi.Mode().String() + "\n")
	}
	b, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	return out.String() + string(b)
}
