// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// supervisorLeaf is where we and whatever shares our group move to when the
// group itself has to become an inner node: cgroup v2 allows processes only
// in leaves once controllers are enabled.
const supervisorLeaf = "supervisor"

// sharedTop is the group at the top of the hierarchy for apps started from a
// group that cannot be divided.
const sharedTop = "gantry"

// placement says where in the unified hierarchy an app's group goes.
type placement struct {
	base   string // below the mount
	leaf   string // where the processes of our own group go first, or ""
	enable bool   // controllers may be enabled on the way to base
	reason string // why not, for people
	mend   string
}

// place decides. docs/adr/0010-cgroup-placement.md tells why.
func place(h *host) placement {
	own := h.v2.own
	switch {
	case h.top:
		return placement{base: "/" + sharedTop, enable: true}
	case h.delegated:
		return placement{base: own, leaf: filepath.Join(own, supervisorLeaf), enable: true}
	case h.parentToo:
		return placement{base: filepath.Dir(own), enable: true}
	case own == "/":
		// The top of a cgroup namespace that is not the real one: the
		// container we run in was given this subtree.
		return placement{base: own, leaf: "/" + supervisorLeaf, enable: true}
	case !h.systemd || loginScope(own):
		return placement{base: "/" + sharedTop, enable: true}
	}
	unit := filepath.Base(own)
	return placement{
		base:   own,
		reason: fmt.Sprintf("the unit %s shares its control group with us and did not delegate it", unit),
		mend:   fmt.Sprintf("set Delegate=yes in %s, or start this command with: systemd-run --scope -p Delegate=yes", unit),
	}
}

// loginScope reports whether a group is that of a login session: shared with
// the user's shell, without limits of its own.
func loginScope(own string) bool {
	unit := filepath.Base(own)
	return strings.HasPrefix(unit, "session-") && strings.HasSuffix(unit, ".scope")
}

// delegated reads the mark systemd sets on the groups of units with
// Delegate=yes (trusted.delegate since 236, user.delegate since 251).
func delegated(dir string) bool {
	var buf [8]byte
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		if n, err := unix.Getxattr(dir, name, buf[:]); err == nil && string(buf[:n]) == "1" {
			return true
		}
	}
	return false
}

// vacate moves every process of dir into leaf. Processes fork while we move
// them, so it goes on until none is left; the bound is against a fork bomb.
func vacate(dir, leaf string) error {
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for range 100 {
		pids, err := readPids(filepath.Join(dir, "cgroup.procs"))
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			err := writeFile(leaf, "cgroup.procs", fmt.Sprint(pid))
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return fmt.Errorf("move processes out of %s: new ones keep coming", dir)
}

// enable turns controllers on for the children of every group from top down
// to base, both below mount. A controller that is on already costs nothing.
func enable(mount, top, base string, controllers []string) error {
	if len(controllers) == 0 {
		return nil
	}
	for dir := range downwards(top, base) {
		path := filepath.Join(mount, dir)
		b, err := os.ReadFile(filepath.Join(path, "cgroup.subtree_control"))
		if err != nil {
			return err
		}
		on := strings.Fields(string(b))
		var add []string
		for _, c := range controllers {
			if !slices.Contains(on, c) {
				add = append(add, "+"+c)
			}
		}
		if len(add) == 0 {
			continue
		}
		if err := writeFile(path, "cgroup.subtree_control", strings.Join(add, " ")); err != nil {
			return err
		}
	}
	return nil
}

// downwards yields top and every directory from there down to base.
func downwards(top, base string) func(func(string) bool) {
	return func(yield func(string) bool) {
		if !yield(top) || base == top {
			return
		}
		rest := strings.TrimPrefix(strings.TrimPrefix(base, top), "/")
		for part := range strings.SplitSeq(rest, "/") {
			top = filepath.Join(top, part)
			if !yield(top) {
				return
			}
		}
	}
}
