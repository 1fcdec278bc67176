// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"os"
	"path/filepath"
	"testing"
)

// Who can write the directories decides what runs: filters and verifications
// are cached in one, images and pods lie in the other (CVE-2021-41103).
func TestCVE_2021_41103_DirectoriesOfOthersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("ability missing: root")
	}
	for name, spoil := range map[string]func(string) error{
		"world-writable": func(dir string) error { return os.Chmod(dir, 0o777) },
		"group-writable": func(dir string) error { return os.Chmod(dir, 0o770) },
		"another user's": func(dir string) error { return os.Chown(dir, 65534, 0) },
	} {
		dir := t.TempDir()
		good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
		if err := os.Mkdir(bad, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := spoil(bad); err != nil {
			t.Fatal(err)
		}
		if _, err := NewEnv(bad, good, "", ""); err == nil {
			t.Errorf("%s --dir was accepted", name)
		}
		if _, err := NewEnv(good, bad, "", ""); err == nil {
			t.Errorf("%s --run-dir was accepted", name)
		}
		if _, err := NewEnv(good, good, "", ""); err != nil {
			t.Errorf("a directory that is not there yet: %v", err)
		}
	}
}
