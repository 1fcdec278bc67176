// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Update changes the limits of a group that is in use, given its directories.
// What r leaves out, and numbers that are zero, stay as they are; -1 lifts a
// limit. Device rules are not changed. What cannot be had is a *LimitError;
// what was set before it stays set.
func Update(dirs []string, r *specs.LinuxResources) error {
	h, err := thisHost()
	if err != nil {
		return err
	}
	if _, err := Find(dirs); err != nil {
		return err
	}
	memory, cpu, rest := split(r)
	limits, err := limitsOf(rest)
	if err != nil {
		return err
	}
	u := newUpdater(h, dirs)
	// The kernel refuses what would contradict a limit that is about to go.
	if err := errors.Join(u.memory(memory), u.cpu(cpu), u.pids(r.Pids), u.cpuIdle(r.CPU)); err != nil {
		return err
	}
	for _, l := range limits {
		if err := u.have(l.name, l.controller); err != nil {
			return err
		}
		if err := u.b.applyOne(l); err != nil {
			return err
		}
	}
	return nil
}

// split takes out what a running group wants otherwise than a fresh one: there
// -1 says something, and the order of two limits depends on those in force.
func split(r *specs.LinuxResources) (*specs.LinuxMemory, *specs.LinuxCPU, *specs.LinuxResources) {
	rest := *r
	memory, cpu := &specs.LinuxMemory{}, &specs.LinuxCPU{}
	rest.Pids, rest.Devices = nil, nil
	if r.Memory != nil {
		*memory = *r.Memory
		rest.Memory = &specs.LinuxMemory{
			Swappiness: r.Memory.Swappiness, DisableOOMKiller: r.Memory.DisableOOMKiller, KernelTCP: r.Memory.KernelTCP,
		}
	}
	if r.CPU != nil {
		*cpu = *r.CPU
		other := *r.CPU
		other.Quota, other.Period, other.Idle = nil, nil, nil
		if other.RealtimePeriod != nil && *other.RealtimePeriod == 0 {
			other.RealtimePeriod = nil
		}
		if !given(other.RealtimeRuntime) {
			other.RealtimeRuntime = nil
		}
		rest.CPU = &other
	}
	return memory, cpu, &rest
}

// updater is a builder that finds everything built.
type updater struct {
	b    *builder
	h    *host
	v1   map[string]string // directory by controller
	miss map[string]bool   // v1 controllers the group is not in
}

// newUpdater makes a host for the builder whose own group is the parent of the
// one to change.
func newUpdater(h *host, dirs []string) *updater {
	here := &host{v1: map[string]hierarchy{}, v2: h.v2, controllers: h.controllers}
	u := &updater{h: h, v1: map[string]string{}, miss: map[string]bool{}, b: &builder{host: here, group: &Group{host: here}}}
	for _, dir := range dirs {
		u.b.name = filepath.Base(dir)
		if isUnified(dir) {
			u.b.group.v2 = dir
			continue
		}
		u.b.group.v1 = append(u.b.group.v1, dir)
		for name, v1 := range h.v1 {
			if rel, err := filepath.Rel(v1.mount, dir); err == nil && filepath.IsLocal(rel) {
				here.v1[name] = hierarchy{v1.mount, filepath.Join("/", filepath.Dir(rel)), v1.ro}
				u.v1[name] = dir
			}
		}
	}
	for name := range h.v1 {
		u.miss[name] = u.v1[name] == ""
	}
	return u
}

// have makes sure that the group has a controller, and turns it on on the way
// to a group of the unified hierarchy that was made without.
func (u *updater) have(limit, controller string) error {
	if u.v1[controller] != "" || controller == "" {
		return nil
	}
	if u.miss[controller] {
		return &LimitError{
			Limit: limit, Reason: fmt.Sprintf("the container is not in the hierarchy of the %s controller", controller),
			Mend: "create it with this limit, or with linux.cgroupsPath, which puts it into all hierarchies",
		}
	}
	g := u.b.group.v2
	if g == "" || u.h.v2 == nil {
		return &LimitError{Limit: limit, Reason: fmt.Sprintf("the container has no group with the %s controller", controller)}
	}
	name := controllerV2(controller)
	have, err := readWords(filepath.Join(g, "cgroup.controllers"))
	if err == nil && !slices.Contains(have, name) {
		rel, rerr := filepath.Rel(u.h.v2.mount, filepath.Dir(g))
		if rerr != nil || !filepath.IsLocal(rel) {
			return fmt.Errorf("%s is not below %s", g, u.h.v2.mount)
		}
		if top, _ := readWords(filepath.Join(u.h.v2.mount, "cgroup.controllers")); slices.Contains(top, name) {
			if err := enable(u.h.v2.mount, "/", filepath.Join("/", rel), []string{name}); err != nil {
				reason, mend := reasonOf(err, g)
				return &LimitError{Limit: limit, Reason: reason, Mend: mend}
			}
		}
		have, err = readWords(filepath.Join(g, "cgroup.controllers"))
	}
	u.b.enabled = have
	if err == nil && !slices.Contains(have, name) {
		return u.b.absent(restOf(limit, controller))
	}
	return err
}

func restOf(name, controller string) limit { return limit{name: name, controller: controller} }

// set writes one limit; whatever fails is about it.
func (u *updater) set(limit, dir, file, value string) error {
	if err := writeFile(dir, file, value); err != nil {
		if _, v1 := u.v1["memory"]; v1 && file == "memory.memsw.limit_in_bytes" {
			return refusedV1(restOf(limit, "memory"), dir, err)
		}
		return &LimitError{Limit: limit, Reason: "the kernel refused it", Err: err}
	}
	return nil
}

// word says a number for cgroup v2, where none is "max".
func word(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func given(n *int64) bool { return n != nil && *n != 0 }

func (u *updater) memory(m *specs.LinuxMemory) error {
	if !given(m.Limit) && !given(m.Reservation) && !given(m.Swap) {
		return nil
	}
	if err := u.have("memory", "memory"); err != nil {
		return err
	}
	if given(m.Limit) && given(m.Swap) && *m.Swap > 0 && (*m.Limit < 0 || *m.Swap < *m.Limit) {
		return &LimitError{Limit: "memory-swap", Reason: "it is less than the memory limit it includes", Mend: "raise --memory-swap to --memory or more; equal means no swap"}
	}
	if err := u.fits(m); err != nil {
		return err
	}
	if dir := u.v1["memory"]; dir != "" {
		return u.memoryV1(dir, m)
	}
	return u.memoryV2(u.b.group.v2, m)
}

// fits refuses a limit below what is used, if that is asked for: version 2 of
// cgroups would take it and kill (config-linux.md, checkBeforeUpdate).
func (u *updater) fits(m *specs.LinuxMemory) error {
	if m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate {
		return nil
	}
	f := Stats([]string{u.dir("memory")})
	refuse := func(name string, limit int64, used *uint64) error {
		if limit <= 0 || used == nil || uint64(limit) >= *used {
			return nil
		}
		return &LimitError{Limit: name, Reason: fmt.Sprintf("%d is less than the %d bytes in use", limit, *used), Mend: "leave out checkBeforeUpdate to have the kernel reclaim, or kill"}
	}
	if given(m.Limit) {
		if err := refuse("memory", *m.Limit, f.Memory); err != nil {
			return err
		}
	}
	if given(m.Swap) && f.Memory != nil && f.Swap != nil {
		both := *f.Memory + *f.Swap
		return refuse("memory-swap", *m.Swap, &both)
	}
	return nil
}

// memoryV1: the limit of both may at no time be below that of memory.
func (u *updater) memoryV1(dir string, m *specs.LinuxMemory) error {
	const memory, both = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	limit, swap := m.Limit, m.Swap
	if given(limit) && *limit < 0 && !given(swap) {
		if _, ok := number(dir, both); ok {
			swap = limit
		}
	}
	change := func(name, file string, n *int64) error {
		if !given(n) {
			return nil
		}
		return u.set(name, dir, file, strconv.FormatInt(*n, 10))
	}
	first := func() error { return change("memory", memory, limit) }
	then := func() error { return change("memory-swap", both, swap) }
	if now, ok := number(dir, both); ok && given(swap) && (*swap < 0 || uint64(*swap) > now) {
		first, then = then, first
	}
	if err := first(); err != nil {
		return err
	}
	if err := then(); err != nil {
		return err
	}
	return change("memory-reservation", "memory.soft_limit_in_bytes", m.Reservation)
}

func (u *updater) memoryV2(dir string, m *specs.LinuxMemory) error {
	swap := m.Swap
	if given(m.Limit) && *m.Limit < 0 && !given(swap) {
		swap = m.Limit
	}
	if given(swap) {
		only, err := swapAlone(dir, m.Limit, *swap)
		if err != nil {
			return err
		}
		err = u.set("memory-swap", dir, "memory.swap.max", word(only))
		if err != nil && (*swap > 0 || !errors.Is(err, os.ErrNotExist)) { // no swap to limit is unlimited too
			return err
		}
	}
	if given(m.Limit) {
		if err := u.set("memory", dir, "memory.max", word(*m.Limit)); err != nil {
			return err
		}
	}
	if given(m.Reservation) {
		return u.set("memory-reservation", dir, "memory.low", word(*m.Reservation))
	}
	return nil
}

// swapAlone takes memory out of a limit of both, the limit given or in force:
// they are counted together in the specification and apart here.
func swapAlone(dir string, memory *int64, both int64) (int64, error) {
	if both < 0 {
		return both, nil
	}
	now, ok := number(dir, "memory.max")
	if given(memory) {
		now, ok = uint64(*memory), true
	}
	if !ok {
		return 0, &LimitError{Limit: "memory-swap", Reason: "it counts memory and swap together and needs a memory limit below it", Mend: "give --memory as well"}
	}
	if uint64(both) < now {
		return 0, &LimitError{Limit: "memory-swap", Reason: fmt.Sprintf("it is less than the memory limit %d it includes", now), Mend: "lower --memory as well"}
	}
	return both - int64(now), nil
}

func (u *updater) cpu(c *specs.LinuxCPU) error {
	period := c.Period != nil && *c.Period != 0
	if !given(c.Quota) && !period {
		return nil
	}
	if err := u.have("cpu", "cpu"); err != nil {
		return err
	}
	if dir := u.v1["cpu"]; dir != "" {
		return u.cpuV1(dir, c, period)
	}
	dir := u.b.group.v2
	now, err := readWords(filepath.Join(dir, "cpu.max"))
	if err != nil || len(now) != 2 {
		return &LimitError{Limit: "cpu", Reason: "cpu.max cannot be read", Err: err}
	}
	if given(c.Quota) {
		now[0] = word(*c.Quota)
	}
	if period {
		now[1] = strconv.FormatUint(*c.Period, 10)
	}
	return u.set("cpu", dir, "cpu.max", strings.Join(now, " "))
}

// cpuV1: a quota may be too small for the new period, or too large for a group
// above with the old one. The one that goes comes first.
func (u *updater) cpuV1(dir string, c *specs.LinuxCPU, period bool) error {
	setPeriod := func() error {
		if !period {
			return nil
		}
		return u.set("cpu", dir, "cpu.cfs_period_us", strconv.FormatUint(*c.Period, 10))
	}
	early := setPeriod()
	if given(c.Quota) {
		if err := u.set("cpu", dir, "cpu.cfs_quota_us", strconv.FormatInt(max(*c.Quota, -1), 10)); err != nil {
			return err
		}
	}
	if early != nil {
		return setPeriod()
	}
	return nil
}

// cpuIdle: zero says something here.
func (u *updater) cpuIdle(c *specs.LinuxCPU) error {
	if c == nil || c.Idle == nil {
		return nil
	}
	if err := u.have("cpu-idle", "cpu"); err != nil {
		return err
	}
	return u.set("cpu-idle", u.dir("cpu"), "cpu.idle", strconv.FormatInt(*c.Idle, 10))
}

func (u *updater) pids(p *specs.LinuxPids) error {
	if p == nil || !given(p.Limit) {
		return nil
	}
	if err := u.have("pids", "pids"); err != nil {
		return err
	}
	return u.set("pids", u.dir("pids"), "pids.max", word(*p.Limit))
}

// dir is the group's directory in the hierarchy of a controller.
func (u *updater) dir(controller string) string {
	if dir := u.v1[controller]; dir != "" {
		return dir
	}
	return u.b.group.v2
}
