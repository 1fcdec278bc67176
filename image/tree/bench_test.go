// SPDX-License-Identifier: Apache-2.0

package tree_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/image/tree/layer"
)

// benchLayers is the image performance.md speaks of: 8 layers, 300 MB,
// 20,000 files, as compressible as programs are.
func benchLayers(b *testing.B) []blob {
	r := rand.New(rand.NewSource(1))
	words := make([]string, 4096)
	for i := range words {
		words[i] = random(4 + r.Intn(12))
	}
	var list []blob
	for l := range 8 {
		a := newArchive(b).dir(fmt.Sprintf("d%d", l))
		for i := range 2500 {
			var s strings.Builder
			for s.Len() < 15_000 {
				s.WriteString(words[r.Intn(len(words))])
			}
			a.add(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/%d/f%d", l, i%50, i), Mode: 0o644}, s.String())
		}
		list = append(list, gzipped(b, a.tar()))
	}
	return list
}

// BenchmarkBuild converts, seals and merges the whole image, one layer after
// the other; a fetch does layers side by side.
func BenchmarkBuild(b *testing.B) {
	blobs := benchLayers(b)
	b.ResetTimer()
	for b.Loop() {
		if _, err := build(openDir(b), blobs...); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConvert converts the layers only: gunzip, SHA-256, tar, writing.
func BenchmarkConvert(b *testing.B) {
	blobs := benchLayers(b)
	data, idx := temp(b), temp(b)
	var plain int64
	b.ResetTimer()
	b.ReportAllocs()
	for b.Loop() {
		plain = 0
		for _, l := range blobs {
			sum, err := layer.Convert(bytes.NewReader(l.data), tarGzip, l.diffID, tree.Limits{}, data, idx)
			if err != nil {
				b.Fatal(err)
			}
			plain += sum.Bytes
		}
	}
	b.SetBytes(plain)
}

func temp(b *testing.B) *os.File {
	f, err := os.CreateTemp(b.TempDir(), "")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return f
}

// BenchmarkMountAgain is what the second pod of an image pays.
func BenchmarkMountAgain(b *testing.B) {
	d := openDir(b)
	var archives []*archive
	for i := range 8 {
		archives = append(archives, newArchive(b).file(fmt.Sprint(i), "x"))
	}
	tr := mustBuild(b, d, archives...)
	mount(b, d, tr)
	for b.Loop() {
		m, err := d.Mount(tr)
		if err != nil {
			b.Fatal(err)
		}
		m.Close()
	}
}

// BenchmarkVerifyCached is what a launch pays where there is no fs-verity.
func BenchmarkVerifyCached(b *testing.B) {
	d, run := openDir(b), b.TempDir()
	var archives []*archive
	for i := range 8 {
		archives = append(archives, newArchive(b).file(fmt.Sprint(i), "x"))
	}
	tr := mustBuild(b, d, archives...)
	warm(b, d, tr, run)
	for b.Loop() {
		if _, err := d.Verify(tr, run, tree.LevelCached); err != nil {
			b.Fatal(err)
		}
	}
}
