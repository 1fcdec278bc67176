// SPDX-License-Identifier: Apache-2.0

package flock

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestLocksExcludeEachOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	a, b := openFile(t, path), openFile(t, path)
	for _, c := range []struct {
		name   string
		first  func(*os.File) error
		second func(*os.File) error
		locked bool
	}{
		{"exclusive, exclusive", Exclusive, TryExclusive, true},
		{"exclusive, shared", TryExclusive, TryShared, true},
		{"shared, exclusive", Shared, TryExclusive, true},
		{"shared, shared", TryShared, TryShared, false},
	} {
		if err := c.first(a); err != nil {
			t.Fatal(err)
		}
		err := c.second(b)
		if errors.Is(err, ErrLocked) != c.locked || !c.locked && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.locked && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v does not name the file", c.name, err)
		}
		if err := errors.Join(Unlock(a), Unlock(b)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExclusiveWaitsForClose(t *testing.T) {
	dir := t.TempDir()
	a, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := Exclusive(a); err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() { got <- Exclusive(b) }()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	f := openFile(t, filepath.Join(t.TempDir(), "x"))
	if _, err := OpenDir(f.Name()); err == nil {
		t.Error("a file was opened as a directory")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := TryShared(f); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("a closed file: %v", err)
	}
}
