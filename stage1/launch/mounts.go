// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// mountOptions is what the option words of one mount come to.
type mountOptions struct {
	attr              stage1.Attr
	bind              bool
	recursive         bool
	copyUp, yield     bool
	remount           bool
	super             []string // flags of the superblock that every file system knows
	idMap, idMapBelow bool
	data              []string // for the file system
}

func (p *planner) mounts() error {
	if owns(p.spec, specs.CgroupNamespace) && !p.joins(specs.CgroupNamespace) {
		// The process is born in its cgroup: here it becomes the root it sees.
		p.add(stage1.Step{Unshare: &stage1.Unshare{Kinds: unix.CLONE_NEWCGROUP}})
	}
	for i, m := range p.spec.Mounts {
		if err := p.mount(m); err != nil {
			return fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
	}
	return nil
}

func (p *planner) joins(kind specs.LinuxNamespaceType) bool {
	for _, ns := range p.linux.Namespaces {
		if ns.Type == kind && ns.Path != "" {
			return true
		}
	}
	return false
}

func (p *planner) mount(m specs.Mount) error {
	target := path.Clean("/" + m.Destination)
	if target == "/" {
		return fmt.Errorf("nothing can be mounted on /")
	}
	o, err := parseMountOptions(m.Options)
	if err != nil {
		return err
	}
	ids, err := p.idMap(m, o)
	if err != nil {
		return err
	}
	onProc := isBelow(target, "/proc") && target != "/proc"
	switch {
	case o.remount:
		p.add(stage1.Step{Remount: &stage1.Remount{Path: target, Attr: o.attr, Options: p.reconfigure(m, o)}})
	case onProc && !(o.bind || m.Type == "bind"):
		return fmt.Errorf("nothing but a file can be mounted below /proc")
	case onProc && !slices.Contains(procFiles(), target):
		return fmt.Errorf("%s cannot be mounted over", target)
	case (o.bind || m.Type == "bind") && m.Source == "":
		return fmt.Errorf("source is missing: there is nothing to bind")
	case o.bind || m.Type == "bind":
		p.bind(m, target, o, onProc, ids)
	case m.Type == "cgroup" || m.Type == "cgroup2":
		p.cgroup(target, o)
	case m.Type == "":
		return fmt.Errorf("type is missing")
	case p.foreign(m.Type):
		return fmt.Errorf("%s cannot be mounted by a new user namespace whose container has not got a new %s namespace as well", m.Type, foreignKind(m.Type))
	default:
		p.fileSystem(m, target, o)
	}
	return nil
}

// procFiles may be replaced by a bind mount, as lxcfs does.
func procFiles() []string {
	return []string{
		"/proc/cpuinfo", "/proc/diskstats", "/proc/loadavg", "/proc/meminfo", "/proc/slabinfo",
		"/proc/stat", "/proc/swaps", "/proc/uptime",
	}
}

func (p *planner) bind(m specs.Mount, target string, o mountOptions, onProc bool, ids *stage1.MountMap) {
	fd := p.source(stage1.Source{Kind: stage1.SourceMount, Path: p.absolute(m.Source), Recursive: o.recursive, For: target, Map: ids})
	if o.attr.Propagation == 0 {
		// Without this the clone would stay the host mount's peer.
		o.attr.Propagation, o.attr.PropagateBelow = unix.MS_PRIVATE, true
	}
	p.add(stage1.Step{Bind: &stage1.Bind{FD: fd, Target: target, Sub: p.o.Below[target], Attr: o.attr, CopyUp: o.copyUp, Yield: o.yield, OnProc: onProc}})
}

// reconfigure is what a remount changes of the file system itself: nothing of
// one that is bound, as mount(2) has it.
func (p *planner) reconfigure(m specs.Mount, o mountOptions) []string {
	if o.bind || m.Type == "bind" {
		return nil
	}
	return slices.Concat(o.super, o.data)
}

func (p *planner) fileSystem(m specs.Mount, target string, o mountOptions) {
	source := m.Source
	if source == "" {
		source = m.Type
	}
	o.attr.Clear = 0 // a new mount has nothing set
	p.add(stage1.Step{Mount: &stage1.Mount{
		Type: m.Type, Source: source, Options: p.labelled(m.Type, slices.Concat(o.super, p.mappedOptions(m.Type, o.data))), Attr: o.attr, Target: target,
		Plain: isBelow(target, "/proc") || isBelow(target, "/sys") || isBelow(target, "/dev"), CopyUp: o.copyUp, Yield: o.yield,
		Else: p.instead(m.Type, target), Label: p.rootLabel(m.Type),
	}})
}

// cgroup mounts what the host has: the unified hierarchy, or each of the old
// ones below a tmpfs. Without a cgroup namespace the mount would show, and
// let write, the whole host (CVE-2023-25809): then it is read-only, unless
// those of version 1 show the group of the container alone. Without a path they
// do not: the container has a group of its own only where it has a limit, and
// is beside us in all others, with a release_agent in reach (CVE-2022-0492).
func (p *planner) cgroup(target string, o mountOptions) {
	attr := o.attr
	attr.Clear = 0
	owned := p.makes(specs.CgroupNamespace)
	v1 := len(p.o.Cgroups.V1) > 0
	if v1 && p.linux.CgroupsPath == "" || !owned && !(v1 && p.canPass()) {
		attr.Set |= unix.MOUNT_ATTR_RDONLY
	}
	if !v1 {
		p.add(stage1.Step{Mount: &stage1.Mount{
			Type: "cgroup2", Source: "cgroup2", Attr: attr, Target: target, Plain: true, Else: p.instead("cgroup2", target),
		}})
		return
	}
	if !owned && p.canPass() {
		defer p.passCgroupNamespace()()
	}
	writable := attr
	writable.Set &^= unix.MOUNT_ATTR_RDONLY
	p.add(stage1.Step{Mount: &stage1.Mount{
		Type: "tmpfs", Source: "tmpfs", Options: p.labelled("tmpfs", []string{"mode=0755", "size=1m"}), Attr: writable, Target: target, Plain: true,
	}})
	for _, controllers := range p.o.Cgroups.V1 {
		p.hierarchy(target, controllers, attr)
	}
	if p.o.Cgroups.Unified {
		p.add(stage1.Step{Mount: &stage1.Mount{
			Type: "cgroup2", Source: "cgroup2", Attr: attr, Target: target + "/unified", Plain: true, Optional: true,
		}})
	}
	if attr.Set&unix.MOUNT_ATTR_RDONLY != 0 {
		p.add(stage1.Step{Remount: &stage1.Remount{Path: target, Attr: stage1.Attr{Set: unix.MOUNT_ATTR_RDONLY}}})
	}
}

// canPass tells whether a cgroup namespace can be left for the host's again: a
// process of another user namespace cannot.
func (p *planner) canPass() bool { return !owns(p.spec, specs.UserNamespace) && p.o.Userns == nil }

// passCgroupNamespace makes a cgroup namespace for the mounts that follow, and
// the function it returns goes back. A hierarchy mounted in it has the group of
// the container as its root for ever, as engines of version 1 expect, who give
// containers no cgroup namespace.
func (p *planner) passCgroupNamespace() func() {
	fd := p.source(stage1.Source{
		Kind: stage1.SourceNamespace, Namespace: string(specs.CgroupNamespace), Path: "/proc/self/ns/cgroup", For: "/sys/fs/cgroup",
	})
	p.add(stage1.Step{Unshare: &stage1.Unshare{Kinds: unix.CLONE_NEWCGROUP}})
	return func() { p.add(stage1.Step{Join: &stage1.Join{FD: fd, Kinds: unix.CLONE_NEWCGROUP}}) }
}

// hierarchy mounts one hierarchy of cgroup v1, given its controllers as
// /proc/self/cgroup names them: "cpu,cpuacct" or "name=systemd".
func (p *planner) hierarchy(target, controllers string, attr stage1.Attr) {
	options := strings.Split(controllers, ",")
	dir := controllers
	if name, named := strings.CutPrefix(controllers, "name="); named {
		options, dir = []string{"none", controllers}, name
	}
	p.add(stage1.Step{Mount: &stage1.Mount{
		Type: "cgroup", Source: "cgroup", Options: options, Attr: attr, Target: target + "/" + dir, Plain: true, Optional: true,
	}})
	if len(options) > 1 && dir == controllers {
		for _, controller := range options {
			p.add(stage1.Step{Symlink: &stage1.Symlink{Path: target + "/" + controller, Target: dir}})
		}
	}
}

// parseMountOptions sorts option words: attributes of the mount, with "r" in
// front of it and all below; propagation; and what the file system gets.
func parseMountOptions(words []string) (mountOptions, error) {
	var o mountOptions
	for _, word := range words {
		if flag, below, ok := propagation(word); ok {
			o.attr.Propagation, o.attr.PropagateBelow = flag, below
			continue
		}
		if bits, clear, ok := attribute(word); ok {
			apply(&o.attr.Set, &o.attr.Clear, bits, clear)
			continue
		}
		if rest, ok := strings.CutPrefix(word, "r"); ok {
			if bits, clear, ok := attribute(rest); ok {
				apply(&o.attr.SetBelow, &o.attr.ClearBelow, bits, clear)
				continue
			}
		}
		if err := o.other(word); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (o *mountOptions) other(word string) error {
	switch word {
	case "bind":
		o.bind = true
	case "rbind":
		o.bind, o.recursive = true, true
	case "tmpcopyup", "copyup":
		o.copyUp = true
	case "yield":
		o.yield = true
	case "remount":
		o.remount = true
	case "defaults", "loud", "silent":
	case "async", "nodirsync", "nomand", "nolazytime", "noiversion":
		// They take back what came before; the one of iversion is nothing.
		o.super = slices.DeleteFunc(o.super, func(s string) bool { return "a"+s == word || "no"+s == word })
	case "iversion": // fsconfig(2) has no word for it: file systems count where they can
	case "sync", "dirsync", "mand", "lazytime":
		o.super = append(o.super, word)
	case "idmap", "ridmap":
		o.idMap, o.idMapBelow = true, word == "ridmap"
	default:
		if strings.HasPrefix(word, "idmap=") || strings.HasPrefix(word, "ridmap=") {
			return fmt.Errorf("option %q is not supported: mappings have fields of their own, uidMappings and gidMappings", word)
		}
		o.data = append(o.data, word)
	}
	return nil
}

// apply sets or clears bits; the last word wins. The access time modes
// exclude each other.
func apply(set, clear *uint64, bits uint64, off bool) {
	if bits&unix.MOUNT_ATTR__ATIME != 0 {
		*set &^= unix.MOUNT_ATTR__ATIME
		*clear |= unix.MOUNT_ATTR__ATIME
		if !off {
			*set |= bits
		}
		return
	}
	if off {
		*set, *clear = *set&^bits, *clear|bits
		return
	}
	*set, *clear = *set|bits, *clear&^bits
}

// attribute gives the MOUNT_ATTR bit of a word, and whether it clears it.
func attribute(word string) (bits uint64, off, ok bool) {
	switch word {
	case "ro", "rw":
		return unix.MOUNT_ATTR_RDONLY, word == "rw", true
	case "nosuid", "suid":
		return unix.MOUNT_ATTR_NOSUID, word == "suid", true
	case "nodev", "dev":
		return unix.MOUNT_ATTR_NODEV, word == "dev", true
	case "noexec", "exec":
		return unix.MOUNT_ATTR_NOEXEC, word == "exec", true
	case "nodiratime", "diratime":
		return unix.MOUNT_ATTR_NODIRATIME, word == "diratime", true
	case "nosymfollow", "symfollow":
		return unix.MOUNT_ATTR_NOSYMFOLLOW, word == "symfollow", true
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, false, true
	case "strictatime":
		return unix.MOUNT_ATTR_STRICTATIME, false, true
	case "relatime", "atime", "norelatime", "nostrictatime":
		return unix.MOUNT_ATTR__ATIME, true, true // relative access times are the kernel's zero
	}
	return 0, false, false
}

// propagation gives the MS_ flag of a word, and whether it is recursive.
func propagation(word string) (flag uint64, below, ok bool) {
	name, below := strings.CutPrefix(word, "r")
	switch name {
	case "private":
		return unix.MS_PRIVATE, below, true
	case "slave":
		return unix.MS_SLAVE, below, true
	case "shared":
		return unix.MS_SHARED, below, true
	case "unbindable":
		return unix.MS_UNBINDABLE, below, true
	}
	return 0, false, false
}
