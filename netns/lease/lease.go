// SPDX-License-Identifier: Apache-2.0

// Package lease gives the addresses of a network to pods. A lease is a link
// named by the address whose text is the pod's UUID: it is made by one system
// call that fails when it exists, so one of any number of takers gets it, and
// it counts while its pod does. There is no table and nobody who keeps one.
package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir has the leases of one network.
type Dir struct {
	Path string
	// Alive tells whether a pod still has what is its: it runs, or is about to.
	Alive func(uuid string) bool
}

// Range is where addresses are taken from.
type Range struct {
	First, Last netip.Addr
	Not         []netip.Addr // of them these are somebody else's: the gateway
}

// Full is returned when every address is taken.
type Full struct {
	Range Range
	Count int
}

func (f *Full) Error() string {
	return fmt.Sprintf("no address left between %s and %s: all %d are in use", f.Range.First, f.Range.Last, f.Count)
}

// Taken is returned for an address that a pod has.
type Taken struct {
	Address netip.Addr
	UUID    string
}

func (t *Taken) Error() string {
	return fmt.Sprintf("the address %s is in use by pod %.8s", t.Address, t.UUID)
}

// Link is the path of a lease.
func (d Dir) Link(a netip.Addr) string { return filepath.Join(d.Path, a.String()) }

// Next leases an address that was given last the longest ago: whoever still
// sends to a pod that ended does not reach its successor. It is the one after
// the last that was given; one whose pod is gone only when no other is left.
func (d Dir) Next(r Range, uuid string) (netip.Addr, error) {
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return netip.Addr{}, fmt.Errorf("make leases: %w", err)
	}
	start := d.after(r)
	unlock, err := d.lock(unix.LOCK_SH)
	if err != nil {
		return netip.Addr{}, err
	}
	a, count, err := d.scan(r, start, func(a netip.Addr) error { return os.Symlink(uuid, d.Link(a)) })
	unlock()
	if errors.Is(err, fs.ErrExist) {
		unlock, lerr := d.lock(unix.LOCK_EX)
		if lerr != nil {
			return netip.Addr{}, lerr
		}
		defer unlock()
		a, count, err = d.scan(r, start, func(a netip.Addr) error { return d.takeStale(a, uuid) })
	}
	var taken *Taken
	if errors.As(err, &taken) {
		return netip.Addr{}, &Full{r, count}
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("lease an address: %w", err)
	}
	d.remember(a)
	return a, nil
}

// This leases one address.
func (d Dir) This(a netip.Addr, uuid string) error {
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return fmt.Errorf("make leases: %w", err)
	}
	unlock, err := d.lock(unix.LOCK_SH)
	if err != nil {
		return err
	}
	err = os.Symlink(uuid, d.Link(a))
	unlock()
	if errors.Is(err, fs.ErrExist) {
		unlock, lerr := d.lock(unix.LOCK_EX)
		if lerr != nil {
			return lerr
		}
		defer unlock()
		err = d.takeStale(a, uuid)
	}
	return err
}

// scan tries every address of the range once, and returns the error of the
// last if none could be had, with how many there are.
func (d Dir) scan(r Range, start netip.Addr, take func(netip.Addr) error) (netip.Addr, int, error) {
	err, count := error(&Taken{}), 0
	for a := start; ; {
		if !r.excludes(a) {
			count++
			if err = take(a); err == nil {
				return a, count, nil
			}
			var taken *Taken
			if !errors.Is(err, fs.ErrExist) && !errors.As(err, &taken) {
				return a, count, err
			}
		}
		if a == r.Last {
			a = r.First
		} else {
			a = a.Next()
		}
		if a == start {
			return a, count, err
		}
	}
}

func (r Range) excludes(a netip.Addr) bool {
	for _, n := range r.Not {
		if a == n {
			return true
		}
	}
	return false
}

// takeStale takes the lease of a pod that is gone, with the directory locked.
func (d Dir) takeStale(a netip.Addr, uuid string) error {
	link := d.Link(a)
	holder, err := os.Readlink(link)
	if err == nil {
		if holder != uuid && d.Alive(holder) {
			return &Taken{a, holder}
		}
		err = os.Remove(link)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = os.Symlink(uuid, link)
	if errors.Is(err, fs.ErrExist) {
		holder, _ = os.Readlink(link)
		return &Taken{a, holder}
	}
	return err
}

// Free gives a lease back if it is the pod's.
func (d Dir) Free(a netip.Addr, uuid string) error {
	unlock, err := d.lock(unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	if holder, err := os.Readlink(d.Link(a)); err != nil || holder != uuid {
		return nil
	}
	return os.Remove(d.Link(a))
}

// Sweep gives back the leases of pods that are gone.
func (d Dir) Sweep() error {
	_, err := d.WhileFree(func() error { return nil })
	return err
}

// WhileFree gives back the leases of pods that are gone, and does something if
// there are no others. Meanwhile nobody leases an address: who has one before
// keeps it from being done, who comes after finds it done.
func (d Dir) WhileFree(do func() error) (bool, error) {
	unlock, err := d.lock(unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return true, do() // nobody ever had one
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return false, err
	}
	free := true
	for _, e := range entries {
		holder, err := os.Readlink(filepath.Join(d.Path, e.Name()))
		if err != nil || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if d.Alive(holder) {
			free = false
			continue
		}
		if err := os.Remove(filepath.Join(d.Path, e.Name())); err != nil {
			return false, err
		}
	}
	if !free {
		return false, nil
	}
	return true, do()
}

// Holders returns who has which address, the dead ones too.
func (d Dir) Holders() (map[netip.Addr]string, error) {
	entries, err := os.ReadDir(d.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := map[netip.Addr]string{}
	for _, e := range entries {
		a, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue
		}
		if holder, err := os.Readlink(filepath.Join(d.Path, e.Name())); err == nil {
			all[a] = holder
		}
	}
	return all, nil
}

// last is the link that says which address of a family was given last.
func last(a netip.Addr) string {
	if a.Is4() {
		return ".last4"
	}
	return ".last6"
}

// after is where to begin: behind the address that was given last.
func (d Dir) after(r Range) netip.Addr {
	text, err := os.Readlink(filepath.Join(d.Path, last(r.First)))
	if err != nil {
		return r.First
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Less(r.First) || !a.Less(r.Last) || a.BitLen() != r.First.BitLen() {
		return r.First
	}
	return a.Next()
}

// remember notes the address that was given last. Of two at one time either may
// stay; at worst the other is given again a little earlier.
func (d Dir) remember(a netip.Addr) {
	name := filepath.Join(d.Path, last(a))
	temp := fmt.Sprintf("%s.%d", name, os.Getpid())
	if os.Symlink(a.String(), temp) == nil && os.Rename(temp, name) != nil {
		_ = os.Remove(temp)
	}
}

// lock keeps others from removing leases, and, exclusive, from taking them.
func (d Dir) lock(how int) (func(), error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock leases: %w", err)
	}
	return func() { _ = f.Close() }, nil
}
