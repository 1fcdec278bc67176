// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// maxIDMaps is how many lines the kernel takes, user_namespaces(7).
const maxIDMaps = 340

// CheckNamespaces refuses lists that contradict themselves, and mappings and
// offsets without the namespace they are about.
func CheckNamespaces(l *specs.Linux) error {
	seen := map[specs.LinuxNamespaceType]int{}
	for i, ns := range l.Namespaces {
		if first, twice := seen[ns.Type]; twice {
			return fmt.Errorf("linux.namespaces[%d].type: %s is there already, in linux.namespaces[%d]", i, ns.Type, first)
		}
		seen[ns.Type] = i
		if ns.Path != "" && !strings.HasPrefix(ns.Path, "/") {
			return fmt.Errorf("linux.namespaces[%d].path: %q is not absolute", i, ns.Path)
		}
	}
	if err := checkUserns(l); err != nil {
		return err
	}
	return checkTime(l)
}

func checkUserns(l *specs.Linux) error {
	ns := namespaceOf(l, specs.UserNamespace)
	if ns == nil {
		switch {
		case len(l.UIDMappings) > 0:
			return fmt.Errorf("linux.uidMappings: need a user namespace in linux.namespaces")
		case len(l.GIDMappings) > 0:
			return fmt.Errorf("linux.gidMappings: need a user namespace in linux.namespaces")
		}
		return nil
	}
	for _, m := range []struct {
		field string
		maps  []specs.LinuxIDMapping
	}{{"linux.uidMappings", l.UIDMappings}, {"linux.gidMappings", l.GIDMappings}} {
		if ns.Path == "" && len(m.maps) == 0 {
			return fmt.Errorf("%s: is empty, and the new user namespace needs it", m.field)
		}
		if err := checkMappings(m.field, m.maps); err != nil {
			return err
		}
		if ns.Path == "" && !mapped(m.maps, 0) {
			return fmt.Errorf("%s: containerID 0 is not mapped, and the root file system is made as that", m.field)
		}
	}
	return nil
}

// checkMappings tells what the kernel would answer with EINVAL alone.
func checkMappings(field string, maps []specs.LinuxIDMapping) error {
	if len(maps) > maxIDMaps {
		return fmt.Errorf("%s: has %d entries, and the kernel takes %d", field, len(maps), maxIDMaps)
	}
	for i, m := range maps {
		switch {
		case m.Size == 0:
			return fmt.Errorf("%s[%d].size: is 0", field, i)
		case uint64(m.ContainerID)+uint64(m.Size) > math.MaxUint32:
			return fmt.Errorf("%s[%d].size: %d ids from %d on go beyond the last one", field, i, m.Size, m.ContainerID)
		case uint64(m.HostID)+uint64(m.Size) > math.MaxUint32:
			return fmt.Errorf("%s[%d].size: %d ids from hostID %d on go beyond the last one", field, i, m.Size, m.HostID)
		}
		for j, n := range maps[:i] {
			if overlap(m.ContainerID, m.Size, n.ContainerID, n.Size) {
				return fmt.Errorf("%s[%d].containerID: overlaps with %s[%d]", field, i, field, j)
			}
			if overlap(m.HostID, m.Size, n.HostID, n.Size) {
				return fmt.Errorf("%s[%d].hostID: overlaps with %s[%d]", field, i, field, j)
			}
		}
	}
	return nil
}

func overlap(a, aSize, b, bSize uint32) bool {
	return uint64(a) < uint64(b)+uint64(bSize) && uint64(b) < uint64(a)+uint64(aSize)
}

// mapped tells whether an id of the container is one outside.
func mapped(maps []specs.LinuxIDMapping, id uint32) bool {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return true
		}
	}
	return false
}

func checkTime(l *specs.Linux) error {
	if len(l.TimeOffsets) == 0 {
		return nil
	}
	ns := namespaceOf(l, specs.TimeNamespace)
	switch {
	case ns == nil:
		return fmt.Errorf("linux.timeOffsets: need a time namespace in linux.namespaces")
	case ns.Path != "":
		return fmt.Errorf("linux.timeOffsets: cannot be set in the time namespace of %s, which exists", ns.Path)
	}
	for clock, offset := range l.TimeOffsets {
		switch {
		case clock != "monotonic" && clock != "boottime":
			return fmt.Errorf("linux.timeOffsets[%q]: is not a clock with an offset; those are monotonic and boottime", clock)
		case offset.Nanosecs >= 1e9:
			return fmt.Errorf("linux.timeOffsets[%q].nanosecs: %d is a second or more", clock, offset.Nanosecs)
		}
	}
	return nil
}

// namespaceOf is the entry of a kind, nil if there is none.
func namespaceOf(l *specs.Linux, kind specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i := range l.Namespaces {
		if l.Namespaces[i].Type == kind {
			return &l.Namespaces[i]
		}
	}
	return nil
}

// makes tells whether the app gets a new namespace of a kind.
func (p *planner) makes(kind specs.LinuxNamespaceType) bool {
	ns := namespaceOf(p.linux, kind)
	return ns != nil && ns.Path == ""
}

// before is that of the plan, made when first needed.
func (p *planner) before() *stage1.Before {
	if p.plan.Before == nil {
		p.plan.Before = &stage1.Before{}
	}
	return p.plan.Before
}

// userns plans what root of a user namespace cannot do itself.
func (p *planner) userns() error {
	p.plan.Userns = p.o.Userns != nil || owns(p.spec, specs.UserNamespace)
	if !owns(p.spec, specs.UserNamespace) {
		return nil
	}
	if p.makes(specs.UserNamespace) {
		p.plan.UIDs, p.plan.GIDs = idMaps(p.linux.UIDMappings), idMaps(p.linux.GIDMappings)
	}
	proc := p.spec.Process
	if err := p.mapped("process.user.uid", p.linux.UIDMappings, proc.User.UID); err != nil {
		return err
	}
	if err := p.mapped("process.user.gid", p.linux.GIDMappings, proc.User.GID); err != nil {
		return err
	}
	for i, gid := range proc.User.AdditionalGids {
		if err := p.mapped(fmt.Sprintf("process.user.additionalGids[%d]", i), p.linux.GIDMappings, gid); err != nil {
			return err
		}
	}
	for _, r := range proc.Rlimits {
		if number, ok := rlimitNumber(r.Type); ok {
			p.before().Limits = append(p.before().Limits, stage1.Rlimit{Name: r.Type, Type: number, Soft: r.Soft, Hard: r.Hard})
		}
	}
	if adj := proc.OOMScoreAdj; adj != nil {
		p.before().OOMScore = &stage1.OOMScore{Adj: *adj}
	}
	return nil
}

func (p *planner) mapped(field string, maps []specs.LinuxIDMapping, id uint32) error {
	if p.makes(specs.UserNamespace) && !mapped(maps, id) {
		return fmt.Errorf("%s: %d is not mapped into the user namespace", field, id)
	}
	return nil
}

func idMaps(maps []specs.LinuxIDMapping) []stage1.IDMap {
	var out []stage1.IDMap
	for _, m := range maps {
		out = append(out, stage1.IDMap{Container: m.ContainerID, Host: m.HostID, Size: m.Size})
	}
	return out
}

// timens has the process born in a time namespace. Its clocks are set before
// anybody enters it: later nobody may.
func (p *planner) timens() {
	b := p.before()
	b.Time = true
	for _, clock := range []string{"monotonic", "boottime"} {
		if o, ok := p.linux.TimeOffsets[clock]; ok {
			b.Offsets = append(b.Offsets, stage1.TimeOffset{Clock: clock, Secs: o.Secs, Nanosecs: o.Nanosecs})
		}
	}
}

// mappedOptions leaves out that terminals belong to a group which the user
// namespace does not have: the kernel would refuse the mount, and the "gid=5"
// that everybody writes is the host's tty.
func (p *planner) mappedOptions(fstype string, options []string) []string {
	gids := p.linux.GIDMappings
	if !p.makes(specs.UserNamespace) {
		if p.o.Userns == nil || p.joins(specs.UserNamespace) {
			return options
		}
		gids = p.o.Userns.GIDs
	}
	if fstype != "devpts" {
		return options
	}
	return slices.DeleteFunc(slices.Clone(options), func(option string) bool {
		value, ok := strings.CutPrefix(option, "gid=")
		if !ok {
			return false
		}
		gid, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return false
		}
		return !mapped(gids, uint32(gid))
	})
}

// instead donates what is bound where a file system cannot be made because it
// is about a namespace that does not belong to the user namespace.
func (p *planner) instead(fstype, target string) int {
	var path string
	switch {
	case !owns(p.spec, specs.UserNamespace) && p.o.Userns == nil:
	case fstype == "sysfs" && !p.makes(specs.NetworkNamespace):
		path = "/sys"
	case fstype == "proc" && !owns(p.spec, specs.PIDNamespace):
		path = "/proc"
	case fstype == "cgroup2" && !p.makes(specs.CgroupNamespace):
		path = "/sys/fs/cgroup" // read-only, as without a user namespace
	}
	if path == "" {
		return 0
	}
	return 1 + p.source(stage1.Source{Kind: stage1.SourceMount, Path: path, For: target})
}

// foreignKind is the namespace that a file system shows and cannot do without.
func foreignKind(fstype string) specs.LinuxNamespaceType {
	switch fstype {
	case "proc":
		return specs.PIDNamespace
	case "mqueue":
		return specs.IPCNamespace
	}
	return ""
}

// foreign tells whether a file system shows a namespace that certainly does
// not belong to the user namespace, and nothing can be bound in its place.
func (p *planner) foreign(fstype string) bool {
	kind := foreignKind(fstype)
	if kind == "" || !p.makes(specs.UserNamespace) || p.makes(kind) {
		return false
	}
	return kind == specs.IPCNamespace || p.joins(kind)
}

// aloneKinds are joined by a process of one thread only.
const aloneKinds = unix.CLONE_NEWUSER | unix.CLONE_NEWTIME

// joinKinds are the namespaces a thread of the parent may enter for a child.
const joinKinds = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWPID
