// SPDX-License-Identifier: Apache-2.0

package tree_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inode is everything a program can see of a file. Numbers that differ between
// file systems (st_dev, st_ino, blocks) are left out; which names share an
// inode is Same, the first of them.
type inode struct {
	Mode     uint32
	UID, GID uint32
	Rdev     uint64
	Size     int64
	Nlink    uint64
	Sec      int64
	Nsec     int64
	Target   string
	Xattrs   string
	Content  string
	Same     string
}

// inodes reads a whole tree below a directory.
func inodes(t testing.TB, root string) map[string]inode {
	t.Helper()
	w := walker{t: t, root: root, found: map[string]inode{}, first: map[uint64]string{}}
	w.visit("")
	return w.found
}

type walker struct {
	t     testing.TB
	root  string
	found map[string]inode
	first map[uint64]string
}

func (w *walker) visit(name string) {
	w.t.Helper()
	path := w.root
	if name != "" {
		path += "/" + name
	}
	var st unix.Stat_t
	stat := unix.Lstat
	if name == "" {
		stat = unix.Stat // the root may be a link of /proc
	}
	if err := stat(path, &st); err != nil {
		w.t.Fatalf("stat %q: %v", name, err)
	}
	n := inode{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, Rdev: st.Rdev, Size: st.Size,
		Nlink: uint64(st.Nlink), Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec, Xattrs: xattrs(w.t, path),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.Content = sum(w.t, path)
	case unix.S_IFLNK:
		var err error
		if n.Target, err = os.Readlink(path); err != nil {
			w.t.Fatal(err)
		}
	case unix.S_IFDIR:
		// Both are the file system's own affair.
		n.Size, n.Nlink = 0, 0
		w.children(name, path)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if _, ok := w.first[st.Ino]; !ok {
			w.first[st.Ino] = name
		}
		n.Same = w.first[st.Ino]
	}
	w.found[name] = n
}

func (w *walker) children(name, path string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		w.t.Fatalf("list %q: %v", name, err)
	}
	for _, e := range entries {
		w.visit(filepath.Join(name, e.Name()))
	}
}

func sum(t testing.TB, path string) string {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatalf("read %q: %v", path, err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func xattrs(t testing.TB, path string) string {
	b := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, b)
	if err != nil {
		t.Fatalf("list xattrs of %q: %v", path, err)
	}
	var all []string
	for _, name := range bytes.Split(b[:n], []byte{0}) {
		// A label the host's policy gives every file is not the image's.
		if len(name) == 0 || string(name) == "security.selinux" {
			continue
		}
		v := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, string(name), v)
		if err != nil {
			t.Fatalf("get %s of %q: %v", name, path, err)
		}
		all = append(all, fmt.Sprintf("%s=%x", name, v[:n]))
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// compare reports how got differs from want, up to a readable number.
func compare(t testing.TB, want, got map[string]inode, ignore func(name string, want, got *inode)) {
	t.Helper()
	bad := 0
	for _, name := range union(want, got) {
		w, inWant := want[name]
		g, inGot := got[name]
		if inWant && inGot && ignore != nil {
			ignore(name, &w, &g)
		}
		if inWant == inGot && w == g {
			continue
		}
		if bad++; bad <= 10 {
			t.Errorf("%q:\n want %v %+v\n got  %v %+v", name, inWant, w, inGot, g)
		}
	}
	if bad > 10 {
		t.Errorf("%d inodes differ", bad)
	}
}

func union(a, b map[string]inode) []string {
	var names []string
	for name := range a {
		names = append(names, name)
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
