// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gantryrun/gantry/internal/flock"
)

// CheckName says why a pod cannot be called that.
func CheckName(name string) error {
	if name == "" || len(name) > 128 {
		return fmt.Errorf("name %q: between 1 and 128 characters are allowed", name)
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return fmt.Errorf("name %q: use letters, digits, '_', '.' and '-', and begin with a letter or a digit", name)
		}
	}
	if ValidUUID(name) {
		return fmt.Errorf("name %q: it looks like a UUID", name)
	}
	return nil
}

// Taken is returned for a name somebody else has.
type Taken struct{ Name, UUID string }

func (e *Taken) Error() string {
	return fmt.Sprintf("the name %q is in use by pod %s", e.Name, Short(e.UUID))
}

// Is makes it an ErrNameTaken.
func (e *Taken) Is(target error) bool { return target == ErrNameTaken }

// Hint says how to get it.
func (e *Taken) Hint() string {
	return fmt.Sprintf("'gantry rm %s' frees the name (with --force while it runs), or use --replace", e.Name)
}

// Link is the path of a name's link. Its text is the pod's UUID.
func (s *Pods) Link(name string) string { return filepath.Join(s.names, name) }

// TakeName gives the name to an owned pod, or returns *Taken. The link is one
// system call that fails when it exists, so one of any number of takers gets
// it. The pod exists before its name does: a link to no pod is always stale.
func (p *Pod) TakeName(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	link := p.pods.Link(name)
	err := os.Symlink(p.UUID, link)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(p.pods.names, 0o700); err == nil {
			err = os.Symlink(p.UUID, link)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return p.pods.withNames(func() error { return p.takeStale(name) })
	}
	if err != nil {
		return fmt.Errorf("take name %q: %w", name, err)
	}
	return nil
}

// takeStale takes a name whose pod is gone, with the names locked. Somebody
// may still take it between the two calls, and then has it.
func (p *Pod) takeStale(name string) error {
	link := p.pods.Link(name)
	holder, err := os.Readlink(link)
	if err == nil {
		if p.pods.alive(holder) {
			return &Taken{name, holder}
		}
		err = os.Remove(link)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take name %q: %w", name, err)
	}
	err = os.Symlink(p.UUID, link)
	if errors.Is(err, fs.ErrExist) {
		holder, _ = os.Readlink(link)
		return &Taken{name, holder}
	}
	if err != nil {
		return fmt.Errorf("take name %q: %w", name, err)
	}
	return nil
}

// alive says whether a link's pod still has a claim to its name: garbage and
// what an aborted preparation left do not.
func (s *Pods) alive(uuid string) bool {
	if !ValidUUID(uuid) {
		return false
	}
	p, err := s.open(uuid)
	if err != nil {
		return !errors.Is(err, ErrNotFound)
	}
	defer p.Close()
	st, err := p.State()
	if err != nil {
		return !errors.Is(err, ErrNotFound)
	}
	return st != Aborted && p.phase != Garbage
}

// FreeName removes the name if it is still this pod's.
func (p *Pod) FreeName(name string) error {
	if CheckName(name) != nil {
		return nil
	}
	return p.pods.withNames(func() error {
		if holder, err := os.Readlink(p.pods.Link(name)); err != nil || holder != p.UUID {
			return nil
		}
		return p.pods.unlink(name)
	})
}

// SweepNames frees the names of pods that are gone and returns them.
func (s *Pods) SweepNames() ([]string, error) {
	var freed []string
	err := s.withNames(func() error {
		names, err := readNames(s.names)
		if err != nil {
			return err
		}
		for _, name := range names {
			holder, err := os.Readlink(s.Link(name))
			if err != nil || s.alive(holder) {
				continue
			}
			if err := s.unlink(name); err != nil {
				return err
			}
			freed = append(freed, name)
		}
		return nil
	})
	return freed, err
}

func (s *Pods) unlink(name string) error {
	if err := os.Remove(s.Link(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("free name %q: %w", name, err)
	}
	return nil
}

// withNames runs f while nobody else removes a link. Takers of a free name do
// not need the lock; it is held for a few system calls only.
func (s *Pods) withNames(f func() error) error {
	d, err := openDir(s.names)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open names: %w", err)
	}
	defer d.Close()
	if err := flock.Exclusive(d); err != nil {
		return fmt.Errorf("lock names: %w", err)
	}
	return f()
}

// findName opens the pod of that name: of this boot by its link, else the
// newest whose manifest carries it, since links do not outlive a reboot and
// exited pods do.
func (s *Pods) findName(name string) (*Pod, error) {
	if CheckName(name) != nil {
		return nil, &notFound{name}
	}
	if uuid, err := os.Readlink(s.Link(name)); err == nil && ValidUUID(uuid) {
		if p, err := s.open(uuid); err == nil || !errors.Is(err, ErrNotFound) {
			return p, err
		}
	}
	var newest Manifest
	err := s.List(func(p *Pod) error {
		m, err := p.Manifest()
		if err == nil && m.Name == name && m.Created.After(newest.Created) {
			newest = m
		}
		return nil
	}, Prepared, Run, Exited)
	if err != nil {
		return nil, err
	}
	if newest.UUID == "" {
		return nil, &notFound{name}
	}
	return s.open(newest.UUID)
}

// Active says whether a pod may still need what it has of the host: it is being
// prepared, or waits, or runs.
func (s *Pods) Active(uuid string) bool {
	if !ValidUUID(uuid) {
		return false
	}
	p, err := s.open(uuid)
	if err != nil {
		return !errors.Is(err, ErrNotFound)
	}
	defer p.Close()
	st, err := p.State()
	if err != nil {
		return !errors.Is(err, ErrNotFound)
	}
	return st != Aborted && st != Ended && p.phase != Garbage && p.phase != Exited
}
