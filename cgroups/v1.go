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

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/opencontainers/runtime-spec/specs-go"
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
	if raw := toV1(l); raw != nil {
		for _, s := range raw {
			err = errors.Join(err, writeFile(dir, s.file, s.value))
		}
	} else {
		err = b.updateV1(l)
	}
	if err != nil && l.name == "blkio-weight" {
		// Where BFQ schedules, that is where the weight is; the scales agree.
		err = writeFile(dir, "blkio.bfq.weight", fmt.Sprint(*l.res.BlockIO.Weight))
	}
	if err != nil {
		return refusedV1(l, dir, err)
	}
	return nil
}

func refusedV1(l limit, dir string, err error) error {
	e := &LimitError{Limit: l.name, Reason: "the kernel refused it", Err: err}
	if l.name == "memory-swap" && errors.Is(err, os.ErrNotExist) {
		e.Reason, e.Err = "this kernel does not count swap", nil
		e.Mend = "boot with swapaccount=1, or give no swap limit"
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

// updateV1 sets a limit through the library's controller of that name.
func (b *builder) updateV1(l limit) error {
	h := b.host.v1[l.controller]
	controllers := func() ([]cgroup1.Subsystem, error) {
		s, err := subsystem(h.mount, l.controller)
		return []cgroup1.Subsystem{s}, err
	}
	res := l.res
	if l.name == "memory-swap" {
		// The library would write the memory limit again.
		res.Memory = &specs.LinuxMemory{Swap: l.res.Memory.Swap}
	}
	own := filepath.Join(h.own, b.name)
	if b.path != "" {
		own = filepath.Join("/", b.path)
	}
	_, err := cgroup1.New(cgroup1.StaticPath(own), &res, cgroup1.WithHierarchy(controllers))
	return err
}

// subsystem returns the library's controller for a mount. The library joins
// a root and the controller's own name, so a joint mount (cpu,cpuacct) is
// reached through the links beside it that every init system makes.
func subsystem(mount, name string) (cgroup1.Subsystem, error) {
	root := filepath.Dir(mount)
	if !sameFile(filepath.Join(root, name), mount) {
		return nil, fmt.Errorf("%s is mounted at %s and has no name of its own beside it", name, mount)
	}
	switch name {
	case "memory":
		return cgroup1.NewMemory(root), nil
	case "pids":
		return cgroup1.NewPids(root), nil
	case "cpu":
		return cgroup1.NewCpu(root), nil
	case "cpuset":
		return cgroup1.NewCpuset(root), nil
	case "devices":
		return cgroup1.NewDevices(root), nil
	case "blkio":
		return cgroup1.NewBlkio(root), nil
	case "rdma":
		return cgroup1.NewRdma(root), nil
	case "hugetlb":
		return cgroup1.NewHugetlb(root)
	}
	return nil, fmt.Errorf("controller %s has no limits", name)
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
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
