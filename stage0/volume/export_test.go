// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/flock"
)

// contents reads an archive: what each entry is, and the text of files.
func contents(t *testing.T, b []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(h.Typeflag) + string(text) + h.Linkname
	}
}

func TestExport(t *testing.T) {
	d := Open(t.TempDir())
	if _, err := d.Create("v", nil, nil); err != nil {
		t.Fatal(err)
	}
	data := d.Mountpoint("v")
	long := strings.Repeat("n", 200)
	for _, err := range []error{
		os.MkdirAll(filepath.Join(data, "a/b"), 0o700),
		os.WriteFile(filepath.Join(data, "a/f"), []byte("text"), 0o640),
		os.Link(filepath.Join(data, "a/f"), filepath.Join(data, "z")),
		os.Symlink("/etc/shadow", filepath.Join(data, "link")),
		unix.Mkfifo(filepath.Join(data, "pipe"), 0o600),
		os.WriteFile(filepath.Join(data, long), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := d.Export("v", &b); err != nil {
		t.Fatal(err)
	}
	got := contents(t, b.Bytes())
	want := map[string]string{"./": "5", "./a/": "5", "./a/b/": "5", "./a/f": "0text", "./z": "1./a/f", "./link": "2/etc/shadow", "./pipe": "6", "./" + long: "0"}
	if len(got) != len(want) {
		t.Errorf("got %q", got)
	}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s: got %q, want %q", name, got[name], w)
		}
	}
	if err := d.Export("none", io.Discard); !errors.Is(err, ErrNotFound) {
		t.Errorf("none: %v", err)
	}
}

// A name with "=" ended the archive, since that ends the key of a PAX record.
func TestExportEncodesNamesOfAttributes(t *testing.T) {
	d := Open(t.TempDir())
	if _, err := d.Create("v", nil, nil); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(d.Mountpoint("v"), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(file, "user.a=b%c", []byte("value"), 0); err != nil {
		t.Skipf("ability missing: user attributes: %v", err)
	}
	var b bytes.Buffer
	if err := d.Export("v", &b); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&b)
	for {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "./f" {
			if got := h.PAXRecords["SCHILY.xattr.user.a%3Db%25c"]; got != "value" {
				t.Errorf("records %q", h.PAXRecords)
			}
			return
		}
	}
}

// An export of a volume that was never mounted kept all others out until its
// reader was done, and waited for all others.
func TestExportSharesTheVolume(t *testing.T) {
	d := Open(t.TempDir())
	if _, err := d.Create("v", nil, nil); err != nil {
		t.Fatal(err)
	}
	other, err := d.open("v")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := flock.Shared(other); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Export("v", io.Discard) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for another reader")
	}
}

// podman: a directory of a volume that an app exchanged for a link while the
// volume was exported had a directory of the host exported.
func TestCVE_2023_0778_ExportFollowsNoLink(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "f"), []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := Open(t.TempDir())
	if _, err := d.Create("v", nil, nil); err != nil {
		t.Fatal(err)
	}
	dir, link := filepath.Join(d.Mountpoint("v"), "dir"), filepath.Join(d.Mountpoint("v"), "link")
	for _, err := range []error{
		os.Mkdir(dir, 0o700),
		os.WriteFile(filepath.Join(dir, "f"), []byte("of the volume"), 0o600),
		os.Symlink(outside, link),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	seen := 0
	for range 500 {
		var b bytes.Buffer
		if err := d.Export("v", &b); err != nil {
			t.Fatal(err)
		}
		for name, text := range contents(t, b.Bytes()) {
			if strings.HasSuffix(name, "/f") {
				seen++
			}
			if strings.Contains(text, "of the host") {
				t.Fatalf("%s is %q", name, text)
			}
		}
	}
	close(quit)
	<-done
	if seen == 0 {
		t.Error("the volume's own file was never exported")
	}
}
