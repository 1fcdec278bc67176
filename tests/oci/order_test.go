// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What is mounted later covers, or lies in, what was mounted before, whichever of
// the two is a bind mount, whose source is opened before all (config.md, Mounts).
func TestMountsAreAttachedInTheirOrder(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "bound"), nil, 0o644), os.Mkdir(filepath.Join(dir, "deep"), 0o755))
	bind := func(at string) specs.Mount {
		return specs.Mount{Destination: at, Type: "bind", Source: dir, Options: []string{"bind"}}
	}
	tmpfs := func(at string) specs.Mount {
		return specs.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs"}
	}
	b := newBox(t, "sh", "-c", "echo a $(ls /a); echo b $(ls /b); echo c $(ls /c) $(ls /c/in) $(ls /c/in/deep)")
	b.spec.Mounts = append(b.spec.Mounts,
		bind("/a"), tmpfs("/a"),
		tmpfs("/b"), bind("/b"),
		tmpfs("/c"), bind("/c/in"), tmpfs("/c/in/deep"), bind("/c/in/deep"),
	)
	r := b.run("order")
	if want := "a\nb bound deep\nc in bound deep bound deep\n"; r.out != want || r.code != 0 {
		t.Errorf("%v\nwant %q", r, want)
	}
}
