// SPDX-License-Identifier: Apache-2.0

// Package cgroups puts an app into control groups of its own: below the
// caller's group, on cgroup v2, v1 and hosts that mix them. What a group can
// do is decided by values (host.go, place.go, limits.go) and done through
// github.com/containerd/cgroups/v3 in few places.
//
// A limit that was asked for by name and cannot be had is a *LimitError; a
// limit that was only a default is left out and noted once.
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
	"golang.org/x/sys/unix"
)

// Options says what Create makes.
type Options struct {
	Name      string                // one path component, unique on this host
	Path      string                // instead of Name below our own group: from the top of every hierarchy; it may be there already, empty
	Resources *specs.LinuxResources // what the app may use; nil: nothing but the device rules
	Strict    map[string]bool       // limits asked for by name, in the words of LimitError.Limit, or of its first word for all that begin so
	Note      func(string)          // told once per default that cannot be had; may be nil
	NoDevices bool                  // no device can be made by the app: that no rules are in force is no loss

	// Record is told every directory that may be made, deepest first, before
	// the first one is: whoever is killed in between leaves nothing that is
	// not on record. Some of them may never exist. May be nil.
	Record func(dirs []string) error

	// Make makes the group of Path, after it was recorded, and leaves a
	// process in it; nil: Create makes it. It is not asked twice.
	Make func() error

	None bool // no group is made: processes stay where their parent is, and limits are refused
}

// Group is a control group in every hierarchy the host needs it in. The zero
// value is a group of a host that has no writable hierarchy: it limits
// nothing and holds nothing.
type Group struct {
	host     *host
	v1       []string // absolute directories
	v2       string   // absolute directory or ""
	fd       *os.File // of v2
	cloned   bool     // the app is born in v2 through fd
	pids     int64    // what Settle sets; 0: it is set
	confined bool
}

// Create makes the group and sets its limits. On error nothing is left.
func Create(o Options) (*Group, error) {
	h, err := thisHost()
	if err != nil {
		return nil, err
	}
	return create(h, o)
}

// None is no group: processes stay where their parent is.
func None() (*Group, error) {
	h, err := thisHost()
	if err != nil {
		return nil, err
	}
	return &Group{host: h}, nil
}

// leastMemory is what starting a process in a group takes: with less the kernel
// kills who starts it, which on v1 is in the group for that moment.
const leastMemory = 2 << 20

func enoughMemory(r *specs.LinuxResources) error {
	if r == nil || r.Memory == nil || !set(r.Memory.Limit) || *r.Memory.Limit < 0 || *r.Memory.Limit >= leastMemory {
		return nil
	}
	return &LimitError{Limit: "memory", Reason: fmt.Sprintf("%d bytes are too few to start a process", *r.Memory.Limit), Mend: "give it 2 MiB or more"}
}

// without is None for who asked for it, and for no limit.
func without(h *host, limits []limit, o *Options) (*Group, error) {
	for _, l := range limits {
		if l.strict(o.Strict) {
			return nil, &LimitError{Limit: l.name, Reason: "there is to be no control group", Mend: "ask for no limits, or for a group"}
		}
	}
	if o.Record != nil {
		if err := o.Record(nil); err != nil {
			return nil, err
		}
	}
	return &Group{host: h}, nil
}

func create(h *host, o Options) (_ *Group, err error) {
	o, err = o.checked()
	if err != nil {
		return nil, err
	}
	limits, err := limitsOf(o.Resources)
	if err != nil {
		return nil, err
	}
	if o.None {
		return without(h, limits, &o)
	}
	if err := enoughMemory(o.Resources); err != nil {
		return nil, err
	}
	if o.Record != nil {
		if err := o.Record(candidates(h, o)); err != nil {
			return nil, fmt.Errorf("record cgroup: %w", err)
		}
	}
	if o.Make != nil {
		if err := o.Make(); err != nil {
			return nil, err
		}
	}
	b := &builder{host: h, name: o.Name, made: o.Make != nil, path: o.Path, strict: o.Strict, note: o.Note, noDevices: o.NoDevices, group: &Group{host: h}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.group.Delete())
		}
	}()
	if err := b.makeUnified(limits); err != nil {
		return nil, err
	}
	if err := b.apply(limits); err != nil {
		return nil, err
	}
	var rules []specs.LinuxDeviceCgroup
	if o.Resources != nil {
		rules = o.Resources.Devices
	}
	if err := b.confine(rules); err != nil {
		return nil, err
	}
	if err := b.account(); err != nil {
		return nil, err
	}
	if o.Strict["parent"] && len(b.group.Dirs()) == 0 {
		return nil, &LimitError{Limit: "cgroup-parent", Reason: "no control group can be made in " + filepath.Dir(o.Path) + " here", Mend: "leave it out, or have the group delegated, or run as root"}
	}
	b.tell()
	return b.group, b.group.loosen(o.Resources)
}

// candidates are the directories a group can consist of.
func candidates(h *host, o Options) []string {
	var dirs []string
	for _, v1 := range h.v1 {
		dir := filepath.Join(v1.dir(), o.Name)
		if o.Path != "" {
			dir = filepath.Join(v1.mount, o.Path)
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if o.Path != "" && h.tracked != nil {
		dirs = append(dirs, filepath.Join(h.tracked.mount, o.Path))
	}
	slices.Sort(dirs)
	switch {
	case h.v2 == nil:
	case o.Path != "":
		dirs = append(dirs, filepath.Join(h.v2.mount, o.Path))
	default:
		dirs = append(dirs, filepath.Join(h.v2.mount, place(h).base, o.Name))
	}
	return dirs
}

// checked refuses what cannot be a group's name. A path ends at the top of a
// hierarchy as if that were the root, whatever ".." is in it.
func (o Options) checked() (Options, error) {
	if o.Path == "" {
		return o, validName(o.Name)
	}
	var err error
	o.Path, err = CleanPath(o.Path)
	return o, err
}

// CleanPath gives a path from the top of every hierarchy without what leads
// nowhere, or says that there can be no group of ours there.
func CleanPath(path string) (string, error) {
	p := filepath.Clean("/" + path)
	if p == "/" || strings.ContainsAny(p, "\x00\n") || len(p) > 4000 {
		return "", fmt.Errorf("%q is not the path of a group", path)
	}
	return p, nil
}

func validName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 200 || strings.ContainsAny(name, "/\x00\n") {
		return fmt.Errorf("cgroup name %q is not one path component", name)
	}
	return nil
}

// CloneFD returns the directory for clone3's CLONE_INTO_CGROUP, nil where
// there is no unified hierarchy. It stays owned by the group. After this call
// Add and Enter leave the unified hierarchy alone.
func (g *Group) CloneFD() *os.File {
	if g.fd != nil {
		g.cloned = true
	}
	return g.fd
}

// Confined reports whether the device rules are in force. Where they are not,
// the app must not have CAP_MKNOD.
func (g *Group) Confined() bool { return g.confined }

// Add moves a process into the group's v1 hierarchies, and into the unified
// one if it was not born there. Each v1 write waits for every fork and exit
// on the host to pass (cgroup_threadgroup_rwsem): Enter before the clone is
// the cheap way.
func (g *Group) Add(pid int) error {
	for _, dir := range g.joined() {
		if err := writeFile(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("add process %d to cgroup %s: %w", pid, dir, err)
		}
	}
	return nil
}

// joined returns the directories a process has still to be put into after it
// was cloned.
func (g *Group) joined() []string {
	if g.v2 == "" || g.cloned {
		return g.v1
	}
	return append(slices.Clone(g.v1), g.v2)
}

// Enter moves the calling thread, which must be locked, into the group's v1
// hierarchies: what it clones before back is called is born there. It must not
// have changed its groups since Create.
func (g *Group) Enter() (back func() error, err error) { return enter(g.host, g.v1) }

// Dirs returns the group's directories as absolute paths: what Delete,
// KillAll and RemoveAll need, to be recorded before anything runs in it.
func (g *Group) Dirs() []string {
	dirs := slices.Clone(g.v1)
	if g.v2 != "" {
		dirs = append(dirs, g.v2)
	}
	return dirs
}

// Delete kills what is left in the group and removes it. It may be called on
// a half-built group and more than once.
func (g *Group) Delete() error {
	g.Close()
	dirs := g.Dirs()
	if err := KillAll(dirs); err != nil {
		return err
	}
	if err := RemoveAll(dirs); err != nil {
		return err
	}
	g.v1, g.v2 = nil, ""
	return nil
}

// Close closes the group's descriptor and leaves the group.
func (g *Group) Close() {
	if g.fd != nil {
		g.fd.Close()
		g.fd = nil
	}
}

// writeFile writes one value to one control file: a single write(2), as
// cgroup files want, and never creating anything.
func writeFile(dir, name, value string) error {
	w := writer{dir: dir, fd: -1}
	defer w.close()
	return w.write(name, value)
}

// writer keeps the file open that was written last: device rules are a dozen
// values for one.
type writer struct {
	dir, name string
	fd        int // -1: there is none
}

func (w *writer) write(name, value string) error {
	if w.fd < 0 || name != w.name {
		w.close()
		fd, err := unix.Open(filepath.Join(w.dir, name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: filepath.Join(w.dir, name), Err: err}
		}
		w.fd, w.name = fd, name
	}
	if _, err := unix.Write(w.fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write " + strconv.Quote(value), Path: filepath.Join(w.dir, name), Err: err}
	}
	return nil
}

func (w *writer) close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
		w.fd = -1
	}
}
