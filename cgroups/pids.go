// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// launchTasks is how many tasks a launch may need in the group before the app
// runs: gantry-init is a program of several threads.
const launchTasks = 16

// loosen gives a group whose limit of tasks is below what a launch needs that
// much until Settle.
func (g *Group) loosen(r *specs.LinuxResources) error {
	if g.pids = tightPids(r); g.pids == 0 {
		return nil
	}
	return limitPids(g.Dirs(), launchTasks)
}

// Settle sets limits that a launch had to be spared, once the app runs: a moment
// after its execve, for which there is one task, so what it can do before is to
// have launchTasks.
func (g *Group) Settle() error {
	if g.pids == 0 {
		return nil
	}
	limit := g.pids
	g.pids = 0
	return limitPids(g.Dirs(), limit)
}

// Settle is that of the group for a process that did not make it: dirs are the
// group's in all hierarchies, r what it was made with.
func Settle(dirs []string, r *specs.LinuxResources) error {
	limit := tightPids(r)
	if limit == 0 {
		return nil
	}
	return limitPids(dirs, limit)
}

// tightPids is a limit of tasks that a launch does not fit into, else 0.
func tightPids(r *specs.LinuxResources) int64 {
	if r == nil || r.Pids == nil || r.Pids.Limit == nil || *r.Pids.Limit <= 0 || *r.Pids.Limit >= launchTasks {
		return 0
	}
	return *r.Pids.Limit
}

// TightPids tells whether a limit of tasks is set by Settle only.
func TightPids(r *specs.LinuxResources) bool { return tightPids(r) != 0 }

// limitPids sets the limit where its controller is; where it is nowhere, that
// was told when the group was made.
func limitPids(dirs []string, limit int64) error {
	for _, dir := range dirs {
		err := writeFile(dir, "pids.max", strconv.FormatInt(limit, 10))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("limit tasks of cgroup %s: %w", dir, err)
		}
	}
	return nil
}

// FreeTasks is how many tasks more a group may have, or -1 if it has no limit.
func FreeTasks(dirs []string) int64 {
	for _, dir := range dirs {
		limit, limited := number(dir, "pids.max")
		used, counted := number(dir, "pids.current")
		if limited && counted {
			return max(int64(limit)-int64(used), 0)
		}
	}
	return -1
}
