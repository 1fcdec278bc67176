// SPDX-License-Identifier: Apache-2.0

package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/internal/flock"
)

const (
	leasePrefix = "lease-"
	// maxLease bounds one lease: 10,000 digests and more.
	maxLease = 1 << 20
)

// hold notes a digest in this Store's lease before its blob is looked for. GC
// marks and sweeps under the same lock, so it either sees the note or is done
// before the look: a blob that was found cannot be swept any more.
func (s *Store) hold(d digest.Digest) error {
	guard, err := s.lockIngest(flock.Shared)
	if err != nil {
		return err
	}
	defer guard.Close()
	if s.foreign {
		return nil // nobody collects garbage there
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		if err := s.newLease(); err != nil {
			return err
		}
	}
	_, err = s.lease.WriteString(string(d) + "\n")
	return err
}

// newLease makes a locked file. It is called under the lock of ingest, so GC
// cannot find the file unlocked.
func (s *Store) newLease() error {
	var b [8]byte
	rand.Read(b[:])
	name := ingestDir + "/" + leasePrefix + hex.EncodeToString(b[:])
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := flock.TryExclusive(f); err != nil {
		return errors.Join(err, f.Close())
	}
	s.lease, s.leaseName = f, name
	return nil
}

// lockIngest takes lock 1. A layout of somebody else gets the directory when it
// is first written to.
func (s *Store) lockIngest(how func(*os.File) error) (*os.File, error) {
	f, err := s.lockDir(ingestDir, how)
	if !s.foreign || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := s.root.Mkdir(ingestDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return s.lockDir(ingestDir, how)
}

// leased returns what living processes rely on, and removes the leases of dead
// ones. The caller holds lock 1 exclusively.
func (s *Store) leased(names []string) (map[digest.Digest]bool, error) {
	held := make(map[digest.Digest]bool)
	for _, n := range names {
		if !strings.HasPrefix(n, leasePrefix) {
			continue
		}
		dead, err := s.removeIfFree(ingestDir + "/" + n)
		if err != nil {
			return nil, err
		}
		if dead {
			continue
		}
		b, err := s.readFile(ingestDir+"/"+n, maxLease)
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed just now: what it held is named, or not wanted
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			held[digest.Digest(strings.TrimSuffix(line, "\n"))] = true
		}
	}
	return held, nil
}

// removeIfFree removes a file that nobody has locked.
func (s *Store) removeIfFree(path string) (bool, error) {
	f, err := s.root.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := flock.TryExclusive(f); err != nil {
		if errors.Is(err, flock.ErrLocked) {
			return false, nil
		}
		return false, err
	}
	// Between the opening and the lock its writer may have finished with it and
	// another one have begun.
	if !s.linked(path, f) {
		return false, nil
	}
	err = s.root.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
