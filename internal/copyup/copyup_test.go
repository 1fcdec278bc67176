// SPDX-License-Identifier: Apache-2.0

package copyup

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) int {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// A copy has links, hard links, pipes, modes and times of its source; sockets
// and devices are left out, and nothing is reached through a link.
func TestFill(t *testing.T) {
	from, to, outside := t.TempDir(), t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600),
		os.Mkdir(filepath.Join(from, "dir"), 0o700),
		os.WriteFile(filepath.Join(from, "dir/f"), []byte("text"), 0o640),
		os.Chmod(filepath.Join(from, "dir"), os.ModeSetgid|0o510),
		os.Link(filepath.Join(from, "dir/f"), filepath.Join(from, "again")),
		os.Symlink(outside, filepath.Join(from, "link")),
		unix.Mkfifo(filepath.Join(from, "pipe"), 0o600),
		unix.Mknod(filepath.Join(from, "socket"), unix.S_IFSOCK|0o600, 0),
		os.Chmod(from, 0o711),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := Fill(open(t, from), open(t, to), false); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{
		".": os.ModeDir | 0o711, "dir": os.ModeDir | os.ModeSetgid | 0o510, "dir/f": 0o640,
		"link": os.ModeSymlink | 0o777, "pipe": os.ModeNamedPipe | 0o600,
	} {
		info, err := os.Lstat(filepath.Join(to, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info, err, want)
			continue
		}
		source, err := os.Lstat(filepath.Join(from, name))
		if err == nil && info.Mode().IsRegular() && !info.ModTime().Equal(source.ModTime()) {
			t.Errorf("%s is of %v, not of %v", name, info.ModTime(), source.ModTime())
		}
	}
	one, _ := os.Stat(filepath.Join(to, "dir/f"))
	two, err := os.Stat(filepath.Join(to, "again"))
	if err != nil || !os.SameFile(one, two) {
		t.Errorf("the second name is another file: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(to, "socket")); err == nil {
		t.Error("a socket was copied")
	}
	if names, _ := os.ReadDir(outside); len(names) != 1 {
		t.Errorf("outside has %v", names)
	}
}

func TestFillLeavesWhatIsNotEmpty(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.WriteFile(filepath.Join(from, "f"), nil, 0o600),
		os.WriteFile(filepath.Join(to, "mine"), nil, 0o600),
		os.Chmod(to, 0o750),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := Fill(open(t, from), open(t, to), false); err != nil {
		t.Fatal(err)
	}
	names, _ := os.ReadDir(to)
	if info, _ := os.Stat(to); len(names) != 1 || info.Mode().Perm() != 0o750 {
		t.Errorf("has %v, mode %v", names, info.Mode())
	}
}

// A mode that was asked for is kept.
func TestFillKeepsMode(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.Chmod(to, 0o1770); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var before, after unix.Stat_t
	_ = unix.Stat(to, &before)
	if err := Fill(open(t, from), open(t, to), true); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(to, &after); err != nil || after.Mode != before.Mode {
		t.Errorf("mode %o, want %o", after.Mode, before.Mode)
	}
}

// A descriptor stayed open for every file with several names, of which an image
// may have any number.
func TestFillOfManyLinks(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(from, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		first := filepath.Join(from, "dir", strconv.Itoa(i))
		if err := errors.Join(os.WriteFile(first, nil, 0o600), os.Link(first, first+"b"), os.Link(first, filepath.Join(from, strconv.Itoa(i)))); err != nil {
			t.Fatal(err)
		}
	}
	source, target := open(t, from), open(t, to)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	if err := Fill(source, target, false); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(to, "299"), &st); err != nil || st.Nlink != 3 {
		t.Errorf("%d links, %v", st.Nlink, err)
	}
}
