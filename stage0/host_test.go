// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// rootWith is an image's root with one thing at /etc/passwd.
func rootWith(t *testing.T, put func(passwd string) error) *os.File {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := put(filepath.Join(dir, "etc", "passwd")); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// containers/storage: an image's /etc/passwd that led out of the image was
// read on the host: a FIFO there hung the engine, a huge file filled memory.
func TestCVE_2024_9676_PasswdOfImage(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(outside, 0o600); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("web:x:0:0::/:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 40)
	for name, put := range map[string]func(string) error{
		"link to a FIFO of the host":   func(p string) error { return os.Symlink(outside, p) },
		"link to a file of the host":   func(p string) error { return os.Symlink(secret, p) },
		"relative link out":            func(p string) error { return os.Symlink(up+secret, p) },
		"magic link":                   func(p string) error { return os.Symlink("/proc/self/root"+secret, p) },
		"FIFO":                         func(p string) error { return syscall.Mkfifo(p, 0o644) },
		"directory":                    func(p string) error { return os.Mkdir(p, 0o755) },
		"larger than any account file": func(p string) error { return os.WriteFile(p, make([]byte, maxAccountFile+1), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			f, err := imageFiles(rootWith(t, put))
			if len(f.Passwd) != 0 {
				t.Errorf("read %q, %v", f.Passwd, err)
			}
		})
	}
	f, err := imageFiles(rootWith(t, func(p string) error {
		if err := os.WriteFile(filepath.Join(filepath.Dir(p), "real"), []byte("web:x:1:1::/:\n"), 0o644); err != nil {
			return err
		}
		return os.Symlink("/etc/real", p) // a link inside the image is its own affair
	}))
	if err != nil || string(f.Passwd) != "web:x:1:1::/:\n" {
		t.Errorf("a link inside: %q, %v", f.Passwd, err)
	}
}

func TestParseStat(t *testing.T) {
	s, err := parseStat("42 (a) b (c\n) S 7 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 12345 1 99 18446744073709551615\n")
	if err != nil || s.command != "a) b (c\n" || s.state != "S" || s.ppid != 7 || s.cpu != 200 || s.start != 12345 || s.rss != 99 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1", ")("} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("42 (sh) S 7 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 12345 1 99 18446744073709551615\n")
	f.Add("1 ()) S")
	f.Fuzz(func(t *testing.T, s string) { _, _ = parseStat(s) })
}

func TestThrottles(t *testing.T) {
	dir := t.TempDir()
	first := filepath.Join(dir, "cpu0", "thermal_throttle")
	if all := throttles(first); all != nil {
		t.Errorf("where there are none: %q", all)
	}
	want := []string{first, filepath.Join(dir, "cpu1", "thermal_throttle"), filepath.Join(dir, "cpu10", "thermal_throttle")}
	for _, name := range append(want, filepath.Join(dir, "cpufreq", "thermal_throttle"), filepath.Join(dir, "cpu2")) {
		if err := os.MkdirAll(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if all := throttles(first); !slices.Equal(all, want) {
		t.Errorf("got %q, want %q", all, want)
	}
}
