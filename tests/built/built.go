// SPDX-License-Identifier: Apache-2.0

// Package built finds the executables under test. The suite names them by
// GANTRY_TEST_BIN; a single "go test" makes its own, so that a developer never
// tests yesterday's.
package built

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Env is the variable that names the directory of built executables.
const Env = "GANTRY_TEST_BIN"

// Dir returns the directory of gantry, its libexec programs and the programs
// of tests/cmd, which it builds if nobody has. Where there is neither, as in a
// guest without Go, the test is skipped.
func Dir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv(Env); dir != "" {
		return dir
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skipf("ability missing: executables: %s is not set and %v", Env, err)
	}
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Path returns the path of one executable.
func Path(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(Dir(t), name)
}

// build calls make, the one place that knows every build flag.
var build = sync.OnceValues(func() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("make", "-s", "build", "test-programs")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return filepath.Join(root, "bin"), nil
})

// Root returns the top directory of the repository, looking upwards for the
// module file; in a guest, where the tree is packed without it, an error.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find the module's root: no go.mod above the working directory")
		}
		dir = parent
	}
}
