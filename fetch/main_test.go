// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/gantryrun/gantry/fetch/worker"
	"github.com/gantryrun/gantry/tests/built"
)

// The test executable is its own gantry-fetch: started under that name it is
// a worker, a good one or, by the name of the directory it is started from,
// one of the bad ones of hostile_test.go. None of this is in the product.

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case executable:
	case parentName:
		parentMain(os.Args[1:])
	default:
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	play := map[string]func([]string) error{
		"good":  worker.Main,
		"probe": probe,
	}
	for name, f := range villains() {
		play[name] = f
	}
	role := filepath.Base(filepath.Dir(os.Args[0]))
	if err := play[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// libexec returns a directory whose gantry-fetch plays the role.
func libexec(t testing.TB, role string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("ability missing: root: workers are started by root")
	}
	if withCgo && role == "good" {
		return built.Dir(t)
	}
	if withCgo && role == "probe" {
		t.Skip("ability missing: executables: a worker with cgo cannot confine itself; run with CGO_ENABLED=0")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), role)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, executable)); err != nil {
		t.Fatal(err)
	}
	return dir
}
