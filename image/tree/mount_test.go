// SPDX-License-Identifier: Apache-2.0

package tree_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/image/tree/layer"
	"github.com/gantryrun/gantry/internal/flock"
)

func device(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Dev
}

func random(n int) string {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(b)
	return string(b)
}

// TestPodsShareOneSuperblock: the second mount of a tree is the first one's
// superblock, so that what one pod read another finds in the page cache.
func TestPodsShareOneSuperblock(t *testing.T) {
	d := openDir(t)
	tr := mustBuild(t, d, newArchive(t).file("a", random(100_000)), newArchive(t).file("b", "b"))
	first := mount(t, d, tr)
	began := time.Now()
	second := mount(t, d, tr)
	t.Logf("second mount took %v", time.Since(began))
	if a, b := device(t, under(first, "a")), device(t, under(second, "a")); a != b {
		t.Errorf("two mounts of one tree are devices %#x and %#x", a, b)
	}
}

// TestConcurrentMountsShareOneSuperblock: also when all of them are the first.
func TestConcurrentMountsShareOneSuperblock(t *testing.T) {
	needRoot(t)
	d := openDir(t)
	tr := mustBuild(t, d, newArchive(t).file("a", "a"), newArchive(t).file("b", "b"))
	mount(t, d, tr).Close()
	var wg sync.WaitGroup
	mounts := make([]*os.File, 16)
	for i := range mounts {
		wg.Go(func() {
			m, err := d.Mount(tr)
			if err != nil {
				t.Error(err)
				return
			}
			mounts[i] = m
		})
	}
	wg.Wait()
	seen := map[uint64]bool{}
	for _, m := range mounts {
		if m != nil {
			seen[device(t, under(m, ""))] = true
			m.Close()
		}
	}
	if len(seen) != 1 {
		t.Errorf("%d superblocks", len(seen))
	}
}

// TestPageCacheIsNotDuplicated reads a file through two mounts and looks which
// of its pages each finds in memory.
func TestPageCacheIsNotDuplicated(t *testing.T) {
	const size = 64 << 20
	d := openDir(t)
	tr := mustBuild(t, d, newArchive(t).file("big", random(size)))
	first, second := mount(t, d, tr), mount(t, d, tr)
	f, err := os.Open(under(first, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(io.Discard, f); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, under(second, "big"), size); n < size*9/10 {
		t.Errorf("the second pod finds %d of %d bytes in the page cache", n, size)
	}
}

// TestWhatWasReadStays: a superblock goes with the last pod, and its page cache
// with it; the next pod must not wait for the disk again.
func TestWhatWasReadStays(t *testing.T) {
	const size = 8 << 20
	d := openDir(t)
	tr := mustBuild(t, d, newArchive(t).file("big", random(size)))
	data := filepath.Join(d.Path(), tr.Layers[0].Data.Path)
	f, err := os.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, data, size); n > size/2 {
		t.Skipf("ability missing: pages of this file system that can be dropped: %d of %d bytes are still there", n, size)
	}
	m := mount(t, d, tr)
	b, err := os.ReadFile(under(m, "big"))
	if err != nil || len(b) != size {
		t.Fatalf("%d bytes: %v", len(b), err)
	}
	m.Close()
	if n := resident(t, data, size); n < size*9/10 {
		t.Errorf("when the mount has gone, %d of %d bytes that were read are in memory", n, size)
	}
}

// resident returns how many bytes of a file are in the page cache.
func resident(t testing.TB, path string, size int) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	return mincore(t, m)
}

// TestLoopDevicesGoWithTheMount: nothing stays attached.
func TestLoopDevicesGoWithTheMount(t *testing.T) {
	d := openDir(t)
	tr := mustBuild(t, d, newArchive(t).file("a", "a"))
	m := mount(t, d, tr)
	if !backed(t, d.Path()) {
		t.Skip("ability missing: loop devices")
	}
	m.Close()
	// The kernel detaches when the superblock's last reference went, which a
	// closed detached mount does from a task work; a sync of the file system
	// orders nothing here, so the wait is bounded instead.
	deadline := time.Now().Add(10 * time.Second)
	for backed(t, d.Path()) {
		if time.Now().After(deadline) {
			t.Fatal("a loop device is still attached to a tree that nobody has mounted")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func backed(t testing.TB, dir string) bool {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, _ := os.ReadFile(f); strings.HasPrefix(string(b), dir) {
			return true
		}
	}
	return false
}

// TestMountRefusesAnImageThatNamesMoreDevices: a kernel that is given fewer
// devices than the image has would open paths from the image's own table.
func TestMountRefusesAnImageThatNamesMoreDevices(t *testing.T) {
	d := openDir(t)
	tr := mustBuild(t, d, newArchive(t).file("a", "a"))
	tr.Layers[0].Data.Size = 0 // as if the layer had no data
	if m, err := d.Mount(tr); !errors.Is(err, tree.ErrChanged) {
		t.Errorf("Mount = %v, %v", m, err)
	}
}

// TestHugeFile has a file of more than 4 GiB, mostly holes, and content on
// both sides of the 32-bit boundary.
func TestHugeFile(t *testing.T) {
	const size = 5<<30 + 12345
	b := gzipped(t, sparseTar("huge", size, map[int64]string{0: "begin", 1<<32 + 1: "over", size - 3: "end"}))
	d := openDir(t)
	tr, err := build(d, b)
	if err != nil {
		t.Fatal(err)
	}
	if n := tr.Layers[0].Data.Size; n > 1<<20 {
		t.Errorf("a file of holes costs %d bytes", n)
	}
	m := mount(t, d, tr)
	f, err := os.Open(under(m, "huge"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != size {
		t.Fatalf("size %d, %v", st.Size(), err)
	}
	for at, want := range map[int64]string{0: "begin", 1 << 31: "\x00\x00", 1<<32 + 1: "over", size - 3: "end"} {
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, at); err != nil || string(got) != want {
			t.Errorf("at %d: %q, %v", at, got, err)
		}
	}
}

// sparseTar is a tar with one file in the old GNU sparse form, which is the
// only way to bring five gibibytes into a test quickly.
func sparseTar(name string, size int64, parts map[int64]string) []byte {
	offsets := slices.Sorted(maps.Keys(parts))
	var content string
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[136:], "00000000001\x00")
	h[156] = tar.TypeGNUSparse
	copy(h[257:], "ustar  \x00")
	for i, at := range offsets {
		copy(h[386+24*i:], fmt.Sprintf("%011o\x00%011o\x00", at, len(parts[at])))
		content += parts[at]
	}
	copy(h[124:], fmt.Sprintf("%011o\x00", len(content)))
	copy(h[483:], fmt.Sprintf("%011o\x00", size))
	copy(h[148:], "        ")
	total := 0
	for _, c := range h {
		total += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", total))
	h = append(h, content...)
	return append(h, make([]byte, 1024+(512-len(content)%512)%512)...)
}

// TestConcurrentConversionsDoTheWorkOnce: the others wait and get the result.
func TestConcurrentConversionsDoTheWorkOnce(t *testing.T) {
	d := openDir(t)
	b := gzipped(t, newArchive(t).file("a", "a").tar())
	first, err := d.Stage(t.Context(), b.blob)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make([]error, 8)
	for i := range results {
		wg.Go(func() {
			st, err := d.Stage(context.Background(), b.blob)
			if results[i] = err; st != nil {
				st.Abort()
			}
		})
	}
	sum, err := layer.Convert(bytes.NewReader(b.data), tarGzip, b.diffID, tree.Limits{}, first.Data(), first.Index())
	if err != nil {
		t.Fatal(err)
	}
	want, err := first.Commit(b.diffID, sum)
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for _, err := range results {
		// One that comes after the commit finds no lock held and converts
		// again, harmlessly; it asks Layer before, which this test does not.
		if err != nil && !errors.Is(err, tree.ErrExists) {
			t.Error(err)
		}
	}
	if got, ok := d.Layer(b.blob); !ok || got != want {
		t.Errorf("Layer = %+v, %v", got, ok)
	}
}

// TestStageGivesUpWithItsContext does not wait for ever.
func TestStageGivesUpWithItsContext(t *testing.T) {
	d := openDir(t)
	b := gzipped(t, newArchive(t).tar())
	st, err := d.Stage(t.Context(), b.blob)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Abort()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Stage(ctx, b.blob); !errors.Is(err, context.Canceled) {
		t.Errorf("Stage = %v", err)
	}
}

// TestCommitRefusesAFileSomebodyCanStillWrite: a converter that was taken over
// and did not exit could change what was hashed.
func TestCommitRefusesAFileSomebodyCanStillWrite(t *testing.T) {
	needRoot(t)
	d := openDir(t)
	b := gzipped(t, newArchive(t).file("a", "a").tar())
	st, err := d.Stage(t.Context(), b.blob)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(st.Data().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := st.Commit(b.diffID, tree.Summary{}); err == nil {
		t.Error("committed")
	}
}

// TestGC removes what no tree needs, keeps what one does, and waits for those
// who are at work.
func TestGC(t *testing.T) {
	d := openDir(t)
	base, other := newArchive(t).file("base", "b"), newArchive(t).file("other", "o")
	shared := gzipped(t, base.tar())
	keep, err := build(d, shared)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := build(d, shared, gzipped(t, other.tar())); err != nil {
		t.Fatal(err)
	}
	release, err := d.Hold()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.GC(nil); !errors.Is(err, flock.ErrLocked) {
		t.Errorf("GC while held: %v", err)
	}
	release()
	// Guards: a fetch that ends while GC begins finds its tree kept. Nobody can
	// hold the trees any more when GC asks what to keep.
	freed, err := d.GC(func() ([]tree.Tree, error) {
		f, err := os.Open(filepath.Join(d.Path(), "locks", "gc"))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if err := flock.TryShared(f); !errors.Is(err, flock.ErrLocked) {
			t.Errorf("held while GC asks: %v", err)
		}
		return []tree.Tree{keep}, nil
	})
	if err != nil || freed.Files != 5 {
		t.Errorf("GC = %+v, %v", freed, err)
	}
	if _, err := d.Verify(keep, t.TempDir(), tree.LevelFull); err != nil {
		t.Errorf("the kept tree: %v", err)
	}
	if _, err := d.GC(nil); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"layers", "images", "plain", "loops"} {
		if left, _ := os.ReadDir(filepath.Join(d.Path(), sub)); len(left) != 0 {
			t.Errorf("%s still has %v", sub, left)
		}
	}
}

// TestMountWithoutLoopDevices: Linux 6.12 mounts the files themselves.
func TestMountWithoutLoopDevices(t *testing.T) {
	needRoot(t)
	d := openDir(t)
	tr := mustBuild(t, d, newArchive(t).file("a", random(70_000)), newArchive(t).file("b", "b"))
	m, err := d.MountByFile(tr)
	if err != nil {
		t.Skipf("ability missing: file-backed EROFS mounts: %v", err)
	}
	defer m.Close()
	compare(t, inodes(t, under(mount(t, d, tr), "")), inodes(t, under(m, "")), nil)
}

// TestLoopDevicesAreFoundWithoutHints: the notes on where a file is attached
// may be lost.
func TestLoopDevicesAreFoundWithoutHints(t *testing.T) {
	d := openDir(t)
	tr := mustBuild(t, d, newArchive(t).file("a", "a"), newArchive(t).file("b", "b"))
	want := device(t, under(mount(t, d, tr), ""))
	hints, err := filepath.Glob(filepath.Join(d.Path(), "loops", "*"))
	if err != nil || len(hints) == 0 {
		t.Skipf("ability missing: loop devices: %v", err)
	}
	for _, hint := range hints {
		if err := os.Remove(hint); err != nil {
			t.Fatal(err)
		}
	}
	if got := device(t, under(mount(t, d, tr), "")); got != want {
		t.Errorf("another superblock: %#x, not %#x", got, want)
	}
}
