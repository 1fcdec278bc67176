// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// freezePatience bounds the wait for a group to be frozen: a process in the
// middle of a system call that cannot be interrupted is stopped after it.
const freezePatience = 2 * time.Second

// Freeze stops all processes of a group, or lets them go on, and returns when
// the kernel says that it is so. The group is its directories in all
// hierarchies, of which one has a freezer.
func Freeze(dirs []string, on bool) error {
	for _, f := range freezers {
		for _, dir := range dirs {
			value := f.run
			if on {
				value = f.stop
			}
			err := writeFile(dir, f.file, value)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("freeze cgroup %s: %w", dir, err)
			}
			return settle(dirs, on)
		}
	}
	return errors.New("none of the container's cgroups can be frozen")
}

// settle waits until the group is what was asked. What cannot be frozen in
// time goes on: half a frozen group helps nobody.
func settle(dirs []string, on bool) error {
	for until := time.Now().Add(freezePatience); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // the freezer of v1 tells nobody
		if Frozen(dirs) == on {
			return nil
		}
		if time.Now().After(until) {
			return errors.Join(errors.New("the processes do not stop: one may hang in the kernel"), Freeze(dirs, false))
		}
	}
}

var freezers = []struct{ file, stop, run, state, frozen string }{
	{"cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"},
	{"freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN"},
}

// Frozen tells whether a group is frozen.
func Frozen(dirs []string) bool {
	for _, f := range freezers {
		for _, dir := range dirs {
			b, err := os.ReadFile(filepath.Join(dir, f.state))
			if err == nil && strings.Contains(string(b), f.frozen) {
				return true
			}
		}
	}
	return false
}
