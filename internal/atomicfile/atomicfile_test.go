// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/flock"
)

func openRoot(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func names(t *testing.T, root *os.Root) []string {
	t.Helper()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestWrite(t *testing.T) {
	root := openRoot(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for _, content := range []string{"first", "second and longer", ""} {
		if err := Write(root, "x", []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		b, err := root.ReadFile("x")
		if err != nil || string(b) != content {
			t.Errorf("got %q, %v, want %q", b, err, content)
		}
	}
	if info, err := root.Stat("x"); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if n := names(t, root); len(n) != 1 {
		t.Errorf("left %v", n)
	}
}

func TestWrite_inDirectoryBelow(t *testing.T) {
	root := openRoot(t)
	if err := root.Mkdir("d", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(root, "d/x", []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := root.ReadFile("d/x"); err != nil || string(b) != "y" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestCreate_leavesWhatIsThere(t *testing.T) {
	root := openRoot(t)
	if err := Create(root, "x", []byte("first"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := Create(root, "x", []byte("second"), 0o644)
	if want := "write " + root.Name() + "/x: file exists"; !errors.Is(err, fs.ErrExist) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if b, err := root.ReadFile("x"); err != nil || string(b) != "first" {
		t.Errorf("got %q, %v", b, err)
	}
	if n := names(t, root); len(n) != 1 {
		t.Errorf("left %v", n)
	}
}

// A write that fails leaves the old content and no file of its own.
func TestWrite_failureLeavesTheOld(t *testing.T) {
	root := openRoot(t)
	if err := root.MkdirAll("x/y", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x", "absent/x", "../x", ""} {
		if err := Write(root, name, []byte("new"), 0o600); err == nil {
			t.Errorf("%q was written", name)
		}
	}
	if n := names(t, root); len(n) != 1 || n[0] != "x" {
		t.Errorf("left %v", n)
	}
}

// Readers see one of the contents, whole, whatever happens at the same time.
func TestWrite_isAtomic(t *testing.T) {
	root := openRoot(t)
	content := func(i int) []byte { return bytes.Repeat([]byte(fmt.Sprint(i)), 10000) }
	if err := Write(root, "x", content(0), 0o600); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for range 5 {
				if err := Write(root, "x", content(i), 0o600); err != nil {
					t.Error(err)
				}
				if _, err := Sweep(root); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		b, err := root.ReadFile("x")
		if err != nil || len(b) != 10000 || !bytes.Equal(b, bytes.Repeat(b[:1], 10000)) {
			t.Fatalf("read %d bytes, %v", len(b), err)
		}
	}
	if n := names(t, root); len(n) != 1 {
		t.Errorf("left %v", n)
	}
}

func TestSweep_sparesLivingWriters(t *testing.T) {
	root := openRoot(t)
	temp, living, err := create(root, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer living.Close()
	if err := root.WriteFile(tempPrefix+"x-dead", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := root.WriteFile("x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := flock.TryShared(living); err != nil {
		t.Fatal(err) // its own lock, on the same description
	}
	if n, err := Sweep(root); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if n := names(t, root); len(n) != 2 || n[0] != temp || !IsTemp(n[0]) || IsTemp(n[1]) {
		t.Errorf("left %v", n)
	}
	if _, err := root.Stat(tempPrefix + "x-dead"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
