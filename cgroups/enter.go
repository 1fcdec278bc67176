// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Enter moves the calling thread into the given directories of v1
// hierarchies (directories of the unified hierarchy are passed over: they are
// for CLONE_INTO_CGROUP). The thread must be locked. What it clones is born
// there. back undoes it.
//
// A thread that moves itself, by writing 0 to tasks, is the one attach that
// does not take cgroup_threadgroup_rwsem: docs/adr/0011-cgroup-v1-entry.md has the figures. It
// also leaves no moment in which the app runs outside its group.
func Enter(dirs []string) (back func() error, err error) {
	h, err := thisHost()
	if err != nil {
		return nil, err
	}
	return enter(h, dirs)
}

func enter(h *host, dirs []string) (back func() error, err error) {
	var undo []string
	back = func() error {
		var errs []error
		for i := len(undo) - 1; i >= 0; i-- {
			errs = append(errs, writeFile(undo[i], "tasks", "0"))
		}
		undo = nil
		return errors.Join(errs...)
	}
	for _, dir := range dirs {
		own, ok := h.ownV1(dir)
		if !ok {
			continue
		}
		if err := writeFile(dir, "tasks", "0"); err != nil {
			return nil, errors.Join(fmt.Errorf("enter cgroup: %w", err), back())
		}
		undo = append(undo, own)
	}
	return back, nil
}

// ownV1 returns our own group in the v1 hierarchy dir is in.
func (h *host) ownV1(dir string) (string, bool) {
	mounts := slices.Collect(maps.Values(h.v1))
	if h.tracked != nil {
		mounts = append(mounts, *h.tracked)
	}
	for _, v1 := range mounts {
		rel, err := filepath.Rel(v1.mount, dir)
		if err == nil && filepath.IsLocal(rel) {
			return v1.dir(), true
		}
	}
	return "", false
}

// isUnified reports whether a group's directory is in the unified hierarchy:
// only there is this file in every group below the top.
func isUnified(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.events"))
	return err == nil
}
