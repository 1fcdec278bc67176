// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func entries(t *testing.T, path string) []string {
	t.Helper()
	list, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// image makes a directory to fill volumes from.
func image(t *testing.T, files ...string) *os.File {
	t.Helper()
	dir := t.TempDir()
	for _, name := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o710); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func use(t *testing.T, d Dir, name string, from *os.File, noCopy bool) {
	t.Helper()
	h, err := d.Hold(name)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Fill(from, uint32(os.Getuid()), uint32(os.Getgid()), noCopy); err != nil {
		t.Fatal(err)
	}
}

func TestCreateIsWholeOrNotAtAll(t *testing.T) {
	d := Open(filepath.Join(t.TempDir(), "volumes"))
	if _, err := d.Create("v", map[string]string{"a": "b"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create("v", nil, nil); !errors.Is(err, ErrExists) {
		t.Errorf("again: %v", err)
	}
	r, err := d.Load("v")
	if err != nil || r.Labels["a"] != "b" || r.Created.IsZero() {
		t.Errorf("got %+v, %v", r, err)
	}
	for _, bad := range []string{"", ".", "..", "a/b", ".new-x", "-a", "a\n"} {
		if _, err := d.Create(bad, nil, nil); err == nil {
			t.Errorf("%q was made", bad)
		}
		if _, err := d.Load(bad); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if got := entries(t, d.path); len(got) != 1 {
		t.Errorf("left %v", got)
	}
}

// podman: a volume that another image mounted later was filled again, over
// what was in it, even where it was mounted read-only.
func TestCVE_2020_1726_FilledOnceOnly(t *testing.T) {
	d := Open(t.TempDir())
	use(t, d, "v", image(t, "first"), false)
	data := d.Mountpoint("v")
	if got := entries(t, data); len(got) != 1 || got[0] != "first" {
		t.Fatalf("filled with %v", got)
	}
	if info, _ := os.Stat(data); info.Mode().Perm() != 0o710 {
		t.Errorf("mode %v, not that of the image", info.Mode())
	}
	for _, name := range []string{"first", "more"} {
		if err := os.WriteFile(filepath.Join(data, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	use(t, d, "v", image(t, "first", "second"), false)
	if b, _ := os.ReadFile(filepath.Join(data, "first")); string(b) != "mine" {
		t.Errorf("overwritten with %q", b)
	}
	// Emptied by its app it is not new again.
	for _, name := range entries(t, data) {
		if err := os.Remove(filepath.Join(data, name)); err != nil {
			t.Fatal(err)
		}
	}
	use(t, d, "v", image(t, "third"), false)
	if got := entries(t, data); len(got) != 0 {
		t.Errorf("filled again with %v", got)
	}
}

func TestNoCopyAndWhatIsThereStays(t *testing.T) {
	d := Open(t.TempDir())
	use(t, d, "bare", image(t, "x"), true)
	use(t, d, "bare", image(t, "x"), false)
	if got := entries(t, d.Mountpoint("bare")); len(got) != 0 {
		t.Errorf("nocopy: %v", got)
	}
	if _, err := d.Create("put", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Mountpoint("put"), "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	use(t, d, "put", image(t, "x"), false)
	if got := entries(t, d.Mountpoint("put")); len(got) != 1 || got[0] != "mine" {
		t.Errorf("what was put there by hand: %v", got)
	}
	if _, err := d.Create("option", nil, map[string]string{"nocopy": ""}); err != nil {
		t.Fatal(err)
	}
	use(t, d, "option", image(t, "x"), false)
	if got := entries(t, d.Mountpoint("option")); len(got) != 0 {
		t.Errorf("--opt nocopy: %v", got)
	}
}

// A copy that a power cut ended is made again, from nothing.
func TestFillAfterAPowerCut(t *testing.T) {
	d := Open(t.TempDir())
	if _, err := d.Create("v", nil, nil); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(d.path, "v", fillDir)
	if err := os.MkdirAll(filepath.Join(half, "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	use(t, d, "v", image(t, "x"), false)
	if got := entries(t, d.Mountpoint("v")); len(got) != 1 || got[0] != "x" {
		t.Errorf("got %v", got)
	}
	if got := entries(t, filepath.Join(d.path, "v")); strings.Join(got, " ") != "data filled volume.json" {
		t.Errorf("left %v", got)
	}
}

// Of many pods that come at once one makes and fills the volume, and none sees
// it half-filled.
func TestManyAtOnce(t *testing.T) {
	d := Open(t.TempDir())
	var files []string
	for i := range 50 {
		files = append(files, fmt.Sprint("f", i))
	}
	from := image(t, files...)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			h, err := d.Hold("v")
			if err == nil {
				defer h.Close()
				err = h.Fill(from, uint32(os.Getuid()), uint32(os.Getgid()), false)
			}
			if err != nil {
				t.Error(err)
				return
			}
			if list, err := os.ReadDir(d.Mountpoint("v")); err != nil || len(list) != len(files) {
				t.Errorf("sees %d files, %v", len(list), err)
			}
		})
	}
	wg.Wait()
	if got := entries(t, d.path); len(got) != 1 {
		t.Errorf("left %v", got)
	}
}

func TestRemove(t *testing.T) {
	d := Open(t.TempDir())
	nobody := func() ([]string, error) { return nil, nil }
	if err := d.Remove("v", nobody); !errors.Is(err, ErrNotFound) {
		t.Errorf("none: %v", err)
	}
	h, err := d.Hold("v")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("v", nobody); !errors.Is(err, ErrBusy) {
		t.Errorf("held: %v", err)
	}
	h.Close()
	var used *InUse
	if err := d.Remove("v", func() ([]string, error) { return []string{"one", "two"}, nil }); !errors.As(err, &used) || !strings.Contains(err.Error(), "one, two") {
		t.Errorf("used: %v", err)
	}
	if err := d.Remove("v", nobody); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, d.path); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// A removal never takes a volume that somebody was given: whoever holds it
// finds it under its name.
func TestHeldIsNeverRemoved(t *testing.T) {
	d := Open(t.TempDir())
	var wg sync.WaitGroup
	var removed atomic.Int32
	for range 4 {
		wg.Go(func() {
			for range 50 {
				h, err := d.Hold("v")
				if err != nil {
					t.Error(err)
					return
				}
				if !d.stands(h.own, "v") {
					t.Error("held, and gone")
				}
				h.Close()
			}
		})
		wg.Go(func() {
			for range 50 {
				switch err := d.Remove("v", func() ([]string, error) { return nil, nil }); {
				case err == nil:
					removed.Add(1)
				case !errors.Is(err, ErrBusy) && !errors.Is(err, ErrNotFound):
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d removals", removed.Load())
}

func TestSweepFinishesWhatWasCutShort(t *testing.T) {
	d := Open(t.TempDir())
	if _, err := d.Create("v", nil, nil); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{going + "A", coming + "B", coming + "C"} {
		dir := filepath.Join(d.path, name)
		if err := os.MkdirAll(filepath.Join(dir, "data/below"), 0o700); err != nil {
			t.Fatal(err)
		}
		if name != coming+"C" {
			if err := os.Chtimes(dir, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, err := d.Sweep(); n != 2 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if got := entries(t, d.path); strings.Join(got, " ") != coming+"C v" {
		t.Errorf("left %v", got)
	}
	if names, err := d.Names(); err != nil || strings.Join(names, " ") != "v" {
		t.Errorf("names %v, %v", names, err)
	}
}

// deep makes directories one in the other.
func deep(t *testing.T, path string, n int) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	for i := 0; err == nil && i < n; i++ {
		if err = unix.Mkdirat(fd, "d", 0o700); err != nil {
			break
		}
		next, openErr := unix.Openat(fd, "d", unix.O_PATH|unix.O_CLOEXEC, 0)
		_ = unix.Close(fd)
		fd, err = next, openErr
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
}

// What an app nests deeper than a path can be long is removed; what goes down
// with a descriptor for each directory says where it ends.
func TestDeepVolume(t *testing.T) {
	d := Open(t.TempDir())
	if _, err := d.Create("v", nil, nil); err != nil {
		t.Fatal(err)
	}
	deep(t, d.Mountpoint("v"), 5000)
	if err := d.Export("v", io.Discard); !errors.Is(err, errTooDeep) {
		t.Errorf("export: %v", err)
	}
	root, err := os.Open(d.Mountpoint("v"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := Chown(root, "", uint32(os.Getuid()), uint32(os.Getgid())); !errors.Is(err, errTooDeep) {
		t.Errorf("chown: %v", err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("v", func() ([]string, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, d.path); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// One that cannot be swept is told, and the others are swept.
func TestSweepGoesOn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("ability missing: root")
	}
	d := Open(t.TempDir())
	for _, name := range []string{going + "A", going + "B", going + "C"} {
		if err := os.MkdirAll(filepath.Join(d.path, name, "data"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	busy := filepath.Join(d.path, going+"A", "data")
	if err := unix.Mount("tmpfs", busy, "tmpfs", 0, ""); err != nil {
		t.Skipf("ability missing: mount: %v", err)
	}
	defer func() { _ = unix.Unmount(busy, unix.MNT_DETACH) }()
	if n, err := d.Sweep(); n != 2 || err == nil || !strings.Contains(err.Error(), going+"A") {
		t.Errorf("swept %d, %v", n, err)
	}
}

// Links in a volume are given away themselves, never what they name.
func TestChownFollowsNoLink(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("ability missing: root")
	}
	outside, dir := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"file": secret, "dir": outside, "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenFile(dir, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := Chown(root, "", 4711, 4712); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint32{secret: 0, outside: 0, dir + "/a/b": 4711, dir + "/loop": 4711, dir + "/file": 4711} {
		if got := ownerOf(t, path); got != want {
			t.Errorf("%s belongs to %d, want %d", path, got, want)
		}
	}
	if err := Chown(root, "file", 1, 1); err == nil {
		t.Error("a link that leads out was taken for a part")
	}
}

func TestOptions(t *testing.T) {
	s, err := parseOptions(map[string]string{"o": "size=1m,inodes=7,uid=3", "nocopy": ""})
	if err != nil || s.size != 1<<20 || s.inodes != 7 || s.uid != 3 || s.gid != -1 || !s.noCopy {
		t.Errorf("got %+v, %v", s, err)
	}
	for _, bad := range []map[string]string{{"size": "0"}, {"size": ""}, {"o": "size=x"}, {"inodes": "-1"}, {"uid": "x"}, {"gid": "4294967295"}, {"type": "nfs"}, {"device": "/dev/x"}, {"o": "bind"}, {"": "x"}, {"o": ""}, {"copy": "", "nocopy": ""}, {"uid": "1", "o": "uid=1"}, {"o": "size=1m,size=2m"}, {"nocopy": "", "o": "nocopy"}} {
		if _, err := parseOptions(bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func ownerOf(t *testing.T, path string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid
}
