// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image/store"
)

// Guards: a history that says too little or too much never runs past the
// layers there are.
func TestHistory(t *testing.T) {
	a, b := digest.FromString("a"), digest.FromString("b")
	for name, tt := range map[string]struct {
		steps []ispec.History
		want  []digest.Digest // newest first
	}{
		"none":     {nil, []digest.Digest{b, a}},
		"exact":    {[]ispec.History{{CreatedBy: "1"}, {EmptyLayer: true}, {CreatedBy: "2"}}, []digest.Digest{b, "", a}},
		"too few":  {[]ispec.History{{CreatedBy: "1"}}, []digest.Digest{b, a}},
		"too many": {[]ispec.History{{}, {}, {}, {}}, []digest.Digest{"", "", b, a}},
	} {
		var img store.Image
		img.Manifest.Layers = []ispec.Descriptor{{Digest: a}, {Digest: b}}
		img.Config.History = tt.steps
		lines := history(img, map[digest.Digest]int64{a: 1})
		if len(lines) != len(tt.want) {
			t.Errorf("%s: got %d lines, want %d", name, len(lines), len(tt.want))
			continue
		}
		for i, l := range lines {
			if l.Layer != tt.want[i] || l.Layer == a && l.Size != 1 {
				t.Errorf("%s: line %d is %+v, want layer %s", name, i, l, tt.want[i])
			}
		}
	}
}

// Guards: only EROFS mounts are taken for images, whatever their paths hold.
func TestErofsMount(t *testing.T) {
	for line, want := range map[string][2]string{
		`36 35 7:0 / /mnt/a\040b ro,nosuid,nodev - erofs /dev/loop3 ro`:  {"/mnt/a b", "/dev/loop3"},
		`36 35 7:0 / /mnt/x ro master:1 - erofs /dev/loop4 ro`:           {"/mnt/x", "/dev/loop4"},
		`36 35 98:0 / /mnt/erofs rw - ext4 /dev/root rw`:                 {},
		`36 35 98:0 / /mnt/-\040erofs\040/dev/loop1 rw - tmpfs tmpfs rw`: {},
		`36 35 98:0`: {},
	} {
		path, source, ok := erofsMount(line)
		if [2]string{path, source} != want || ok != (want[0] != "") {
			t.Errorf("%s: got %q, %q, %v", line, path, source, ok)
		}
	}
}
