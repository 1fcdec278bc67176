// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Pids returns the processes of a group and the groups below it, sorted, as
// numbers of the caller's PID namespace. A group that is gone has none.
func Pids(dirs []string) ([]int, error) {
	dir := standing(dirs).holder()
	if dir == "" {
		return nil, nil
	}
	groups, err := groupsBelow(dir)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, g := range groups {
		pids, err := readPids(filepath.Join(g, "cgroup.procs"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !isNoDevice(err) {
			return nil, err
		}
		out = append(out, pids...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Existing returns those of the recorded directories that were made after all.
func Existing(dirs []string) []string {
	return slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool {
		_, err := os.Lstat(dir)
		return err != nil
	})
}

// standing is Find of directories that are known to be groups.
func standing(dirs []string) Left {
	var left Left
	for _, dir := range Existing(dirs) {
		left = append(left, leftDir{dir, isUnified(dir)})
	}
	return left
}

// OOMKilled reports whether the kernel killed a process of the group for want
// of memory since the group was made. Ask before the group is removed.
func OOMKilled(dirs []string) bool {
	for _, dir := range dirs {
		for _, file := range []string{"memory.events", "memory.oom_control"} {
			if n, ok := key(dir, file, "oom_kill"); ok && n > 0 {
				return true
			}
		}
	}
	return false
}

// Figures are what a group has used and may use. A nil field is not counted
// here, or, of a limit, not limited.
type Figures struct {
	Memory, MemoryPeak, MemoryLimit *uint64 // bytes
	Swap                            *uint64 // bytes, without memory
	CPU                             *time.Duration
	Pids, PidsLimit                 *uint64
}

// Stats reads a group's figures, wherever its controllers are.
func Stats(dirs []string) Figures {
	var f Figures
	for _, dir := range dirs {
		f.readMemory(dir)
		first(&f.Pids, dir, "pids.current")
		first(&f.PidsLimit, dir, "pids.max")
		if usec, ok := key(dir, "cpu.stat", "usage_usec"); ok && f.CPU == nil {
			d := time.Duration(usec) * time.Microsecond
			f.CPU = &d
		}
		if nsec, ok := number(dir, "cpuacct.usage"); ok && f.CPU == nil {
			d := time.Duration(nsec)
			f.CPU = &d
		}
	}
	return f
}

func (f *Figures) readMemory(dir string) {
	first(&f.Memory, dir, "memory.current")
	first(&f.Memory, dir, "memory.usage_in_bytes")
	first(&f.MemoryPeak, dir, "memory.peak")
	first(&f.MemoryPeak, dir, "memory.max_usage_in_bytes")
	first(&f.MemoryLimit, dir, "memory.max")
	first(&f.Swap, dir, "memory.swap.current")
	// v1 says "no limit" as the largest multiple of a page.
	if n, ok := number(dir, "memory.limit_in_bytes"); ok && f.MemoryLimit == nil && n < 1<<62 {
		f.MemoryLimit = &n
	}
	if both, ok := number(dir, "memory.memsw.usage_in_bytes"); ok && f.Swap == nil && f.Memory != nil {
		n := uint64(0)
		if both > *f.Memory {
			n = both - *f.Memory
		}
		f.Swap = &n
	}
}

// first sets *v from a file that is there, if it is not set yet.
func first(v **uint64, dir, file string) {
	if *v != nil {
		return
	}
	if n, ok := number(dir, file); ok {
		*v = &n
	}
}
