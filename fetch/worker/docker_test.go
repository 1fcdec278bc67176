// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/tests/imagetest"
)

// FuzzDockerArchive: whatever an archive holds, the worker answers with places
// inside it or with an error.
func FuzzDockerArchive(f *testing.F) {
	image, err := imagetest.Image{Layers: []imagetest.Layer{
		{Files: []imagetest.File{{Path: "x", Body: []byte("x")}}}, {Files: []imagetest.File{{Path: "x", Body: []byte("x")}}},
	}}.Pack()
	if err != nil {
		f.Fatal(err)
	}
	for _, style := range []string{"old", "hybrid"} {
		name := filepath.Join(f.TempDir(), style)
		if err := imagetest.DockerArchive(name, style, "", imagetest.Saved{Packed: image, Names: []string{"a:1"}}); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "")
		f.Add(b, "docker.io/library/a:1")
		f.Add(b, "@0")
	}
	file, err := os.CreateTemp(f.TempDir(), "archive")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { file.Close() })
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		l := &layout{order: wire.LayoutStart{Archive: true, Docker: true, Tag: name}}
		if l.open(file) != nil {
			return
		}
		d, err := l.docker()
		if err != nil {
			return
		}
		for _, c := range append(d.Layers, d.Config) {
			if c.Digest == "" || c.Size < 0 || c.Offset < 0 {
				t.Errorf("got %+v", c)
			}
		}
	})
}
