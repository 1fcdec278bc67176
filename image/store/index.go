// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/internal/flock"
)

const (
	indexFile = "index.json"
	nextFile  = "index.json.next"
	// nextSlack is how much longer than now the next index.json may be without
	// needing room that a full disk does not have.
	nextSlack = 16 << 10
)

// indexHead is the first line of every index.json written here; each entry is a
// line of its own after it, in the order of their names. To other tools it is
// JSON like any other. Here it lets Resolve find one among thousands by bisection
// without reading the rest.
const indexHead = `{"schemaVersion":2,"mediaType":"` + ispec.MediaTypeImageIndex + `","manifests":[` + "\n"

// Entry is one name in the store.
type Entry struct {
	// Name as written in index.json: a canonical reference when gantry wrote it;
	// empty for an entry without a name, such as a signature.
	Name string
	// Reference is the Name parsed, the zero value if it is not a reference.
	Reference  image.Reference
	Descriptor ispec.Descriptor
}

func emptyIndex() ispec.Index {
	return ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex}
}

// Resolve returns what a reference names: an index or a manifest. A reference
// with a digest is found under any tag of its repository. ErrNotFound means
// that it is not there.
func (s *Store) Resolve(ref image.Reference) (ispec.Descriptor, error) {
	start, fits := ref.String(), func(d ispec.Descriptor) bool { return name(d) == ref.String() }
	if ref.Digest != "" {
		start, fits = ref.Name(), func(d ispec.Descriptor) bool { return matches(ref, d) }
	}
	d, err := s.find(start, fits)
	if err != nil {
		return ispec.Descriptor{}, fmt.Errorf("resolve %s: %w", ref.Familiar(), err)
	}
	return d, nil
}

// Lookup returns the entry of that name in a layout, by the name as written. An
// empty name means the only entry.
func (s *Store) Lookup(wanted string) (ispec.Descriptor, error) {
	x, err := s.readIndex()
	if err != nil {
		return ispec.Descriptor{}, err
	}
	if wanted == "" {
		return only(x)
	}
	for _, d := range x.Manifests {
		if name(d) == wanted {
			return d, nil
		}
	}
	return ispec.Descriptor{}, fmt.Errorf("look up %q: %w", wanted, ErrNotFound)
}

// Tag sets a name. The descriptor's blob must be in the store; what it points
// to may be absent, as the platforms of an index that were not fetched are.
func (s *Store) Tag(ref image.Reference, d ispec.Descriptor) error {
	if ref.Digest != "" && ref.Digest != d.Digest {
		return fmt.Errorf("tag %s: is %s", ref.Familiar(), d.Digest)
	}
	return s.Add(ref.String(), d)
}

// Add sets a name as written; an empty one adds an entry without a name, once.
func (s *Store) Add(wanted string, d ispec.Descriptor) error {
	if err := s.add(wanted, d); err != nil {
		return fmt.Errorf("tag %s: %w", wanted, err)
	}
	return nil
}

func (s *Store) add(wanted string, d ispec.Descriptor) error {
	if err := image.ValidDescriptor(d, image.MaxLayerSize); err != nil {
		return err
	}
	guard, err := s.lockIngest(flock.Shared)
	if err != nil {
		return err
	}
	defer guard.Close()
	if !s.Has(d) {
		return fmt.Errorf("%s: %w", d.Digest, ErrNotFound)
	}
	return s.changeIndex(func(x *ispec.Index) bool {
		e := entry(wanted, d)
		for i, old := range x.Manifests {
			if wanted != "" && name(old) == wanted || wanted == "" && name(old) == "" && old.Digest == d.Digest {
				x.Manifests[i] = e
				return true
			}
		}
		x.Manifests = append(x.Manifests, e)
		return true
	})
}

// Untag removes a name; the blobs stay until GC. It needs no room on the disk.
func (s *Store) Untag(ref image.Reference) error { return s.Drop(ref.String()) }

// Drop removes a name as written.
func (s *Store) Drop(wanted string) error {
	if wanted == "" {
		return errors.New("untag: empty name") // would be every signature
	}
	var found bool
	err := s.changeIndex(func(x *ispec.Index) bool {
		before := len(x.Manifests)
		x.Manifests = slices.DeleteFunc(x.Manifests, func(d ispec.Descriptor) bool { return name(d) == wanted })
		found = len(x.Manifests) != before
		return found
	})
	if err == nil && !found {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("untag %s: %w", wanted, err)
	}
	return nil
}

// Entries lists the store in the order of names.
func (s *Store) Entries() ([]Entry, error) {
	x, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(x.Manifests))
	for _, d := range x.Manifests {
		e := Entry{Name: name(d), Descriptor: d}
		// A name that another tool gave need not be a reference.
		if ref, err := image.Parse(e.Name); err == nil && ref.String() == e.Name {
			e.Reference = ref
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (s *Store) readIndex() (ispec.Index, error) {
	b, err := s.readFile(indexFile, image.MaxLayout)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ispec.Index{}, fmt.Errorf("read index: %w", err)
	}
	var x ispec.Index
	if err == nil {
		x, err = image.ParseLayout(b)
	}
	switch {
	case err == nil:
		return x, nil
	case s.foreign:
		return ispec.Index{}, fmt.Errorf("read %s: %w", indexFile, err)
	default:
		return ispec.Index{}, fmt.Errorf("read %s: %w: %w", indexFile, ErrIndex, err)
	}
}

// changeIndex replaces index.json by what change makes of it, if it says so.
func (s *Store) changeIndex(change func(*ispec.Index) bool) error {
	lock, err := s.lockIndex()
	if err != nil {
		return err
	}
	defer lock.Close()
	x, err := s.readIndex()
	if err != nil {
		return err
	}
	if !change(&x) {
		return nil
	}
	return s.writeIndex(x)
}

// writeIndex replaces index.json. The caller holds its lock, so one name for
// the new file is enough, and it can be kept with room reserved: a full disk
// has no room for a temporary file, yet removing an image must work there.
func (s *Store) writeIndex(x ispec.Index) error {
	if !s.foreign {
		slices.SortStableFunc(x.Manifests, byName)
	}
	b, err := encodeIndex(x)
	if err != nil {
		return err
	}
	if err := s.writeNext(b); err != nil {
		return fmt.Errorf("write %s: %w", nextFile, err)
	}
	if err := s.root.Rename(nextFile, indexFile); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(s.root, "."); err != nil {
		return err
	}
	if !s.foreign {
		s.reserveNext(int64(len(b)) + nextSlack)
	}
	return nil
}

func (s *Store) writeNext(b []byte) (err error) {
	f, err := s.root.OpenFile(nextFile, os.O_WRONLY|os.O_CREATE, s.fileMode())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(b))); err != nil {
		return err
	}
	return f.Sync()
}

// reserveNext keeps room for the next index.json. It is best effort: without
// it only the removal of an image from a full disk is lost.
func (s *Store) reserveNext(size int64) {
	f, err := s.root.OpenFile(nextFile, os.O_WRONLY|os.O_CREATE, s.fileMode())
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.Fallocate(int(f.Fd()), 0, 0, size)
}

func encodeIndex(x ispec.Index) ([]byte, error) {
	b := []byte(indexHead)
	for i, d := range x.Manifests {
		line, err := json.Marshal(d)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ",\n"...)
		}
		b = append(b, line...)
	}
	tail, err := encodeTail(x)
	if err != nil {
		return nil, err
	}
	b = append(b, tail...)
	if len(b) > image.MaxLayout {
		return nil, fmt.Errorf("%s would be longer than %d bytes; remove images first", indexFile, image.MaxLayout)
	}
	return b, nil
}

// encodeTail writes what another tool put into its layout beside the entries.
func encodeTail(x ispec.Index) ([]byte, error) {
	b := []byte("\n]")
	for _, m := range []struct {
		name  string
		value any
		empty bool
	}{
		{"artifactType", x.ArtifactType, x.ArtifactType == ""},
		{"subject", x.Subject, x.Subject == nil},
		{"annotations", x.Annotations, len(x.Annotations) == 0},
	} {
		if m.empty {
			continue
		}
		v, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b = append(b, fmt.Sprintf(",%q:%s", m.name, v)...)
	}
	return append(b, "}\n"...), nil
}

// matches tells whether an entry is what a reference with a digest means: the
// digest under any tag of its name.
func matches(ref image.Reference, d ispec.Descriptor) bool {
	if d.Digest != ref.Digest {
		return false
	}
	have, err := image.Parse(name(d))
	return err == nil && have.Name() == ref.Name()
}

func only(x ispec.Index) (ispec.Descriptor, error) {
	var found []ispec.Descriptor
	for _, d := range x.Manifests {
		if image.KindOf(d.MediaType) != image.KindUnknown && !attached(d) {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return ispec.Descriptor{}, fmt.Errorf("%d images in the layout; name one: %w", len(found), ErrNotFound)
	}
	return found[0], nil
}

func name(d ispec.Descriptor) string { return d.Annotations[ispec.AnnotationRefName] }

// entry is a descriptor as index.json keeps it: where to find the content, and
// under which name.
func entry(wanted string, d ispec.Descriptor) ispec.Descriptor {
	d.URLs, d.Data = nil, nil
	d.Annotations = maps.Clone(d.Annotations)
	delete(d.Annotations, ispec.AnnotationRefName)
	if wanted == "" {
		return d
	}
	if d.Annotations == nil {
		d.Annotations = make(map[string]string, 1)
	}
	d.Annotations[ispec.AnnotationRefName] = wanted
	return d
}
