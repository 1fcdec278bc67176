// SPDX-License-Identifier: Apache-2.0

// Package store keeps images on disk as an OCI image layout, which other tools
// can read, and is the only writer of its blobs.
//
//	store/
//	  oci-layout, index.json       the layout; index.json is replaced, never changed
//	  index.json.next              room for the next index.json, so that an image
//	                               can be removed from a full disk
//	  blobs/sha256/<hex>           complete, verified, never changed
//	  ingest/sha256-<hex>          being written by whoever holds its lock
//	  ingest/lease-<random>        digests that a living process relies on
//	  version                      of what is beside the layout; written last
//
// Nothing has to be repaired after a crash. A blob appears under its name by a
// rename after its content was checked and flushed; index.json likewise. What a
// failing disk made of a blob is replaced in the same way by who has it again. A process that dies
// leaves at most files whose lock is free, and GC removes those.
//
// # Locks
//
// All are flock(2) locks, which end with their process. In the order in which
// they are taken:
//
//  1. the directory ingest: shared while a digest is noted in a lease or a name
//     is set, exclusive while GC marks and sweeps. Held for moments, never
//     while waiting for lock 3 or a network.
//  2. the store's directory: exclusive while index.json is replaced.
//  3. a file in ingest: by its writer for as long as it writes, by others to
//     wait for it. GC only tries it.
//
// Readers take none: what they open is complete and stays readable when it is
// removed meanwhile.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/internal/flock"
)

// What callers act on.
var (
	// ErrNotFound means that the store does not have it.
	ErrNotFound = errors.New("not in the store")
	// ErrExists means that the blob is there already and need not be written.
	ErrExists = errors.New("already in the store")
	// ErrCorrupt means that a blob is not what its digest says.
	ErrCorrupt = errors.New("content does not match its digest")
	// ErrIndex means that index.json, which has the names of images, is not one.
	ErrIndex = errors.New("the index of the store is damaged")
	// ErrVersion means that a newer gantry made the store.
	ErrVersion = errors.New("made by a newer gantry")
)

// version is the newest form of the store this code knows. Forms below it are
// read; there are none yet.
const version = 1

const (
	layoutFile    = "oci-layout"
	versionFile   = "version"
	ingestDir     = "ingest"
	blobsDir      = "blobs"
	layoutContent = `{"imageLayoutVersion":"1.0.0"}` + "\n"
)

// Store is an open store. Its methods may be called from several goroutines.
type Store struct {
	dir  string
	root *os.Root
	// foreign is a layout of somebody else: no lease, no room kept for the next
	// index, and files that others may read.
	foreign bool

	mu        sync.Mutex
	lease     *os.File // nil until something is written
	leaseName string
}

// Open opens the store at dir and makes it if there is none. The directory is
// made private to its owner: an image holds set-user-ID programs that no user of
// the host may reach (CVE-2021-41091). A store on a read-only file system opens
// too. The caller closes it.
func Open(dir string) (*Store, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make store: %w", err)
		}
		root, err = os.OpenRoot(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{dir: dir, root: root}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", dir, err), root.Close())
	}
	return s, nil
}

// OpenLayout opens an existing layout that is not gantry's own. It is read like
// a store; Put and Add write to it, as a signer does. GC refuses it.
func OpenLayout(dir string) (*Store, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open layout: %w", err)
	}
	s := &Store{dir: dir, root: root, foreign: true}
	b, err := s.readFile(layoutFile, 4096)
	if err == nil {
		err = checkLayout(b)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open layout %s: %w", dir, err), root.Close())
	}
	return s, nil
}

// Path is where the store lies.
func (s *Store) Path() string { return s.dir }

// Close ends the protection of what this Store wrote and did not name.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.lease != nil {
		err = errors.Join(s.root.Remove(s.leaseName), s.lease.Close())
		s.lease = nil
	}
	return errors.Join(err, s.root.Close())
}

// prepare checks an existing store with two system calls' worth of reading, and
// makes a new one.
func (s *Store) prepare() error {
	if err := s.makePrivate(); err != nil {
		return err
	}
	err := s.checkVersion()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lock, err := s.lockIndex()
	if err != nil {
		return err
	}
	defer lock.Close()
	// Somebody else may have made it while this one waited.
	if err := s.checkVersion(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.initialise()
}

func (s *Store) makePrivate() error {
	info, err := s.root.Stat(".")
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	err = s.root.Chmod(".", 0o700)
	if readOnly(err) {
		return nil
	}
	return err
}

func (s *Store) checkVersion() error {
	b, err := s.readFile(versionFile, 64)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 1 {
		return fmt.Errorf("%s: %q is not a number", versionFile, b)
	}
	if n > version {
		return fmt.Errorf("version %d; this gantry reads up to %d: %w", n, version, ErrVersion)
	}
	return nil
}

// initialise turns a directory into a store. It may already be a layout that
// another tool made, or one that was left half made.
func (s *Store) initialise() error {
	for _, d := range []string{blobsDir, blobsDir + "/sha256", ingestDir} {
		if err := s.root.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	b, err := s.readFile(layoutFile, 4096)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = atomicfile.Write(s.root, layoutFile, []byte(layoutContent), 0o600)
	case err == nil:
		err = checkLayout(b)
	}
	if err != nil {
		return err
	}
	if _, err := s.root.Stat(indexFile); errors.Is(err, fs.ErrNotExist) {
		if err := s.writeIndex(emptyIndex()); err != nil {
			return err
		}
	}
	return atomicfile.Write(s.root, versionFile, []byte(strconv.Itoa(version)+"\n"), 0o600)
}

// lockIndex takes lock 2. Closing the result gives it back.
func (s *Store) lockIndex() (*os.File, error) { return s.lockDir(".", flock.Exclusive) }

func (s *Store) lockDir(name string, how func(*os.File) error) (*os.File, error) {
	d, err := s.root.Open(name)
	if err != nil {
		return nil, err
	}
	if err := how(d); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}
