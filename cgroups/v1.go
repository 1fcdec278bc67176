// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

var errReadOnly error = unix.EROFS

// applyV1 makes the group in the limit's v1 controller if it is not there yet
// and sets the limit.
func (b *builder) applyV1(l limit) error {
	dir, err := b.makeV1(l.controller)
	if err != nil {
		reason, mend := reasonOf(err, b.host.v1[l.controller].dir())
		return &LimitError{Limit: l.name, Reason: reason, Mend: mend}
	}
	settings, err := toV1(l)
	if err != nil {
		return &LimitError{Limit: l.name, Reason: err.Error()}
	}
	if err := writeSettings(dir, settings); err != nil {
		return refusedV1(l, dir, err)
	}
	return nil
}

func refusedV1(l limit, dir string, err error) error {
	if e := notThere(l, err); e != nil {
		return e
	}
	e := &LimitError{Limit: l.name, Reason: "the kernel refused it", Err: err}
	if l.name == "memory-swap" && errors.Is(err, os.ErrNotExist) {
		e.Reason, e.Err = "this kernel does not count swap", nil
		e.Mend = "boot with swapaccount=1, or give no swap limit"
	}
	if l.name == "hugetlb" && errors.Is(err, os.ErrNotExist) {
		e.Reason, e.Mend = noPageSize(dir, ".limit_in_bytes", l)
		e.Err = nil
	}
	if errors.Is(err, errReadOnly) {
		e.Reason, e.Mend = reasonOf(err, dir)
		e.Err = nil
	}
	return e
}

// makeV1 returns our directory in a v1 controller.
func (b *builder) makeV1(controller string) (string, error) {
	h := b.host.v1[controller]
	if controller == tracker {
		h = *b.host.tracked
	}
	base, name := h.dir(), b.name
	if b.path != "" {
		base, name = filepath.Join(h.mount, filepath.Dir(filepath.Clean("/"+b.path))), filepath.Base(b.path)
	}
	dir := filepath.Join(base, name)
	for _, have := range b.group.v1 {
		if have == dir { // also where two controllers are mounted together
			return dir, nil
		}
	}
	if err := b.mkdir(base, name); err != nil {
		return "", err
	}
	b.group.v1 = append(b.group.v1, dir)
	if controller == "cpuset" {
		return dir, inheritCpuset(h.mount, dir)
	}
	return dir, nil
}

// inheritCpuset fills a new cpuset and those it was made below: until both
// lists are set, nothing can be put into it.
func inheritCpuset(mount, dir string) error {
	parent := filepath.Dir(dir)
	if dir == mount {
		return nil
	}
	if b, err := os.ReadFile(filepath.Join(dir, "cpuset.cpus")); err == nil && len(bytes.TrimSpace(b)) > 0 {
		return nil
	}
	if err := inheritCpuset(mount, parent); err != nil {
		return err
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return err
		}
		if err := writeFile(dir, name, string(value)); err != nil {
			return err
		}
	}
	return nil
}

// account joins the controllers that only count, and on hosts without a
// unified hierarchy the freezer, which is what makes killing a group safe
// there. A missing one is no loss worth a word. Who names the path reads and
// freezes by it: that group is in all hierarchies.
func (b *builder) account() error {
	names := accounted[:]
	switch {
	case b.path != "":
		names = slices.Sorted(maps.Keys(b.host.v1))
		if b.host.tracked != nil {
			names = append(names, tracker)
		}
	case b.group.v2 == "":
		names = append(names[:len(names):len(names)], "freezer")
	}
	for _, name := range names {
		if _, ok := b.host.v1[name]; !ok && name != tracker {
			continue
		}
		if _, err := b.makeV1(name); errors.Is(err, os.ErrExist) {
			return fmt.Errorf("create cgroup: %w", err)
		}
	}
	return nil
}
