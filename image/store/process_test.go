// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/flock"
)

// The test binary runs itself as another process when this is set: to what it
// shall do, in the store of the second variable.
const (
	roleVariable = "GANTRY_TEST_ROLE"
	dirVariable  = "GANTRY_TEST_DIR"
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := roles[role](os.Getenv(dirVariable)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var roles = map[string]func(dir string) error{"churn": churn, "hold": holdWriter, "full": fullDisk, "readonly": readOnlyStore}

// start runs a role and returns what it prints.
func start(t *testing.T, role, dir string, attr *syscall.SysProcAttr) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), roleVariable+"="+role, dirVariable+"="+dir)
	cmd.SysProcAttr = attr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skipf("ability missing: new mount namespace: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if stderr.Len() > 0 {
			t.Errorf("%s: %s", role, stderr.String())
		}
	})
	return cmd, bufio.NewReader(out)
}

// blobWriter writes blobs and reports each step on standard output.
type blobWriter struct {
	s *Store
}

func (w blobWriter) put(mediaType, content string) (ispec.Descriptor, error) {
	d := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
	b, err := w.s.Writer(context.Background(), d)
	if errors.Is(err, ErrExists) {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	defer b.Abort()
	for half := range strings.SplitSeq(content[:len(content)/2]+"\x00"+content[len(content)/2:], "\x00") {
		if _, err := io.WriteString(b, half); err != nil {
			return d, err
		}
		step()
	}
	return d, b.Commit()
}

// step tells the one who will kill this process that it got further.
func step() { fmt.Print(".") }

// churn writes, names, removes and collects images for ever.
func churn(dir string) error {
	for {
		if err := churnOnce(dir); err != nil {
			return err
		}
	}
}

func churnOnce(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	ref, err := image.Parse(fmt.Sprintf("app-%d", rand.IntN(8)))
	if err != nil {
		return err
	}
	w := blobWriter{s}
	layer, err := w.put(ispec.MediaTypeImageLayer, fmt.Sprintf("layer %d", rand.IntN(8)))
	if err != nil {
		return err
	}
	config, err := w.put(ispec.MediaTypeImageConfig, fmt.Sprintf(
		`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, layer.Digest,
	))
	if err != nil {
		return err
	}
	m, err := w.put(ispec.MediaTypeImageManifest, fmt.Sprintf(
		`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		config.MediaType, config.Digest, config.Size, layer.MediaType, layer.Digest, layer.Size,
	))
	if err != nil {
		return err
	}
	if err := s.Tag(ref, m); err != nil {
		return err
	}
	step()
	if err := s.Untag(ref); rand.IntN(3) == 0 && err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	step()
	_, err = s.GC(nil)
	step()
	return err
}

// A process killed at any moment leaves a valid store: every name leads to a
// whole image, every blob is what its digest says, and nothing keeps others from
// going on. Two processes work at a time, so one is killed beside a living one.
func TestStore_survivesKill(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 3
	}
	dir := filepath.Join(t.TempDir(), "store")
	for range rounds {
		first, a := start(t, "churn", dir, nil)
		second, b := start(t, "churn", dir, nil)
		for _, p := range []struct {
			cmd *exec.Cmd
			out *bufio.Reader
		}{{first, a}, {second, b}} {
			if _, err := io.CopyN(io.Discard, p.out, 1+rand.Int64N(60)); err != nil {
				t.Fatalf("the process ended by itself: %v", err)
			}
			if err := p.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			// Its locks end with the process, which may be after its output does.
			_ = p.cmd.Wait()
		}
		checkStore(t, dir)
		if t.Failed() {
			return
		}
	}
}

func checkStore(t *testing.T, dir string) {
	t.Helper()
	s := open(t, dir)
	entries, err := s.Entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		img, err := s.Manifest(e.Reference, amd64)
		if err != nil {
			t.Errorf("after the kill: %v", err)
			continue
		}
		for _, l := range img.Manifest.Layers {
			if err := s.Verify(l); err != nil {
				t.Errorf("after the kill: %v", err)
			}
		}
	}
	blobs, err := s.blobs()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range blobs {
		b, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", d.Encoded()))
		if err != nil || digest.FromBytes(b) != d {
			t.Errorf("after the kill: blob %s is %q, %v", d, b, err)
		}
	}
	if _, err := s.GC(nil); err != nil {
		t.Errorf("after the kill: %v", err)
	}
	left, err := s.list(ingestDir)
	if err != nil || len(left) > 0 {
		t.Errorf("after GC %s has %v, %v", ingestDir, left, err)
	}
}

var heldBlob = ispec.Descriptor{MediaType: ispec.MediaTypeImageLayer, Digest: digest.FromString("content"), Size: 7}

// holdWriter begins a blob and waits to be killed.
func holdWriter(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	w, err := s.Writer(context.Background(), heldBlob)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "con"); err != nil {
		return err
	}
	step()
	<-time.After(time.Hour) // select {} the runtime takes for a deadlock
	return nil
}

// A writer that dies gives its blob to the one who waits.
func TestWriter_deadWriterFreesItsLock(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	holder, out := start(t, "hold", dir, nil)
	if _, err := out.ReadByte(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, ingestDir, "sha256-"+heldBlob.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := flock.TryShared(f); !errors.Is(err, flock.ErrLocked) {
		t.Errorf("the file of the writer is not locked: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Writer(ctx, heldBlob); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled wait: %v", err)
	}
	if freed := collect(t, s, nil); freed.Temporary != 0 {
		t.Errorf("GC took the file of a living writer: %+v", freed)
	}
	got := make(chan error, 1)
	go func() {
		w, err := s.Writer(context.Background(), heldBlob)
		if err == nil {
			_, err = io.WriteString(w, "content")
			err = errors.Join(err, w.Commit())
		}
		got <- err
	}()
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if err := s.Verify(heldBlob); err != nil {
		t.Error(err)
	}
}

// fullDisk fills a small disk of its own and then frees it.
func fullDisk(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return err
	}
	refs, err := fillDisk(dir)
	if err != nil {
		return err
	}
	s, err := Open(dir)
	if err != nil {
		return fmt.Errorf("open a full store: %w", err)
	}
	defer s.Close()
	if _, err := s.Put("a/b", []byte("x")); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("the disk is not full: %w", err)
	}
	for _, ref := range refs {
		if err := s.Untag(ref); err != nil {
			return fmt.Errorf("untag on a full disk: %w", err)
		}
	}
	freed, err := s.GC(nil)
	if err != nil || freed.Blobs < len(refs) {
		return fmt.Errorf("collect on a full disk: %+v, %w", freed, err)
	}
	if _, err := s.Put("a/b", make([]byte, 100<<10)); err != nil {
		return fmt.Errorf("write after that: %w", err)
	}
	fmt.Println("freed")
	return nil
}

// fillDisk tags blobs and then leaves not one page free: the store is closed
// first, since that frees one.
func fillDisk(dir string) ([]image.Reference, error) {
	refs, err := tagSome(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); errors.Is(err, unix.ENOSPC) {
			return refs, nil
		} else if err != nil {
			return nil, err
		}
	}
}

func tagSome(dir string) ([]image.Reference, error) {
	s, err := Open(dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var refs []image.Reference
	for i := range 20 {
		d, err := s.Put("a/b", []byte(strings.Repeat(fmt.Sprint(i), 10<<10)))
		if err != nil {
			return nil, err
		}
		ref, err := image.Parse(fmt.Sprintf("app-%d", i))
		if err != nil {
			return nil, err
		}
		if err := s.Tag(ref, d); err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

func TestStore_fullDiskCanBeFreed(t *testing.T) {
	_, out := start(t, "full", t.TempDir(), &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS})
	if line, _ := out.ReadString('\n'); line != "freed\n" {
		t.Errorf("it printed %q", line)
	}
}

// readOnlyStore makes the file system of a store read-only and uses the store.
func readOnlyStore(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	b := []byte("content")
	d, err := s.Put("a/b", b)
	if err != nil {
		return err
	}
	ref, err := image.Parse("app")
	if err != nil {
		return err
	}
	if err := errors.Join(s.Tag(ref, d), s.Close(), os.Chmod(dir, 0o755)); err != nil {
		return err
	}
	for _, m := range []struct {
		source string
		flags  uintptr
	}{{"", unix.MS_REC | unix.MS_PRIVATE}, {dir, unix.MS_BIND}, {dir, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY}} {
		target := dir
		if m.source == "" {
			target = "/"
		}
		if err := unix.Mount(m.source, target, "", m.flags, ""); err != nil {
			return err
		}
	}
	if s, err = Open(dir); err != nil {
		return err
	}
	if _, err := s.Resolve(ref); err != nil {
		return err
	}
	if got, err := s.Bytes(d, 10); err != nil || string(got) != string(b) {
		return fmt.Errorf("read %q: %w", got, err)
	}
	if _, err := s.GC(nil); err != nil {
		return fmt.Errorf("collect what is not there: %w", err)
	}
	if _, err := s.Put("a/b", []byte("more")); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("write: %w", err)
	}
	if err := s.Untag(ref); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("untag: %w", err)
	}
	fmt.Println("read")
	return nil
}

// An image store in a read-only /usr serves launches.
func TestStore_readOnlyFileSystem(t *testing.T) {
	_, out := start(t, "readonly", t.TempDir(), &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS})
	if line, _ := out.ReadString('\n'); line != "read\n" {
		t.Errorf("it printed %q", line)
	}
}
