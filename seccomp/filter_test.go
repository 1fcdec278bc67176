// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var allowAll = ret(unix.SECCOMP_RET_ALLOW)

// ret is a filter of one instruction.
func ret(k uint32) []byte {
	b := binary.NativeEndian.AppendUint16(nil, unix.BPF_RET|unix.BPF_K)
	return binary.NativeEndian.AppendUint32(append(b, 0, 0), k)
}

// fakeCompiler is a libexec directory whose compiler answers with a fixed
// filter and counts how often it is asked.
type fakeCompiler struct {
	t     *testing.T
	dir   string
	count string
}

func newFake(t *testing.T, answer []byte) fakeCompiler {
	f := fakeCompiler{t, t.TempDir(), filepath.Join(t.TempDir(), "count")}
	f.install(answer, "")
	return f
}

func (f fakeCompiler) install(answer []byte, extra string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, "answer"), answer, 0o600); err != nil {
		f.t.Fatal(err)
	}
	script := "#!/bin/sh\necho x >>" + f.count + "\n/bin/cat >/dev/null\n" + extra + "\nexec /bin/cat " + filepath.Join(f.dir, "answer") + "\n"
	if err := os.WriteFile(filepath.Join(f.dir, Compiler), []byte(script), 0o700); err != nil {
		f.t.Fatal(err)
	}
}

func (f fakeCompiler) runs() int {
	b, err := os.ReadFile(f.count)
	if err != nil && !os.IsNotExist(err) {
		f.t.Fatal(err)
	}
	return strings.Count(string(b), "x")
}

func (f fakeCompiler) filter(sp *specs.LinuxSeccomp, cache string) []byte {
	f.t.Helper()
	b, err := Filter(f.t.Context(), sp, f.dir, cache)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func profile(names ...string) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActAllow}}}
}

func TestFilterIsCompiledOnce(t *testing.T) {
	f, cache := newFake(t, allowAll), filepath.Join(t.TempDir(), "a", "seccomp")
	for range 3 {
		if got := f.filter(profile("read"), cache); !bytes.Equal(got, allowAll) {
			t.Fatalf("filter = %x", got)
		}
	}
	if f.runs() != 1 {
		t.Errorf("compiled %d times, want once", f.runs())
	}
	info, err := os.Stat(cache)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("cache directory: %v, %v; want 0700", info.Mode(), err)
	}
	f.filter(profile("read", "write"), cache)
	if f.runs() != 2 {
		t.Errorf("another profile: compiled %d times in all, want 2", f.runs())
	}
	f.install(allowAll, "# another version")
	f.filter(profile("read"), cache)
	if f.runs() != 3 {
		t.Errorf("another compiler: compiled %d times in all, want 3", f.runs())
	}
	left, err := filepath.Glob(filepath.Join(cache, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

func TestNoSectionNoFilter(t *testing.T) {
	b, err := Filter(t.Context(), nil, "/nonexistent", "")
	if b != nil || err != nil {
		t.Errorf("Filter(nil) = %x, %v", b, err)
	}
}

// Whatever happened to an entry, it does not become an app's filter.
func TestDamagedEntryIsCompiledAgain(t *testing.T) {
	denyAll := ret(unix.SECCOMP_RET_KILL_PROCESS)
	for name, damage := range map[string]func(t *testing.T, entry string){
		"a flipped bit": func(t *testing.T, entry string) {
			b, err := os.ReadFile(entry)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)-1] ^= 0x80
			write(t, entry, b)
		},
		"cut short":  func(t *testing.T, entry string) { truncate(t, entry, 20) },
		"sum only":   func(t *testing.T, entry string) { truncate(t, entry, 32) },
		"empty":      func(t *testing.T, entry string) { truncate(t, entry, 0) },
		"one more":   func(t *testing.T, entry string) { truncate(t, entry, 41) },
		"very large": func(t *testing.T, entry string) { truncate(t, entry, 1<<40) },
		"another's entry": func(t *testing.T, entry string) {
			f := newFake(t, allowAll)
			other := t.TempDir()
			f.filter(profile("bpf"), other)
			b, err := os.ReadFile(only(t, other))
			if err != nil {
				t.Fatal(err)
			}
			write(t, entry, b)
		},
		"a fifo": func(t *testing.T, entry string) {
			if err := os.Remove(entry); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(entry, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a link out": func(t *testing.T, entry string) {
			if err := os.Remove(entry); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/dev/zero", entry); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, cache := newFake(t, denyAll), t.TempDir()
			f.filter(profile("read"), cache)
			damage(t, only(t, cache))
			if got := f.filter(profile("read"), cache); !bytes.Equal(got, denyAll) {
				t.Errorf("filter = %x, want %x", got, denyAll)
			}
			if f.runs() != 2 {
				t.Errorf("compiled %d times, want 2", f.runs())
			}
			f.filter(profile("read"), cache)
			if f.runs() != 2 {
				t.Error("the entry was not mended")
			}
		})
	}
}

func only(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s holds %v, %v; want one entry", dir, names, err)
	}
	return names[0]
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, n int64) {
	t.Helper()
	if err := os.Truncate(path, n); err != nil {
		t.Fatal(err)
	}
}

// A cache others may write to is not used, and neither is a missing one
// missed.
func TestCacheThatCannotBeTrusted(t *testing.T) {
	f := newFake(t, allowAll)
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, cache := range []string{open, "", "/proc/nonexistent/x"} {
		before := f.runs()
		f.filter(profile("read"), cache)
		f.filter(profile("read"), cache)
		if got := f.runs() - before; got != 2 {
			t.Errorf("cache %q: compiled %d times, want 2", cache, got)
		}
	}
}

// What the compiler says reaches the user; what it must not produce does not
// reach the kernel.
func TestCompilerFailures(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer []byte
		extra  string
		want   string
	}{
		{"complains", nil, "echo 'gantry-seccomp: no such thing' >&2; exit 1", "compile seccomp profile: no such thing"},
		{"dies", nil, "kill -9 $$", "killed"},
		{"says nothing", nil, "", "0 bytes"},
		{"an odd length", allowAll[:7], "", "7 bytes"},
		{"does not return", make([]byte, 16), "", "does not end with a return"},
		{"too long", bytes.Repeat(allowAll, 4097), "", "more than"},
	} {
		f, cache := newFake(t, nil), t.TempDir()
		f.install(tt.answer, tt.extra)
		b, err := Filter(t.Context(), profile("read"), f.dir, cache)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %x, %v; want an error with %q", tt.name, b, err, tt.want)
		}
		if names, _ := filepath.Glob(filepath.Join(cache, "*")); len(names) > 0 {
			t.Errorf("%s: kept %v", tt.name, names)
		}
	}
	if _, err := Filter(t.Context(), profile("read"), t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), Compiler) {
		t.Errorf("no compiler: %v, want an error with its path", err)
	}
	f := newFake(t, allowAll)
	if _, err := Filter(t.Context(), profile("../x"), f.dir, ""); err == nil || f.runs() != 0 {
		t.Errorf("an invalid section was compiled: %v", err)
	}
}

// FuzzCacheEntry: no content of a cache file is taken but what was put there.
func FuzzCacheEntry(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add(append(make([]byte, 32), allowAll...), false)
	f.Fuzz(func(t *testing.T, entry []byte, sign bool) {
		c := openCache(t.TempDir())
		defer c.close()
		key := [32]byte{1}
		if err := c.dir.WriteFile("01"+strings.Repeat("0", 62), entry, 0o600); err != nil {
			t.Fatal(err)
		}
		bpf, ok := c.read(key)
		if !ok {
			return
		}
		if s := sum(key, bpf); !bytes.Equal(entry, append(s[:], bpf...)) || plausible(bpf) != nil {
			t.Fatalf("%x was taken from %x", bpf, entry)
		}
	})
}

func BenchmarkFilterKept(b *testing.B) {
	libexec, cache := b.TempDir(), b.TempDir()
	if err := os.WriteFile(filepath.Join(libexec, Compiler), []byte("#!/bin/sh\nexec head -c 8 "+filepath.Join(libexec, "answer")+"\n"), 0o700); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(libexec, "answer"), allowAll, 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		sp, err := Default(nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Filter(b.Context(), sp, libexec, cache); err != nil {
			b.Fatal(err)
		}
	}
}
