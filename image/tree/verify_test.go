// SPDX-License-Identifier: Apache-2.0

package tree_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantryrun/gantry/image/tree"
)

// change flips one byte of a file of a tree and keeps size and mtime, as
// somebody would who does not want it seen.
func change(t testing.TB, d *tree.Dir, f tree.File) {
	t.Helper()
	path := filepath.Join(d.Path(), f.Path)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	// Replaced when the kernel guards the file and lets nobody write it.
	if os.WriteFile(path, b, 0o400) != nil {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(path, st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// TestMountTakesWhatWasVerified: files that are replaced or changed between
// the two are not mounted, be they as good or not.
func TestMountTakesWhatWasVerified(t *testing.T) {
	for i, pick := range []func(tree.Tree) tree.File{
		func(t tree.Tree) tree.File { return t.Image },
		func(t tree.Tree) tree.File { return t.Layers[0].Data },
	} {
		d := openDir(t)
		tr, err := build(d, gzipped(t, newArchive(t).file("a", "content").tar()))
		if err != nil {
			t.Fatal(err)
		}
		proof, err := d.Verify(tr, t.TempDir(), tree.LevelCached)
		if err != nil {
			t.Fatal(err)
		}
		change(t, d, pick(tr))
		m, err := d.Mount(tr.Proven(proof))
		if err == nil {
			m.Close()
		}
		if !errors.Is(err, tree.ErrChanged) {
			t.Errorf("%d: mounted, or failed for another reason: %v", i, err)
		}
	}
}

// TestVerifySeesAFlippedByte in every file of a tree, from a warm cache too.
func TestVerifySeesAFlippedByte(t *testing.T) {
	files := map[string]func(tree.Tree) tree.File{
		"image": func(t tree.Tree) tree.File { return t.Image },
		"data":  func(t tree.Tree) tree.File { return t.Layers[0].Data },
		"index": func(t tree.Tree) tree.File { return t.Layers[0].Index },
	}
	for name, pick := range files {
		t.Run(name, func(t *testing.T) {
			d, run := openDir(t), t.TempDir()
			b := gzipped(t, newArchive(t).file("a", "content").tar())
			tr, err := build(d, b)
			if err != nil {
				t.Fatal(err)
			}
			warm(t, d, tr, run)
			change(t, d, pick(tr))
			level := tree.LevelCached
			if name == "index" {
				level = tree.LevelFull // a launch does not read it
			}
			if _, err := d.Verify(tr, run, level); !errors.Is(err, tree.ErrChanged) {
				t.Errorf("Verify = %v", err)
			}
			if name == "image" {
				return
			}
			if _, ok := d.Layer(b.blob); ok {
				t.Error("Layer offers the changed layer to the next image")
			}
			// Fetching again mends it.
			if again, err := build(d, b); err != nil || again.Layers[0] != tr.Layers[0] && again.Layers[0].Data.Verity == "" {
				t.Errorf("build again: %v", err)
			}
			if _, err := d.Verify(tr, run, tree.LevelFull); err != nil {
				t.Errorf("mended: %v", err)
			}
		})
	}
}

// warm lets a Verify be remembered: files older than the clock's grain.
func warm(t testing.TB, d *tree.Dir, tr tree.Tree, run string) tree.Proof {
	t.Helper()
	time.Sleep(150 * time.Millisecond) // the grain is real time of the kernel's clock
	p, err := d.Verify(tr, run, tree.LevelCached)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestVerifyLevels: hashed once, believed afterwards, hashed when asked.
func TestVerifyLevels(t *testing.T) {
	d, run := openDir(t), t.TempDir()
	tr := mustBuild(t, d, newArchive(t).file("a", "a"))
	first := warm(t, d, tr, run)
	began := time.Now()
	second, err := d.Verify(tr, run, tree.LevelCached)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s, then %s in %v", first.Level, second.Level, time.Since(began))
	if tr.Image.Verity == "" && (first.Level != tree.ByHash || second.Level != tree.ByCache) {
		t.Errorf("levels %+v, %+v", first, second)
	}
	if tr.Image.Verity != "" && first.Level != tree.ByVerity {
		t.Errorf("level %+v on a file system with fs-verity", first)
	}
	if full, err := d.Verify(tr, run, tree.LevelFull); err != nil || full.Level != tree.ByHash {
		t.Errorf("full: %+v, %v", full, err)
	}
}

// TestVerifyDoesNotCacheAFreshFile: a change in the same tick of the clock
// would leave the same times.
func TestVerifyDoesNotCacheAFreshFile(t *testing.T) {
	d, run := openDir(t), t.TempDir()
	tr := mustBuild(t, d, newArchive(t).file("a", "a"))
	if tr.Image.Verity != "" {
		t.Skip("the file system has fs-verity, so nothing is cached")
	}
	now := time.Now()
	if err := os.Chtimes(filepath.Join(d.Path(), tr.Image.Path), now, now); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Verify(tr, run, tree.LevelCached); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(run, "verified", "images-*"))
	if time.Since(now) < 100*time.Millisecond && len(left) != 0 {
		t.Errorf("cached %v", left)
	}
}

// TestRecordsAreSealed: without the host's key no record of a converted layer
// is believed, and one of another key is not either.
func TestRecordsAreSealed(t *testing.T) {
	d := openDir(t)
	b := gzipped(t, newArchive(t).file("a", "a").tar())
	if _, err := convert(d, b); err != nil {
		t.Fatal(err)
	}
	for _, key := range [][]byte{nil, bytes.Repeat([]byte{8}, 32)} {
		other, err := tree.Open(d.Path(), key)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := other.Layer(b.blob); ok {
			t.Errorf("key %x: believed", key)
		}
		other.Close()
	}
}

// TestSameLayersSameBytes: conversion and merge are deterministic.
func TestSameLayersSameBytes(t *testing.T) {
	one, two := openDir(t), openDir(t)
	var layers []blob // made once: some of their times are those of the clock
	for _, a := range append(oddLayers(t), whiteoutLayers(t)...) {
		layers = append(layers, gzipped(t, a.tar()))
	}
	a, err := build(one, layers...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := build(two, layers...)
	if err != nil {
		t.Fatal(err)
	}
	if a.Image.Digest != b.Image.Digest {
		t.Errorf("image %s and %s", a.Image.Digest, b.Image.Digest)
	}
	for i := range a.Layers {
		if a.Layers[i].Data.Digest != b.Layers[i].Data.Digest || a.Layers[i].Index.Digest != b.Layers[i].Index.Digest {
			t.Errorf("layer %d differs", i)
		}
	}
}
