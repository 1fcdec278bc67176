// SPDX-License-Identifier: Apache-2.0

package procfs_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/procfs"
)

func TestWriteAndReadOwnProc(t *testing.T) {
	p, err := procfs.Open()
	if errors.Is(err, os.ErrPermission) {
		t.Skip("ability missing: CAP_SYS_ADMIN")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Write("self/comm", []byte("renamed")); err != nil {
		t.Fatal(err)
	}
	b, err := p.Read("self/comm")
	if err != nil || strings.TrimSpace(string(b)) != "renamed" {
		t.Errorf("comm is %q, %v", b, err)
	}
	for _, path := range []string{"../etc/passwd", "/etc/passwd", "self/root/etc/passwd", "self/fd/0"} {
		if _, err := p.Read(path); err == nil {
			t.Errorf("%s was read", path)
		}
	}
	if err := p.Write("self/nosuch", nil); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v", err)
	}
}
