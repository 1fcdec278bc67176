// SPDX-License-Identifier: Apache-2.0

// Package launch turns a bundle into a process. Plan is pure: the ordered
// steps of a launch as data. Start is the host half: it prepares cgroup,
// network namespace, filter and mounts, clones gantry-init into them, and
// waits for the app's execve. Supervise becomes the supervisor in place.
package launch

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// PlanOptions are what a plan depends on besides the bundle.
type PlanOptions struct {
	Bundle   string       // directory relative sources of mounts start from
	Root     RootPlan     // what / is made of
	Cgroups  CgroupLayout // how this host's cgroups are mounted
	Terminal bool
	Init     bool    // gantry-init stays as process 1
	Outlive  bool    // the app does not die with its parent
	Hold     bool    // it waits for its start
	Attended bool    // by its parent, which stays until then
	Given    bool    // of an exec: the process says itself what it may
	Preserve int     // so many descriptors from FirstPreserved on are the app's too
	Network  bool    // it waits until its new network namespace is attached
	Keyring  bool    // it keeps the session keyring of its parent
	Userns   *Userns // that of the parent, if it is not the host's
	Rows     uint16
	Columns  uint16
	SELinux  bool // the kernel takes labels of files

	Below map[string]string // by destination, what of a mount's source is attached

	Container string // its id, in the state that hooks get; empty: a bundle with hooks is refused
}

// RootPlan says what the root is made of, without the descriptors.
type RootPlan struct {
	Tree        bool // a detached tree mount is donated; else Dir is bound
	Dir         string
	At          string // directory of the host that it is attached at when hooks look for it; empty: Dir
	Upper, Work string // of the writable overlay; empty: none
	Mapped      bool   // files are shown with the ids of the user namespace
	Volatile    bool   // the upper is thrown away at the end: nothing in it needs to reach the disk
}

// planner collects sources and steps.
type planner struct {
	spec  *specs.Spec
	linux *specs.Linux
	o     PlanOptions
	plan  stage1.Plan
	apart *stage1.Apart // of an exec: what is done after the clone into the pid namespace
	enter *stage1.Step  // joins that, as late as capabilities allow

	reborn *stage1.Reborn // joins user and time namespaces, if there are any to join
}

func (p *planner) add(s stage1.Step) { p.plan.Steps = append(p.plan.Steps, s) }

func (p *planner) source(s stage1.Source) int {
	p.plan.Sources = append(p.plan.Sources, s)
	return len(p.plan.Sources) - 1
}

// Plan orders the steps that make a process of spec. It reads nothing.
func Plan(spec *specs.Spec, o PlanOptions) (stage1.Plan, error) {
	if err := supported(spec, o.Container != ""); err != nil {
		return stage1.Plan{}, err
	}
	p := &planner{spec: spec, linux: spec.Linux, o: o}
	p.plan.Version = stage1.PlanVersion
	p.preserve()
	for _, stage := range []func() error{
		p.mountLabel, p.namespaces, p.root, p.mounts, p.devices, p.network, p.createHooks, p.kernel, p.paths, p.process,
	} {
		if err := stage(); err != nil {
			return stage1.Plan{}, err
		}
	}
	return p.plan, nil
}

// namespaces: those to be made are the process's from birth, those to be
// joined come first, and the cgroup namespace waits for the cgroup mount.
func (p *planner) namespaces() error {
	if err := p.userns(); err != nil {
		return err
	}
	if p.joins(specs.UserNamespace) || p.joins(specs.TimeNamespace) {
		p.reborn = &stage1.Reborn{Root: p.plan.Userns}
		// From inside a new user namespace the clocks are out of reach: it is made
		// when they are joined.
		p.reborn.UIDs, p.reborn.GIDs, p.plan.UIDs, p.plan.GIDs = p.plan.UIDs, p.plan.GIDs, nil, nil
		p.add(stage1.Step{Reborn: p.reborn})
	}
	for i, ns := range p.linux.Namespaces {
		if err := p.namespace(fmt.Sprintf("linux.namespaces[%d]", i), ns); err != nil {
			return err
		}
	}
	if p.spec.Hostname+p.spec.Domainname != "" {
		p.add(stage1.Step{Hostname: &stage1.Hostname{Name: p.spec.Hostname, Domain: p.spec.Domainname}})
	}
	return nil
}

func (p *planner) namespace(field string, ns specs.LinuxNamespace) error {
	kind, err := namespaceKind(field, ns.Type)
	if err != nil {
		return err
	}
	switch {
	case ns.Type == specs.CgroupNamespace && ns.Path == "":
		return nil
	case ns.Type == specs.TimeNamespace && ns.Path == "":
		p.timens()
		return nil
	case ns.Type == specs.NetworkNamespace && ns.Path == "" && (len(p.linux.NetDevices) == 0 || devicesLater(p.spec)):
		p.clone(ns.Type, kind)
		p.add(stage1.Step{Loopback: &stage1.Loopback{}})
		return nil
	case ns.Path == "" && ns.Type != specs.NetworkNamespace:
		p.clone(ns.Type, kind)
		return nil
	}
	changed := ""
	if ns.Path != "" {
		changed = changes(p.spec, ns.Type)
	}
	fd := p.source(stage1.Source{Kind: stage1.SourceNamespace, Namespace: string(ns.Type), Path: ns.Path, For: field, Changed: changed})
	join := stage1.Join{FD: fd, Kinds: kind}
	if kind&aloneKinds != 0 {
		// The clocks first: from inside the user namespace they may be out of reach.
		p.reborn.Join = append(p.reborn.Join, join)
		slices.SortFunc(p.reborn.Join, func(a, b stage1.Join) int { return cmp.Compare(a.Kinds, b.Kinds) })
		return nil
	}
	if ns.Type == specs.PIDNamespace || p.plan.Userns && kind&joinKinds != 0 {
		p.before().Join = append(p.before().Join, join)
		return nil
	}
	p.add(stage1.Step{Join: &join})
	return nil
}

// clone has the process born in a new namespace.
func (p *planner) clone(t specs.LinuxNamespaceType, kind uint64) {
	if p.reborn != nil {
		p.reborn.Clone |= kind
		return
	}
	p.plan.Clone = append(p.plan.Clone, string(t))
}

// owns tells whether the app has a namespace of its own.
func owns(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == kind {
			return true
		}
	}
	return false
}

func namespaceKind(field string, t specs.LinuxNamespaceType) (uint64, error) {
	switch t {
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID, nil
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET, nil
	case specs.MountNamespace:
		return unix.CLONE_NEWNS, nil
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC, nil
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS, nil
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP, nil
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER, nil
	case specs.TimeNamespace:
		return unix.CLONE_NEWTIME, nil
	}
	return 0, fmt.Errorf("%s.type: %q is not a kind of namespace", field, t)
}

// overlayOptions turn off what an image's extended attributes could steer.
// Root of a user namespace may not write the attributes that overlayfs keeps
// its marks in, but some that every user may, with which come the first two.
func overlayOptions(volatile, mapped bool) []string {
	options := []string{"redirect_dir=nofollow", "metacopy=off", "index=off"}
	if mapped {
		options = []string{"userxattr", "index=off"}
	}
	if volatile {
		options = append(options, "volatile")
	}
	return options
}

func (p *planner) root() error {
	r := &stage1.Root{HostPrivate: unix.MS_PRIVATE, Attr: stage1.Attr{Propagation: unix.MS_PRIVATE, PropagateBelow: true}}
	switch p.linux.RootfsPropagation {
	case "", "private", "rprivate":
	case "slave", "rslave":
		// What the host mounts below the root from now on arrives in it.
		r.HostPrivate, r.Attr.Propagation = unix.MS_SLAVE, unix.MS_SLAVE
	case "shared", "rshared", "unbindable", "runbindable":
		// Not a peer of the host's: what is mounted here stays here. It becomes
		// what is asked for when it is the root.
		r.HostPrivate = unix.MS_SLAVE
	default:
		return fmt.Errorf("linux.rootfsPropagation: %q is not a propagation", p.linux.RootfsPropagation)
	}
	ids, err := p.rootMap()
	if err != nil {
		return err
	}
	if p.o.Root.Tree {
		r.FD = p.source(stage1.Source{Kind: stage1.SourceTree, For: "/", Map: ids})
		r.Attr.Set = unix.MOUNT_ATTR_NODEV
		if hooksBeforePivot(p.spec.Hooks) {
			r.At = p.o.Root.At
		}
	} else {
		r.FD = p.source(stage1.Source{Kind: stage1.SourceMount, Path: p.o.Root.Dir, Recursive: ids == nil, For: "/", Map: ids})
		if hooksBeforePivot(p.spec.Hooks) || p.shared() {
			r.At = p.o.Root.Dir
		}
	}
	if p.shared() {
		return p.sharedRoot(r)
	}
	if p.o.Root.Upper != "" {
		r.Upper, r.Work = p.o.Root.Upper, p.o.Root.Work
		if ids != nil {
			// One mount for both, as overlayfs wants it.
			r.In = 1 + p.source(stage1.Source{Kind: stage1.SourceMount, Path: filepath.Dir(r.Upper), For: "/", Map: ids})
			r.Upper, r.Work = filepath.Base(r.Upper), filepath.Base(r.Work)
		}
	} else if p.readOnlyRoot() {
		r.Need = p.topMounts()
	}
	if p.o.Root.Tree || r.Upper != "" {
		r.Options = overlayOptions(p.o.Root.Volatile, ids != nil || p.o.Userns != nil)
	}
	p.add(stage1.Step{Root: r})
	return nil
}

// shared tells whether others are in the app's mount namespace: it has none of
// its own, or one that was there before.
func (p *planner) shared() bool { return !p.makes(specs.MountNamespace) }

// sharedRoot leaves the namespace as it is: its root stays where it is, and so
// does whether its mounts propagate.
func (p *planner) sharedRoot(r *stage1.Root) error {
	switch {
	case p.makes(specs.UserNamespace):
		return errors.New("linux.namespaces: a new user namespace needs a new mount namespace as well")
	case p.o.Root.Tree || p.o.Root.Upper != "":
		return errors.New("linux.namespaces: a mount namespace is needed")
	}
	r.HostPrivate, r.Shared = 0, true
	p.add(stage1.Step{Root: r})
	return nil
}

func (p *planner) readOnlyRoot() bool {
	return p.spec.Root != nil && p.spec.Root.Readonly || p.o.Root.Tree && p.o.Root.Upper == ""
}

// topMounts are the mount points that have to be in the root itself.
func (p *planner) topMounts() []string {
	var top []string
	for i, m := range p.spec.Mounts {
		below := false
		for _, earlier := range p.spec.Mounts[:i] {
			below = below || isBelow(m.Destination, earlier.Destination)
		}
		if !below {
			top = append(top, path.Clean(m.Destination))
		}
	}
	if cwd := p.spec.Process.Cwd; cwd != "/" && cwd != "" {
		top = append(top, path.Clean(cwd))
	}
	return top
}

func isBelow(name, dir string) bool {
	return strings.HasPrefix(path.Clean(name)+"/", path.Clean(dir)+"/")
}

// kernel sets what belongs to the namespaces as a whole.
func (p *planner) kernel() error {
	if p.o.Terminal {
		p.add(stage1.Step{Terminal: &stage1.Terminal{
			Rows: p.o.Rows, Columns: p.o.Columns, UID: p.spec.Process.User.UID, Console: true,
		}})
	}
	return p.sysctls()
}

// paths hides and protects what the mounts brought, closes the root, and
// leaves the host.
func (p *planner) paths() error {
	if cwd := p.spec.Process.Cwd; cwd != "/" {
		p.add(stage1.Step{Mkdir: &stage1.Mkdir{Path: path.Clean(cwd), Mode: 0o755}})
	}
	for _, name := range p.linux.ReadonlyPaths {
		p.add(stage1.Step{ReadOnly: &stage1.ReadOnly{Path: path.Clean(name)}})
	}
	for _, name := range p.linux.MaskedPaths {
		p.add(stage1.Step{Mask: &stage1.Mask{Path: path.Clean(name)}})
	}
	if p.spec.Root != nil && p.spec.Root.Readonly {
		p.add(stage1.Step{Remount: &stage1.Remount{Path: "/", Attr: stage1.Attr{Set: unix.MOUNT_ATTR_RDONLY}}})
	}
	if p.shared() {
		p.add(stage1.Step{Chroot: &stage1.Chroot{}})
	} else {
		p.add(stage1.Step{Pivot: &stage1.Pivot{}})
	}
	if flag, below, ok := propagation(p.linux.RootfsPropagation); ok && flag != unix.MS_PRIVATE {
		p.add(stage1.Step{Remount: &stage1.Remount{Path: "/", Attr: stage1.Attr{Propagation: flag, PropagateBelow: below}}})
	}
	return nil
}

// absolute resolves a source as the specification wants: relative to the
// bundle.
func (p *planner) absolute(source string) string {
	if filepath.IsAbs(source) {
		return source
	}
	return filepath.Join(p.o.Bundle, source)
}
