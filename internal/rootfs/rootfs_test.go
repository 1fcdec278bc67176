// SPDX-License-Identifier: Apache-2.0

package rootfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/rootfs"
)

func tree(t *testing.T) (dir string, root *os.File) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "root")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "a/b"), 0o755),
		os.WriteFile(filepath.Join(dir, "a/file"), []byte("content"), 0o644),
		os.Symlink("/a", filepath.Join(dir, "absolute")),
		os.Symlink("../../../../a/file", filepath.Join(dir, "a/up")),
		os.Symlink("nowhere", filepath.Join(dir, "dangling")),
		os.Symlink("/proc/self/fd/0", filepath.Join(dir, "magic")),
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

func TestReadRegular(t *testing.T) {
	_, root := tree(t)
	for _, c := range []struct {
		path string
		max  int64
		want error
	}{
		{"a/file", 7, nil},
		{"/absolute/file", 7, nil},
		{"a/up", 7, nil},
		{"../../a/file", 7, nil},
		{"a/file", 6, rootfs.ErrTooLarge},
		{"a", 7, rootfs.ErrNotRegular},
		{"pipe", 7, rootfs.ErrNotRegular},
		{"dangling", 7, os.ErrNotExist},
		{"magic", 7, os.ErrNotExist}, // /proc of the root, not of the host
	} {
		b, err := rootfs.ReadRegular(root, c.path, c.max)
		if !errors.Is(err, c.want) || c.want == nil && string(b) != "content" {
			t.Errorf("%s: %q, %v, want %v", c.path, b, err, c.want)
		}
	}
}

func TestMkdirAll(t *testing.T) {
	dir, root := tree(t)
	for _, path := range []string{"new/deep/er", "absolute/sub", "a/b"} {
		f, err := rootfs.MkdirAll(root, path, 0o755)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		f.Close()
	}
	if _, err := os.Stat(filepath.Join(dir, "a/sub")); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"new/../../x/y", "a/file/x", "dangling/x"} {
		if f, err := rootfs.MkdirAll(root, path, 0o755); err == nil {
			f.Close()
			t.Errorf("%s was made", path)
		}
	}
}

// runc made directories on the host when a component was exchanged for a link
// between its check and its mkdir.
func TestCVE_2024_45310_MkdirAllNeverLeavesTheRoot(t *testing.T) {
	dir, root := tree(t)
	outside := t.TempDir()
	victim, link := filepath.Join(dir, "victim"), filepath.Join(dir, "link")
	if err := os.Mkdir(victim, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(strings.Repeat("../", 12)+outside, link); err != nil {
		t.Fatal(err)
	}
	quit := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Add(1)
	go func() {
		defer swapping.Done()
		runtime.LockOSThread()
		for {
			select {
			case <-quit:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, victim, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 500 {
		if f, err := rootfs.MkdirAll(root, "victim/x/y", 0o755); err == nil {
			f.Close()
		}
		if fd, err := rootfs.CreateAt(int(root.Fd()), "victim/z/file", 0o644); err == nil {
			_ = unix.Close(fd)
		}
		_ = rootfs.RemoveAllAt(int(root.Fd()), "victim")
		_ = os.Mkdir(victim, 0o755)
	}
	close(quit)
	swapping.Wait()
	if names, _ := os.ReadDir(outside); len(names) > 0 {
		t.Fatalf("made outside: %v", names)
	}
}

func TestRemoveAllFollowsNoLink(t *testing.T) {
	dir, root := tree(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "keep"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "a/out")); err != nil {
		t.Fatal(err)
	}
	if err := rootfs.RemoveAllAt(int(root.Fd()), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); !os.IsNotExist(err) {
		t.Errorf("a is left: %v", err)
	}
	if _, err := os.Stat(filepath.Join(outside, "keep")); err != nil {
		t.Error(err)
	}
}

func FuzzOpenStaysInside(f *testing.F) {
	dir := f.TempDir()
	root, err := os.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("../../etc/passwd")
	f.Add("/etc/passwd")
	f.Fuzz(func(t *testing.T, path string) {
		if file, err := rootfs.Open(root, path, os.O_RDONLY, 0); err == nil {
			defer file.Close()
			info, err := file.Stat()
			want, _ := root.Stat()
			if err != nil || !os.SameFile(info, want) {
				t.Errorf("%q led out of an empty root", path)
			}
		}
	})
}

// An app nests directories deeper than a process has descriptors, and than a
// path can be long. They could not be removed, nor what was to be removed after
// them.
func TestRemoveAllOfWhatIsDeep(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 128, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	dir, root := tree(t)
	fd := int(root.Fd())
	for i := range 3000 {
		for _, name := range []string{"d", "deep-1", "file"} {
			var err error
			if name == "file" {
				err = unix.Mknodat(fd, name, unix.S_IFREG|0o600, 0)
			} else {
				err = unix.Mkdirat(fd, name, 0o700)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		next, err := unix.Openat(fd, "d", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			_ = unix.Close(fd)
		}
		fd = next
	}
	_ = unix.Close(fd)
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	if err := rootfs.RemoveAllAt(int(parent.Fd()), "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}
