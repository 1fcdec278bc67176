// SPDX-License-Identifier: Apache-2.0

package layer_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/image/tree/erofs"
	"github.com/gantryrun/gantry/image/tree/index"
	"github.com/gantryrun/gantry/image/tree/layer"
)

// small limits keep a fuzzed input from costing more than it should.
var small = layer.Limits{Bytes: 4 << 20, Entries: 2000, Path: 300, Depth: 20}

// FuzzConvert: any tar is converted or refused, and what was converted can be
// merged and written.
func FuzzConvert(f *testing.F) {
	f.Add(tarOf(f, tar.Header{Name: "f", Size: 5000}, link(tar.TypeSymlink, "l", "f"), link(tar.TypeLink, "h", "f"),
		tar.Header{Typeflag: tar.TypeDir, Name: "d/"}, tar.Header{Name: "d/.wh..wh..opq"}, tar.Header{Name: ".wh.x"}))
	f.Add(rawSparse([]byte("1\n0\n1\nx")))
	f.Add(rawPAX("SCHILY.xattr.user.a", "b"))
	f.Add(pack(f, tarOf(f)))
	data, idx, out := scratch(f), scratch(f), scratch(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, mediaType := range []string{plain, gz, zst} {
			sum, err := layer.Convert(bytes.NewReader(b), mediaType, digest.FromBytes(b), small, data, idx)
			if err != nil {
				continue
			}
			if st, err := data.Stat(); err != nil || st.Size() != sum.Data {
				t.Fatalf("data has %d bytes, not %d", st.Size(), sum.Data)
			}
			img, err := index.Merge([]io.ReaderAt{idx, idx}, small)
			if err != nil {
				continue // names that cannot be: a link to nothing
			}
			if err := erofs.Write(img, io.NewOffsetWriter(out, 0)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzMerge: an index is merged or refused whatever a converter wrote.
func FuzzMerge(f *testing.F) {
	b := tarOf(f, tar.Header{Name: "a/f", Size: 5000}, link(tar.TypeSymlink, "l", "a"), link(tar.TypeLink, "h", "l/f"), tar.Header{Name: "a/.wh.f"})
	data, idx, out := scratch(f), scratch(f), scratch(f)
	if _, err := layer.Convert(bytes.NewReader(b), plain, digest.FromBytes(b), small, data, idx); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(idx.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, seed)
	f.Add(seed, []byte{})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		// A header of the right form lets the fuzzer reach what is behind it.
		for _, b := range [][]byte{one, two} {
			if len(b) >= index.HeaderSize {
				copy(b, seed[:16])
			}
		}
		img, err := index.Merge([]io.ReaderAt{bytes.NewReader(one), bytes.NewReader(two)}, small)
		if err != nil {
			return
		}
		if err := erofs.Write(img, io.NewOffsetWriter(out, 0)); err != nil {
			t.Fatal(err)
		}
	})
}

func scratch(f *testing.F) *os.File {
	file, err := os.CreateTemp(f.TempDir(), "")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { file.Close() })
	return file
}
