// SPDX-License-Identifier: Apache-2.0

package conf_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/internal/conf"
	"github.com/gantryrun/gantry/tests/ability"
)

// Who enters a user namespace sees no owners any more: Vet looks before, at
// everything, through links too.
func TestVet(t *testing.T) {
	ability.Require(t, ability.Root)
	layer := filepath.Join(t.TempDir(), "etc")
	dir := filepath.Join(layer, "trust.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "50-a.conf")
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	for _, f := range []string{file, elsewhere} {
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "60-b.conf")
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "70-c.conf")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(os.DevNull, filepath.Join(dir, "80-d.conf")); err != nil {
		t.Fatal(err)
	}
	vet := func() error { return conf.Vet([]string{layer, filepath.Join(layer, "missing")}) }
	if err := vet(); err != nil {
		t.Fatalf("all of it root's: %v", err)
	}
	for _, of := range []string{file, elsewhere, dir, layer} {
		if err := os.Chown(of, 4711, 4711); err != nil {
			t.Fatal(err)
		}
		if err := vet(); err == nil || !strings.Contains(err.Error(), "belongs to user 4711") {
			t.Errorf("%s of somebody else: %v", of, err)
		}
		if err := os.Chown(of, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := vet(); err == nil || !strings.Contains(err.Error(), "writable by others") {
		t.Errorf("a file that anybody may write: %v", err)
	}
}
