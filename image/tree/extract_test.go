// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image/tree/index"
)

// Guards: a path of an image leads nowhere but into the image.
func TestLookup(t *testing.T) {
	dir := func(children map[string]index.Dentry) index.Dentry {
		return index.Dentry{Inode: &index.Inode{Kind: index.Dir, Children: children}}
	}
	file := index.Dentry{Inode: &index.Inode{Kind: index.Regular}}
	link := func(target string) index.Dentry {
		return index.Dentry{Inode: &index.Inode{Kind: index.Symlink, Target: target}}
	}
	root := dir(map[string]index.Dentry{
		"etc": dir(map[string]index.Dentry{"passwd": file, "up": link("../../../../usr")}),
		"usr": dir(map[string]index.Dentry{"bin": dir(nil)}), "bin": link("usr/bin"), "abs": link("/etc"),
		"loop": link("loop"), "out": link("/../../etc"),
	}).Inode
	for path, want := range map[string]*index.Inode{
		"": root, "/": root, "../../etc/passwd": file.Inode, "etc/../etc/passwd": file.Inode,
		"abs/passwd": file.Inode, "out/passwd": file.Inode, "etc/up/bin": root.Children["usr"].Inode.Children["bin"].Inode,
		"bin": root.Children["bin"].Inode,
	} {
		if got, _, err := lookup(root, path); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", path, got, err)
		}
	}
	for path, want := range map[string]error{
		"none": ErrNoPath, "etc/passwd/x": ErrNoPath, "loop/x": unix.ELOOP, "bin/none": ErrNoPath,
	} {
		if _, _, err := lookup(root, path); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", path, err, want)
		}
	}
}
