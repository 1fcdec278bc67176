// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/userns"
)

// Where subordinate ids are given away.
const (
	subUIDFile = "/etc/subuid"
	subGIDFile = "/etc/subgid"
)

// defaultIDs is the pool of --userns=auto on a host that names none: above
// the users of fetch workers, below the range of systemd for foreign images,
// and outside of what distributions and directory services give away.
var defaultIDs = userns.Range{Start: 0x7d400000, Size: 0x7ffe0000 - 0x7d400000}

// users settles which ids of the host a pod gets. A range of --userns=auto is
// leased by a link that is called as the range and names the pod: the range is
// its own until it has ended. Without a pod nothing is leased.
func (e Env) users(o bundle.Options, uuid string, u *undo.Stack) (users bundle.Users, lease string, err error) {
	n, err := bundle.ParseUserns(o)
	switch {
	case err != nil || n.Host():
		return bundle.Users{}, "", err
	case n.SubUID != "":
		users, err = subordinate(n)
		return users, "", err
	case !n.Auto:
		return n.Users, "", nil
	}
	pool, whose, err := idPool()
	if err != nil {
		return bundle.Users{}, "", err
	}
	var r userns.Range
	err = e.withIDs(func(taken []userns.Range) error {
		var ok bool
		if r, ok = userns.First(userns.Without(pool, taken), n.Size); !ok {
			// Only now is it asked which of them are stale.
			if r, ok = userns.First(userns.Without(pool, e.sweepIDs()), n.Size); !ok {
				return noIDs(n.Size, len(taken), whose)
			}
		}
		if uuid == "" {
			return nil
		}
		u.Push(func() { e.freeIDs(uuid) })
		return os.Symlink(uuid, e.idLink(idName(r)))
	})
	if err != nil {
		return bundle.Users{}, "", fmt.Errorf("--userns=auto: %w", err)
	}
	return n.Filled(r.Start), idName(r), nil
}

// keepIDs makes sure that a pod still has the range it was prepared with. The
// link does not outlive a reboot, the pod does.
func (e Env) keepIDs(p *pod.Pod, lease string) error {
	r, ok := parseIDName(lease)
	if !ok {
		return nil
	}
	return e.withIDs(func([]userns.Range) error {
		if holder, err := os.Readlink(e.idLink(lease)); err == nil && holder == p.UUID {
			return nil
		}
		if n := userns.Both(e.sweepIDs(), []userns.Range{r}); n != nil {
			return hint.With(
				fmt.Errorf("pod %s: its ids from %d on are another pod's by now", pod.Short(p.UUID), r.Start),
				"remove it and prepare it again",
			)
		}
		return os.Symlink(p.UUID, e.idLink(lease))
	})
}

// freeIDs gives back what a pod has.
func (e Env) freeIDs(uuid string) {
	entries, err := os.ReadDir(e.idLink(""))
	if err != nil {
		return
	}
	for _, entry := range entries {
		if holder, err := os.Readlink(e.idLink(entry.Name())); err == nil && holder == uuid {
			_ = os.Remove(e.idLink(entry.Name()))
		}
	}
}

func (e Env) idLink(name string) string { return filepath.Join(e.RunDir, "userns", name) }

func idName(r userns.Range) string { return fmt.Sprintf("%d-%d", r.Start, r.Size) }

func parseIDName(name string) (userns.Range, bool) {
	start, size, ok := strings.Cut(name, "-")
	a, err1 := strconv.ParseUint(start, 10, 32)
	b, err2 := strconv.ParseUint(size, 10, 32)
	return userns.Range{Start: uint32(a), Size: uint32(b)}, ok && err1 == nil && err2 == nil
}

// withIDs runs f, told which ranges have a lease, while nobody else takes one.
func (e Env) withIDs(f func(taken []userns.Range) error) error {
	if err := os.MkdirAll(e.idLink(""), 0o700); err != nil {
		return err
	}
	d, err := flock.OpenDir(e.idLink(""))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := flock.Exclusive(d); err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	var taken []userns.Range
	for _, name := range names {
		if r, ok := parseIDName(name); ok {
			taken = append(taken, r)
		}
	}
	return f(taken)
}

// sweepIDs frees the ranges of pods that have ended and returns the others.
func (e Env) sweepIDs() []userns.Range {
	entries, err := os.ReadDir(e.idLink(""))
	if err != nil {
		return nil
	}
	var left []userns.Range
	for _, entry := range entries {
		r, ok := parseIDName(entry.Name())
		if !ok {
			continue
		}
		holder, err := os.Readlink(e.idLink(entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // its supervisor was faster
		}
		if err == nil && e.over(holder) {
			_ = os.Remove(e.idLink(entry.Name()))
			continue
		}
		left = append(left, r)
	}
	return left
}

// over says whether nothing of a pod can be running any more. What is left of
// one whose supervisor was killed is killed first: it would run on as the user
// of the next pod.
func (e Env) over(uuid string) bool {
	if e.pods().Active(uuid) {
		return false
	}
	if !pod.ValidUUID(uuid) {
		return true // nobody's
	}
	p, err := e.pods().Find(uuid)
	if err != nil {
		return errors.Is(err, pod.ErrNotFound)
	}
	defer p.Close()
	if p.Phase() != pod.Run {
		return true
	}
	_, err = e.sweepOne(p)
	return err == nil && p.Phase() != pod.Run
}

func noIDs(size uint32, taken int, whose string) error {
	return hint.With(
		fmt.Errorf("no range of %d ids is left: %d pods have one of %s", size, taken, whose),
		"stop some of them, ask for fewer ids with --userns=auto:size=N, or give more to the user gantry in "+subUIDFile+" and "+subGIDFile,
	)
}

// idPool is where ranges come from, sorted, and whose they are: those that
// both files give to gantry, else to containers, as podman has it, else what
// nobody has of the default.
func idPool() ([]userns.Range, string, error) {
	uids, err := subIDs(subUIDFile)
	if err != nil {
		return nil, "", err
	}
	gids, err := subIDs(subGIDFile)
	if err != nil {
		return nil, "", err
	}
	for _, owner := range []string{"gantry", "containers"} {
		u, g := userns.Owned(uids, owner), userns.Owned(gids, owner)
		if len(u)+len(g) == 0 {
			continue
		}
		both := userns.Both(u, g)
		if len(both) == 0 {
			return nil, "", hint.With(
				fmt.Errorf("%s and %s have no id in common for %s", subUIDFile, subGIDFile, owner),
				"give it the same range in both: a pod's users and groups have the same numbers",
			)
		}
		return both, "the user " + owner, nil
	}
	taken := append(userns.All(uids), userns.All(gids)...)
	return userns.Without([]userns.Range{defaultIDs}, taken), "the default pool", nil
}

func subIDs(name string) ([]userns.Entry, error) {
	b, err := readHostFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return userns.ParseSubIDs(b), err
}

// subordinate maps all that somebody has, one range after the other.
func subordinate(n bundle.Userns) (bundle.Users, error) {
	var u bundle.Users
	for _, f := range []struct {
		flag, file, owner string
		to                *[]specs.LinuxIDMapping
	}{{"--subuidname", subUIDFile, n.SubUID, &u.UIDs}, {"--subgidname", subGIDFile, n.SubGID, &u.GIDs}} {
		entries, err := subIDs(f.file)
		if err != nil {
			return u, fmt.Errorf("%s: %w", f.flag, err)
		}
		at := uint32(0)
		for _, r := range userns.Owned(entries, f.owner) {
			*f.to = append(*f.to, specs.LinuxIDMapping{ContainerID: at, HostID: r.Start, Size: r.Size})
			at += r.Size
		}
		if at == 0 {
			return u, fmt.Errorf("%s: %s has nothing for %q", f.flag, f.file, f.owner)
		}
	}
	return u, nil
}

// ownUsers tells whether a bundle has a user namespace.
func ownUsers(s *specs.Spec) bool { return len(s.Linux.UIDMappings) > 0 }
