// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Compiler is the executable that compiles profiles, in the libexec directory.
const Compiler = "gantry-seccomp"

// A filter is an array of struct sock_filter (8 bytes each), at most
// BPF_MAXINSNS of them.
const (
	instruction = 8
	maxFilter   = 4096 * instruction
)

// compileTime bounds a compilation, which takes milliseconds.
const compileTime = 30 * time.Second

// Filter returns a section's filter as an array of struct sock_filter, in the
// machine's byte order, ready for seccomp(2): from cacheDir, or compiled by
// the gantry-seccomp in libexec and put there. A cache that cannot be used
// costs time and is no error. A nil section has no filter.
func Filter(ctx context.Context, sp *specs.LinuxSeccomp, libexec, cacheDir string) ([]byte, error) {
	if sp == nil {
		return nil, nil
	}
	if err := Validate(sp); err != nil {
		return nil, err
	}
	if err := checkKernel(sp); err != nil {
		return nil, err
	}
	section, err := json.Marshal(sp)
	if err != nil {
		return nil, fmt.Errorf("encode seccomp section: %w", err)
	}
	compiler := filepath.Join(libexec, Compiler)
	key, err := keyOf(section, compiler)
	if err != nil {
		return nil, err
	}
	cache := openCache(cacheDir)
	defer cache.close()
	if bpf, ok := cache.read(key); ok {
		return bpf, nil
	}
	bpf, err := run(ctx, compiler, section)
	if err != nil {
		return nil, fmt.Errorf("compile seccomp profile: %w", err)
	}
	cache.write(key, bpf)
	return bpf, nil
}

// keyOf names what a filter depends on: the section, the machine, and the
// compiler, whose identity stands for its version and libseccomp's.
func keyOf(section []byte, compiler string) ([sha256.Size]byte, error) {
	var st unix.Stat_t
	if err := unix.Stat(compiler, &st); err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("find seccomp compiler: %w", &os.PathError{Op: "stat", Path: compiler, Err: err})
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("read kernel release: %w", err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "gantry seccomp filter 1\n%s\n%s\n%s\n%d:%d %d %d.%09d\n", runtime.GOARCH, unix.ByteSliceToString(u.Release[:]),
		compiler, st.Dev, st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
	h.Write(section)
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// run compiles a section.
func run(ctx context.Context, compiler string, section []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, compileTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, compiler)
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(section)
	var out, complaint atMostFilter
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(complaint.buf.String()); text != "" {
			return nil, errors.New(strings.TrimPrefix(text, Compiler+": "))
		}
		return nil, err
	}
	return out.buf.Bytes(), plausible(out.buf.Bytes())
}

// atMostFilter collects no more than a filter can have. The buffer is not
// embedded: its ReadFrom would pass by the bound.
type atMostFilter struct{ buf bytes.Buffer }

func (b *atMostFilter) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > maxFilter {
		return 0, fmt.Errorf("more than %d bytes", maxFilter)
	}
	return b.buf.Write(p)
}

// plausible checks what the kernel would refuse late and without a word: the
// size, and that the last instruction returns.
func plausible(bpf []byte) error {
	if len(bpf) == 0 || len(bpf)%instruction != 0 || len(bpf) > maxFilter {
		return fmt.Errorf("a filter of %d bytes is not one", len(bpf))
	}
	last := binary.NativeEndian.Uint16(bpf[len(bpf)-instruction:])
	if last&0x07 != unix.BPF_RET {
		return errors.New("the filter does not end with a return")
	}
	return nil
}

// cache is a directory of compiled filters, or nothing where it cannot be
// trusted or made.
type cache struct{ dir *os.Root }

func openCache(path string) cache {
	if path == "" {
		return cache{}
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return cache{}
	}
	dir, err := os.OpenRoot(path)
	if err != nil {
		return cache{}
	}
	info, err := dir.Stat(".")
	if err != nil || info.Mode().Perm()&0o022 != 0 || !ours(info) {
		dir.Close()
		return cache{}
	}
	return cache{dir}
}

func ours(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

func (c cache) close() {
	if c.dir != nil {
		c.dir.Close()
	}
}

// An entry is sum and filter; the sum covers the key too, so that a filter
// under another's name is not taken.
func sum(key [sha256.Size]byte, bpf []byte) [sha256.Size]byte {
	return sha256.Sum256(append(key[:], bpf...))
}

func (c cache) read(key [sha256.Size]byte) ([]byte, bool) {
	if c.dir == nil {
		return nil, false
	}
	f, err := c.dir.OpenFile(hex.EncodeToString(key[:]), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || !ours(info) || info.Size() > sha256.Size+maxFilter {
		return nil, false
	}
	buf := make([]byte, info.Size())
	n, err := f.Read(buf)
	if err != nil || n != len(buf) || n < sha256.Size {
		return nil, false
	}
	bpf := buf[sha256.Size:]
	if sum(key, bpf) != [sha256.Size]byte(buf) || plausible(bpf) != nil {
		return nil, false
	}
	return bpf, true
}

// write keeps a filter. The directory is valid for this boot only, so there
// is nothing to sync: a reader sees a whole entry or none.
func (c cache) write(key [sha256.Size]byte, bpf []byte) {
	if c.dir == nil {
		return
	}
	name := hex.EncodeToString(key[:])
	temp := fmt.Sprintf(".%s.%d", name[:16], os.Getpid())
	s := sum(key, bpf)
	_ = c.dir.Remove(temp)
	f, err := c.dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return
	}
	_, err = f.Write(append(s[:], bpf...))
	if err := errors.Join(err, f.Close()); err != nil {
		_ = c.dir.Remove(temp)
		return
	}
	if c.dir.Rename(temp, name) != nil {
		_ = c.dir.Remove(temp)
	}
}
