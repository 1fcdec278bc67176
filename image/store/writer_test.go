// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func blob(content string) ispec.Descriptor {
	return ispec.Descriptor{MediaType: ispec.MediaTypeImageLayer, Digest: digest.FromString(content), Size: int64(len(content))}
}

func TestWriter_checksWhatItWrites(t *testing.T) {
	for name, c := range map[string]struct {
		d       ispec.Descriptor
		content string
	}{
		"other content": {blob("abc"), "abd"},
		"too short":     {blob("abc"), "ab"},
		"too long":      {blob("abc"), "abcd"},
		"nothing":       {blob("abc"), ""},
		"wrong size":    {ispec.Descriptor{MediaType: "a/b", Digest: digest.FromString("abc"), Size: 4}, "abc"},
	} {
		s := open(t, t.TempDir())
		w, err := s.Writer(context.Background(), c.d)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(w, c.content)
		if commitErr := w.Commit(); !errors.Is(commitErr, ErrCorrupt) || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: write %v, commit %v", name, err, commitErr)
		}
		if names, err := s.list(blobsDir + "/sha256"); err != nil || len(names) > 0 {
			t.Errorf("%s: %v is in the store, %v", name, names, err)
		}
		if err := w.Commit(); err == nil {
			t.Errorf("%s: committed twice", name)
		}
		if _, err := w.Write(nil); err == nil {
			t.Errorf("%s: written after the end", name)
		}
		w.Abort()
	}
}

func TestWriter_abortLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	w, err := s.Writer(context.Background(), blob("abc"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "abc"); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	names, err := s.list(ingestDir)
	if err != nil || len(names) != 1 || !strings.HasPrefix(names[0], leasePrefix) {
		t.Errorf("%s has %v, %v", ingestDir, names, err)
	}
}

func TestWriter_sha512AndEmptyBlobs(t *testing.T) {
	s := open(t, t.TempDir())
	for _, d := range []ispec.Descriptor{
		{MediaType: "a/b", Digest: digest.SHA512.FromString("abc"), Size: 3},
		{MediaType: "a/b", Digest: digest.FromString(""), Size: 0},
	} {
		w, err := s.Writer(context.Background(), d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "abc"[:d.Size]); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(d); err != nil || !s.Has(d) {
			t.Error(err)
		}
	}
}

// A blob of another size than wanted is not there, and is replaced.
func TestWriter_replacesTruncatedBlob(t *testing.T) {
	s := open(t, t.TempDir())
	d := put(t, s, "a/b", []byte("abc"))
	path := filepath.Join(s.dir, "blobs/sha256", d.Digest.Encoded())
	if err := os.WriteFile(path, []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.Has(d) {
		t.Error("a truncated blob is there")
	}
	put(t, s, "a/b", []byte("abc"))
	if err := s.Verify(d); err != nil {
		t.Error(err)
	}
}

// Many want the same blobs at once; each is written by one of them. Every
// Store has its own descriptors, so for flock(2) they are as good as processes.
func TestWriter_concurrentFetchesDoTheWorkOnce(t *testing.T) {
	dir := t.TempDir()
	var work, failures atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		s := open(t, dir)
		for i := range 4 {
			all.Go(func() {
				content := fmt.Sprintf("content %d", i)
				w, err := s.Writer(context.Background(), blob(content))
				if errors.Is(err, ErrExists) {
					if err := s.Verify(blob(content)); err != nil {
						t.Errorf("said to exist: %v", err)
					}
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				// The first to come fails, and the next goes on.
				if failures.Add(1) == 1 {
					w.Abort()
					return
				}
				work.Add(1)
				if _, err := io.WriteString(w, content); err != nil {
					t.Error(err)
				}
				if err := w.Commit(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if work.Load() != 4 {
		t.Errorf("4 blobs were written %d times", work.Load())
	}
}

// Names set by many at once are all there, and readers never see anything but a
// whole index.
func TestTag_concurrent(t *testing.T) {
	dir := t.TempDir()
	d, _ := putImage(t, open(t, dir), "x", "amd64")
	const writers, each = 8, 5
	var all sync.WaitGroup
	for i := range writers {
		s := open(t, dir)
		all.Go(func() {
			for j := range each {
				tag(t, s, fmt.Sprintf("app-%d:%d", i, j), d)
				if _, err := s.Entries(); err != nil {
					t.Error(err)
				}
				if _, err := s.GC(nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	s := open(t, dir)
	for i := range writers {
		for j := range each {
			if _, err := s.Manifest(parse(t, fmt.Sprintf("app-%d:%d", i, j)), amd64); err != nil {
				t.Error(err)
			}
		}
	}
}

// A store made by several at once is made once, and nothing of it is lost.
func TestOpen_concurrent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "store")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			s, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			d, err := s.Put("a/b", []byte("content"))
			if err != nil {
				t.Error(err)
				return
			}
			tag(t, s, fmt.Sprintf("app:%d", i), d)
		})
	}
	all.Wait()
	if entries, err := open(t, dir).Entries(); err != nil || len(entries) != 8 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}
