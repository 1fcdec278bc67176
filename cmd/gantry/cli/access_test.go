// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAccessHint(t *testing.T) {
	const root = "the host's root"
	dir := t.TempDir()
	mine := filepath.Join(dir, "mine")
	if err := os.WriteFile(mine, nil, 0); err != nil {
		t.Fatal(err)
	}
	sound := filepath.Join(dir, "sound")
	if err := os.WriteFile(sound, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	denied := func(path string, errno syscall.Errno) error {
		return &fs.PathError{Op: "open", Path: path, Err: errno}
	}
	for what, c := range map[string]struct {
		err  error
		want string
	}{
		"a file of one's own":     {denied(mine, syscall.EACCES), mine + " is yours, but has mode 0000"},
		"one that has the mode":   {denied(sound, syscall.EACCES), sound + " is yours, and its mode 0600 allows it"},
		"what is not there":       {denied(filepath.Join(dir, "a/b"), syscall.EACCES), dir + " is yours"},
		"a relative path":         {denied("mine", syscall.EACCES), root},
		"a call that needs root":  {denied(mine, syscall.EPERM), root},
		"an error without a path": {errors.Join(syscall.EACCES), root},
	} {
		if got := accessHint(c.err); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q in it", what, got, c.want)
		}
	}
}

func TestAccessHint_somebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("ability missing: root")
	}
	name := filepath.Join(t.TempDir(), "theirs")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(name, 54321, 54321); err != nil {
		t.Fatal(err)
	}
	got := accessHint(&fs.PathError{Op: "open", Path: name, Err: syscall.EACCES})
	if !strings.Contains(got, name+" is user 54321's, and has mode 0600") {
		t.Errorf("got %q", got)
	}
}
