// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/built"
)

// TestBuildIsReproducible builds from two copies of the tree in two places, as
// from a tarball, and compares the executables byte by byte.
func TestBuildIsReproducible(t *testing.T) {
	root, err := built.Root()
	if err != nil {
		t.Fatal(err)
	}
	tree := copyTree(t, root, filepath.Join(t.TempDir(), "one"))
	again := copyTree(t, tree, filepath.Join(t.TempDir(), "another-place"))
	one, two := build(t, tree), build(t, again)
	entries, err := os.ReadDir(one)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		a, err := os.ReadFile(filepath.Join(one, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(two, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs between two builds", e.Name())
		}
		static(t, filepath.Join(one, e.Name()))
	}
	if len(entries) < 5 {
		t.Errorf("built only %v", entries)
	}
}

// copyTree copies what a release would hold, without a .git.
func copyTree(t *testing.T, from, to string) string {
	t.Helper()
	for _, p := range []string{"go.mod", "go.sum", "Makefile", "cmd", "internal", "image", "signature", "fetch", "stage0", "stage1", "cgroups", "netns", "seccomp", "userns"} {
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-r", filepath.Join(from, p), filepath.Join(to, p)).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v\n%s", p, err, out)
		}
	}
	return to
}

func build(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command("make", "-s", "build")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build in %s: %v\n%s", dir, err, out)
	}
	return filepath.Join(dir, "bin")
}

func static(t *testing.T, name string) {
	t.Helper()
	f, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s needs a dynamic linker", name)
		}
	}
}

// TestInstall puts everything where a package would.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("make", "-s", "install", "DESTDIR="+dir, "PREFIX=/usr")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	for _, name := range []string{
		"bin/gantry", "libexec/gantry/gantry-init", "libexec/gantry/gantry-stage1",
		"libexec/gantry/gantry-fetch", "libexec/gantry/gantry-seccomp", "share/man/man1/gantry.1", "share/man/man8/gantry-oci.8",
	} {
		if _, err := os.Stat(filepath.Join(dir, "usr", name)); err != nil {
			t.Error(err)
		}
	}
	out, err := exec.Command(filepath.Join(dir, "usr/bin/gantry"), "version").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) == "" {
		t.Errorf("the installed gantry: %v: %s", err, out)
	}
}

// TestMakefileSpeaksForItself: every target of the help exists, and help is
// what make says by itself.
func TestMakefileSpeaksForItself(t *testing.T) {
	cmd := exec.Command("make", "-s")
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make: %v\n%s", err, out)
	}
	for _, target := range []string{"build", "demo", "test", "test-vm", "check", "bench", "fuzz", "docs", "install", "help"} {
		if !strings.Contains("\n"+string(out), "\n"+target+" ") {
			t.Errorf("make help does not list %s:\n%s", target, out)
		}
	}
}
