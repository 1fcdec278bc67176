// SPDX-License-Identifier: Apache-2.0

package bounded

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAll(t *testing.T) {
	if b, err := All(strings.NewReader("1234"), 4); err != nil || string(b) != "1234" {
		t.Errorf("as much as was agreed: %q, %v", b, err)
	}
	if b, err := All(strings.NewReader("12345"), 4); !errors.Is(err, ErrTooLarge) || b != nil {
		t.Errorf("more than was agreed: %q, %v", b, err)
	}
}

func TestFilesAreNamedOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	for what, read := range map[string]func(string, int64) ([]byte, error){"File": File, "Regular": Regular} {
		_ = os.Remove(name)
		if _, err := read(name, 4); !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), name) != 1 {
			t.Errorf("%s of what is not there: %v", what, err)
		}
		if err := os.WriteFile(name, []byte("12345"), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := read(name, 5); err != nil || string(b) != "12345" {
			t.Errorf("%s: %q, %v", what, b, err)
		}
		_, err := read(name, 4)
		if !errors.Is(err, ErrTooLarge) || strings.Count(err.Error(), name) != 1 {
			t.Errorf("%s of what is too large: %v", what, err)
		}
		if cause := Cause(err).Error(); cause != "it is too large: more than 4 bytes" {
			t.Errorf("the cause: %s", cause)
		}
		if _, err := read("/dev/zero", 4); err == nil {
			t.Errorf("%s reads a device without end", what)
		}
	}
}

// TestPipes: one where configuration is keeps nobody waiting, one that the user
// named is read.
func TestPipes(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Regular(name, 4); !errors.Is(err, ErrNotRegular) {
		t.Errorf("Regular of a FIFO: %v", err)
	}
	go func() { _ = os.WriteFile(name, []byte("here"), 0) }()
	if b, err := File(name, 4); err != nil || string(b) != "here" {
		t.Errorf("File of a FIFO: %q, %v", b, err)
	}
}
