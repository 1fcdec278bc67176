// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Level is how much a Verify may believe.
type Level int

const (
	// LevelCached believes an fs-verity measurement, and a hash taken since
	// boot of a file whose identity has not changed.
	LevelCached Level = iota
	// LevelFull hashes every byte, of the indexes too.
	LevelFull
)

// How a file was found to be intact, weakest last. They are part of what
// `image verify` prints.
const (
	// ByVerity: the kernel holds the file's Merkle tree, its root is the one
	// that was sealed, and every byte is checked against it whenever it is
	// read from disk. Proves the bytes an app gets, against anybody who can
	// write the disk, but not against a changed kernel.
	ByVerity = "fs-verity"
	// ByHash: every byte was read and hashed during this call. Proves what
	// was there then, in the page cache or on the disk.
	ByHash = "hashed-now"
	// ByCache: hashed since boot, and since then neither size nor times nor
	// inode changed. Proves that nobody went through the file system to
	// change the file. It says nothing of writes below the file system, of
	// root setting the clock back, or of root writing the cache itself.
	ByCache = "hashed-this-boot"
)

// Proof says how a tree was verified: by the weakest way among its files.
type Proof struct {
	Level string         `json:"level"`
	Files map[string]int `json:"files"` // how many files by each way

	identities map[string]string // of each file before it was verified, by path
}

// Verify checks that the files of a tree are those that were sealed.
// Caches of this boot lie in runDir/verified.
func (d *Dir) Verify(t Tree, runDir string, level Level) (Proof, error) {
	p := Proof{Files: map[string]int{}, identities: map[string]string{}}
	var c *cache
	if level == LevelCached {
		c = &cache{dir: filepath.Join(runDir, "verified")}
	}
	for _, want := range t.files(level) {
		how, id, err := d.verifyOne(want, c)
		if err != nil {
			return p, fmt.Errorf("verify tree: %w", err)
		}
		p.identities[want.Path] = id
		p.Files[how]++
	}
	for _, how := range []string{ByVerity, ByHash, ByCache} {
		if p.Files[how] > 0 {
			p.Level = how
		}
	}
	return p, nil
}

// files are those a launch reads; with LevelFull all of them.
func (t *Tree) files(level Level) []File {
	files := append([]File{t.Image}, t.devices()...)
	if level == LevelFull {
		for _, l := range t.Layers {
			files = append(files, l.Index)
		}
	}
	return files
}

// verifyOne also tells the identity the file had before it was looked at: a
// change during a hash shows as another one.
func (d *Dir) verifyOne(want File, c *cache) (how, id string, err error) {
	f, err := d.open(want.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("%w: %s is gone", ErrChanged, want.Path)
	}
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := fstat(f, &st); err != nil {
		return "", "", err
	}
	how, err = check(f, want, c)
	return how, string(identity(&st)), err
}

// same says whether an opened file is the one that was verified under its
// path. A tree that was not verified knows of none.
func (t *Tree) same(f *os.File, path string) error {
	id, known := t.proven[path]
	if !known {
		return nil
	}
	var st unix.Stat_t
	if err := fstat(f, &st); err != nil {
		return err
	}
	if string(identity(&st)) != id {
		return fmt.Errorf("%w: %s was replaced after it was verified", ErrChanged, path)
	}
	return nil
}

// check tells how f was found to be want. Without a cache everything that is
// not guarded by the kernel is hashed.
func check(f *os.File, want File, c *cache) (string, error) {
	var st unix.Stat_t
	if err := fstat(f, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != want.Size {
		return "", fmt.Errorf("%w: %s has %d bytes, not %d", ErrChanged, want.Path, st.Size, want.Size)
	}
	if c != nil && want.Verity != "" {
		got, err := measure(f)
		if err == nil && got == want.Verity {
			return ByVerity, nil
		}
		if err == nil && got != "" {
			return "", fmt.Errorf("%w: fs-verity measures %s of %s, not %s", ErrChanged, got, want.Path, want.Verity)
		}
	}
	if c != nil && c.has(want, &st) {
		return ByCache, nil
	}
	began := time.Now()
	got, _, err := hash(f)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrChanged, err)
	}
	if got != want.Digest {
		return "", fmt.Errorf("%w: %s hashes to %s, not %s", ErrChanged, want.Path, got, want.Digest)
	}
	if c != nil {
		c.put(want, &st, began)
	}
	return ByHash, nil
}

func fstat(f *os.File, st *unix.Stat_t) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno error
	if err := c.Control(func(fd uintptr) { errno = unix.Fstat(int(fd), st) }); err != nil {
		return err
	}
	return errno
}

// cache remembers identities of files that were hashed. Whether it can be
// written decides nothing but speed.
type cache struct{ dir string }

// file names an entry by what it vouches for: another digest, another entry.
func (c *cache) file(want File) string {
	return filepath.Join(c.dir, strings.ReplaceAll(want.Path, "/", "-")+"-"+want.Digest.Encoded())
}

func identity(st *unix.Stat_t) []byte {
	b := []byte("gantry1\n")
	for _, v := range []int64{int64(st.Dev), int64(st.Ino), st.Size, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func (c *cache) has(want File, st *unix.Stat_t) bool {
	b, err := os.ReadFile(c.file(want))
	return err == nil && string(b) == string(identity(st))
}

// put remembers a file whose last change is well before the hash began: a
// change right after it could carry the same time stamp, which the kernel
// takes from a clock that ticks every few milliseconds, and some file systems
// round to seconds.
func (c *cache) put(want File, st *unix.Stat_t, began time.Time) {
	grain := 100 * time.Millisecond
	if st.Ctim.Nsec == 0 {
		grain = 2 * time.Second
	}
	if time.Unix(st.Ctim.Unix()).After(began.Add(-grain)) || os.MkdirAll(c.dir, 0o700) != nil {
		return
	}
	tmp, err := os.CreateTemp(c.dir, ".tmp-")
	if err != nil {
		return
	}
	_, err = tmp.Write(identity(st))
	if tmp.Close() != nil || err != nil || os.Rename(tmp.Name(), c.file(want)) != nil {
		_ = os.Remove(tmp.Name())
	}
}
