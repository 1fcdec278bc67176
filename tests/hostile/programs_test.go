// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"archive/tar"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/gantry"
	"github.com/gantryrun/gantry/tests/imagetest"
)

// TestPrograms: what stands where the program should is looked at before the
// app is confined, to have it read ahead. It is refused like anything that is no
// program, soon, and by its name; a pipe nobody writes holds nobody.
func TestPrograms(t *testing.T) {
	ability.Require(t, ability.Root, ability.Tool("busybox"))
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	h := gantry.New(t)
	image, err := imagetest.Busybox(busybox)
	if err != nil {
		t.Fatal(err)
	}
	image.Layers = append(image.Layers, imagetest.Layer{Files: []imagetest.File{
		imagetest.Dir("odd", 0o755),
		{Path: "odd/pipe", Type: tar.TypeFifo, Mode: 0o755},
		{Path: "odd/device", Type: tar.TypeChar, Major: 5, Minor: 0, Mode: 0o777}, // /dev/tty
		imagetest.Symlink("odd/loop", "loop"),
		imagetest.Symlink("odd/host", "../../../../../../../../proc/self/root/etc"),
		{Path: "odd/zeroes", Mode: 0o755, Body: make([]byte, 16<<20)},
	}})
	ref := h.Signed("odd", image)
	h.Must("fetch", ref)
	for _, c := range []struct {
		program string
		status  int
	}{
		{"/odd", 126},
		{"/odd/pipe", 126},
		{"/odd/device", 126},
		{"/odd/loop", 126},
		{"/odd/host", 126},
		{"/odd/zeroes", 126},
		{"pipe", 126},
		{"device", 126},
		{"loop", 127},
		{"zeroes", 126},
		{"/" + strings.Repeat("x", 5000), 126},
		{"../../../../odd/pipe", 126},
	} {
		t.Run(c.program[:min(len(c.program), 20)], func(t *testing.T) {
			r := h.Within(30*time.Second, "run", "--rm", "-e", "PATH=/odd", ref, c.program)
			check(t, "run", r)
			if r.Status != c.status || !strings.Contains(r.Stderr, c.program) {
				t.Errorf("exit status %d, want %d: %s", r.Status, c.status, r.Stderr)
			}
		})
	}
}
