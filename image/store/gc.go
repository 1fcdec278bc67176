// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/internal/flock"
)

// Freed is what GC removed and what it kept.
type Freed struct {
	Blobs int
	Bytes int64
	// Temporary counts files of writers that had died.
	Temporary int
	// Entries are the entries without a name of their own that went with what
	// they were attached to.
	Entries int
	// Live has every digest that is kept, whether its blob is here or not.
	Live map[digest.Digest]bool
}

// GC removes the blobs that nothing needs. Needed is what a name leads to, what
// living processes are writing or rely on, what keep returns true for, with all
// that leads to, and what is attached to any of it by its subject. Blobs that
// are needed and absent are no error. keep may be nil.
//
// It may be killed at any point and run at any time beside everything else, and
// needs no room on the disk.
func (s *Store) GC(keep func(digest.Digest) bool) (Freed, error) {
	if s.foreign {
		return Freed{}, fmt.Errorf("collect garbage in %s: not a store of gantry", s.dir)
	}
	guard, err := s.lockIngest(flock.Exclusive)
	if err != nil {
		return Freed{}, fmt.Errorf("collect garbage: %w", err)
	}
	defer guard.Close()
	freed, err := s.collect(keep)
	if err != nil {
		return freed, fmt.Errorf("collect garbage: %w", err)
	}
	return freed, nil
}

func (s *Store) collect(keep func(digest.Digest) bool) (Freed, error) {
	ingest, err := s.list(ingestDir)
	if err != nil {
		return Freed{}, err
	}
	// Leases before names: a process first names what it has written and then
	// ends its lease, so whatever has left the lease is in the index by now.
	held, err := s.leased(ingest)
	if err != nil {
		return Freed{}, err
	}
	x, err := s.readIndex()
	if err != nil {
		return Freed{}, err
	}
	blobs, err := s.blobs()
	if err != nil {
		return Freed{}, err
	}
	m := marker{s: s, live: held, walked: make(map[digest.Digest]bool)}
	dead := m.markAll(x.Manifests, blobs, keep)
	freed := Freed{Live: m.live}
	if freed.Entries, err = s.dropEntries(dead); err != nil {
		return freed, err
	}
	if err := s.sweepBlobs(blobs, &freed); err != nil {
		return freed, err
	}
	return freed, s.sweepTemporary(ingest, &freed)
}

// marker finds what is needed.
type marker struct {
	s      *Store
	live   map[digest.Digest]bool
	walked map[digest.Digest]bool
}

// markAll marks from all roots and returns the attached entries that are
// attached to nothing that is kept.
func (m *marker) markAll(entries []ispec.Descriptor, blobs []digest.Digest, keep func(digest.Digest) bool) []ispec.Descriptor {
	var waiting []attachment
	for _, d := range entries {
		if a, ok := m.attachment(d); ok {
			waiting = append(waiting, a)
			continue
		}
		m.mark(d.Digest)
	}
	for _, d := range blobs {
		if keep != nil && keep(d) {
			m.mark(d)
		}
	}
	// A signature of a signature becomes needed only when the first one is.
	for changed := true; changed; {
		changed = false
		waiting = slices.DeleteFunc(waiting, func(a attachment) bool {
			if !m.live[a.subject] {
				return false
			}
			m.mark(a.entry.Digest)
			changed = true
			return true
		})
	}
	var dead []ispec.Descriptor
	for _, a := range waiting {
		// A process that is just attaching it holds it.
		if !m.live[a.entry.Digest] {
			dead = append(dead, a.entry)
		}
	}
	return dead
}

// mark notes a digest and all that its blob points to. A blob held by a lease is
// walked as well: marking stops only at what was walked.
func (m *marker) mark(root digest.Digest) {
	todo := []digest.Digest{root}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if m.walked[d] {
			continue
		}
		m.walked[d] = true
		m.live[d] = true
		l, ok := m.s.links(d)
		if !ok {
			continue
		}
		m.live[l.Config.Digest] = true
		for _, leaf := range l.Layers {
			m.live[leaf.Digest] = true
		}
		for _, child := range l.Manifests {
			todo = append(todo, child.Digest)
		}
	}
}

// attachment is an entry that lives as long as what it is attached to.
type attachment struct {
	entry   ispec.Descriptor
	subject digest.Digest
}

// attachment tells whether an entry is attached to another: a manifest with a
// subject and no name of its own, or one under the name that the fallback of the
// referrers API or cosign gives it.
func (m *marker) attachment(d ispec.Descriptor) (attachment, bool) {
	n := name(d)
	if subject, ok := fallbackSubject(n); ok {
		return attachment{d, subject}, true
	}
	if n != "" {
		return attachment{}, false
	}
	l, ok := m.s.links(d.Digest)
	if !ok || l.Subject == nil {
		return attachment{}, false
	}
	return attachment{d, l.Subject.Digest}, true
}

// attached tells the same without reading the blob.
func attached(d ispec.Descriptor) bool {
	_, ok := fallbackSubject(name(d))
	return ok || name(d) == "" && d.ArtifactType != ""
}

// fallbackSubject reads sha256-<hex>, with or without .sig, .att or .sbom.
func fallbackSubject(n string) (digest.Digest, bool) {
	algorithm, rest, found := strings.Cut(n, "-")
	if !found {
		return "", false
	}
	encoded, _, _ := strings.Cut(rest, ".")
	d := digest.Digest(algorithm + ":" + encoded)
	return d, image.ValidDigest(d) == nil
}

// links is what any document of a registry can point to. GC reads what other
// tools may have put there, so it is lenient: too much kept is better than too
// little.
type links struct {
	Config    ispec.Descriptor
	Layers    []ispec.Descriptor
	Blobs     []ispec.Descriptor
	Manifests []ispec.Descriptor
	Subject   *ispec.Descriptor
}

// links reads the pointers of a blob if it is a document.
func (s *Store) links(d digest.Digest) (links, bool) {
	f, size, err := s.openBlob(d)
	if err != nil {
		return links{}, false
	}
	defer f.Close()
	if size > image.MaxManifest {
		return links{}, false
	}
	first := make([]byte, 1)
	if _, err := f.ReadAt(first, 0); err != nil || !strings.ContainsAny(string(first), "{ \t\r\n") {
		return links{}, false
	}
	var l links
	if err := json.NewDecoder(f).Decode(&l); err != nil {
		return links{}, false
	}
	l.Layers = append(l.Layers, l.Blobs...)
	return l, true
}

// dropEntries removes attached entries whose subject has gone.
func (s *Store) dropEntries(dead []ispec.Descriptor) (int, error) {
	if len(dead) == 0 {
		return 0, nil
	}
	var dropped int
	err := s.changeIndex(func(x *ispec.Index) bool {
		before := len(x.Manifests)
		x.Manifests = slices.DeleteFunc(x.Manifests, func(d ispec.Descriptor) bool {
			return slices.ContainsFunc(dead, func(gone ispec.Descriptor) bool {
				return gone.Digest == d.Digest && name(gone) == name(d)
			})
		})
		dropped = before - len(x.Manifests)
		return dropped > 0
	})
	return dropped, err
}

func (s *Store) sweepBlobs(blobs []digest.Digest, freed *Freed) error {
	for _, d := range blobs {
		if freed.Live[d] {
			continue
		}
		p, err := blobPath(d)
		if err != nil {
			return err
		}
		info, err := s.root.Lstat(p)
		if err == nil {
			err = s.root.Remove(p)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		freed.Blobs++
		freed.Bytes += info.Size()
	}
	return nil
}

func (s *Store) sweepTemporary(ingest []string, freed *Freed) error {
	for _, n := range ingest {
		if strings.HasPrefix(n, leasePrefix) {
			continue
		}
		removed, err := s.removeIfFree(ingestDir + "/" + n)
		if err != nil {
			return err
		}
		if removed {
			freed.Temporary++
		}
	}
	n, err := atomicfile.Sweep(s.root)
	freed.Temporary += n
	return err
}

// blobs lists the blobs that are there. What is no blob by its name is left to
// whoever put it there.
func (s *Store) blobs() ([]digest.Digest, error) {
	var all []digest.Digest
	for _, algorithm := range []string{"sha256", "sha512"} {
		names, err := s.list(blobsDir + "/" + algorithm)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if d := digest.Digest(algorithm + ":" + n); image.ValidDigest(d) == nil {
				all = append(all, d)
			}
		}
	}
	return all, nil
}

// list returns the names in a directory, none if it is not there.
func (s *Store) list(dir string) ([]string, error) {
	d, err := s.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}
