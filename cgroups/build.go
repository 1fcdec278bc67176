// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// builder makes one group. What could not be had is collected, so that it is
// told once.
type builder struct {
	host   *host
	name   string
	path   string // from the top of every hierarchy; empty: name below our own group
	made   bool   // somebody made the group of path and is in it
	strict map[string]bool
	note   func(string)
	group  *Group

	noDevices bool // there is nothing to rule

	enabled []string // v2 controllers our group has
	noV2    string   // why it lacks the others
	mendV2  string
	missing []*LimitError
}

// accounted are the controllers an app gets whether or not it is limited:
// without them there is no memory figure, and an OOM kill by a limit further
// up has no name.
var accounted = [...]string{"memory", "pids"}

// makeUnified makes our directory in the unified hierarchy with the
// controllers the limits need. That it cannot is no error yet: perhaps
// nothing needs it.
func (b *builder) makeUnified(limits []limit) error {
	h := b.host
	if h.v2 == nil {
		b.noV2 = "this host has no unified cgroup hierarchy"
		return nil
	}
	p, name := place(h), b.name
	if b.path != "" {
		p, name = placement{base: filepath.Dir(filepath.Clean("/" + b.path)), enable: true}, filepath.Base(b.path)
	}
	b.noV2, b.mendV2 = p.reason, p.mend
	want := b.wanted(limits)
	if p.enable && len(want) > 0 {
		if err := b.prepareBase(p, want); err != nil {
			b.noV2, b.mendV2 = reasonOf(err, h.v2.dir())
			p = placement{base: p.base}
		}
	}
	dir := filepath.Join(h.v2.mount, p.base, name)
	if err := b.mkdir(filepath.Join(h.v2.mount, p.base), name); err != nil {
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("create cgroup: %w", err)
		}
		b.noV2, b.mendV2 = reasonOf(err, dir)
		return nil
	}
	fd, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open cgroup: %w", errors.Join(err, os.Remove(dir)))
	}
	b.group.v2, b.group.fd = dir, fd
	b.enabled, err = readWords(filepath.Join(dir, "cgroup.controllers"))
	return err
}

// wanted returns the v2 controllers to enable: those of the limits and of the
// accounting that are not mounted as v1.
func (b *builder) wanted(limits []limit) []string {
	var out []string
	add := func(name string) {
		if _, v1 := b.host.v1[name]; v1 || name == "" {
			return
		}
		if name = controllerV2(name); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, l := range limits {
		add(l.controller)
	}
	for _, name := range accounted {
		add(name)
	}
	return out
}

// prepareBase makes the base group, empties our own where it becomes an inner
// node, and enables those of the controllers that are there.
func (b *builder) prepareBase(p placement, want []string) error {
	mount, top := b.host.v2.mount, p.base
	if p.base == "/"+sharedTop || b.path != "" {
		top = "/"
	}
	have, err := readWords(filepath.Join(mount, top, "cgroup.controllers"))
	if err != nil {
		return err
	}
	want = slices.DeleteFunc(want, func(c string) bool { return !slices.Contains(have, c) })
	if len(want) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(mount, p.base), 0o755); err != nil {
		return err
	}
	if p.leaf != "" {
		if err := vacate(filepath.Join(mount, p.base), filepath.Join(mount, p.leaf)); err != nil {
			return err
		}
	}
	if err := enable(mount, top, p.base, want); err == nil {
		return nil
	}
	// One controller that refuses (cpu, while real-time processes run) must
	// not cost the others.
	for _, c := range want {
		err = errors.Join(err, enable(mount, top, p.base, []string{c}))
	}
	if err != nil {
		b.noV2, b.mendV2 = reasonOf(err, filepath.Join(mount, p.base))
	}
	return nil
}

// mkdir makes base/name. A group that others named may be there already; one
// with somebody in it is not ours to limit.
func (b *builder) mkdir(base, name string) error {
	if b.path == "" {
		return mkdirGroup(base, name)
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	err := mkdirGroup(base, name)
	if b.made && errors.Is(err, os.ErrExist) {
		return nil
	}
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	pids, rerr := readPids(filepath.Join(base, name, "cgroup.procs"))
	if rerr != nil || len(pids) > 0 {
		return errors.Join(err, rerr)
	}
	return nil
}

// mkdirGroup makes base/name. The shared base is removed by whoever empties
// it, perhaps right now, hence the second chances.
func mkdirGroup(base, name string) error {
	var err error
	for range 10 {
		err = os.Mkdir(filepath.Join(base, name), 0o755)
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Mkdir(base, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return err
}

// apply sets every limit where its controller lives.
func (b *builder) apply(limits []limit) error {
	for _, l := range limits {
		err := b.applyOne(l)
		if err == nil {
			continue
		}
		var le *LimitError
		if !errors.As(err, &le) {
			return err
		}
		if l.strict(b.strict) {
			return le
		}
		b.missing = append(b.missing, le)
	}
	return nil
}

func (b *builder) applyOne(l limit) error {
	if _, ok := b.host.v1[l.controller]; ok && l.name != "unified" {
		return b.applyV1(l)
	}
	settings, err := toV2(l)
	if err != nil {
		return &LimitError{Limit: l.name, Reason: err.Error(), Mend: fmt.Sprintf("leave it out, or mount the %s hierarchy of cgroup v1", l.controller)}
	}
	if b.group.v2 == "" || l.controller != "" && !slices.Contains(b.enabled, controllerV2(l.controller)) {
		return b.absent(l)
	}
	if err := writeSettings(b.group.v2, settings); err != nil {
		return b.refusedV2(l, err)
	}
	return b.partition(l)
}

// writeSettings writes one after the other, each where it is found first.
func writeSettings(dir string, settings []setting) error {
	w := writer{dir: dir, fd: -1}
	defer w.close()
	for _, s := range settings {
		err := w.write(s.file, s.value)
		for or := s.or; errors.Is(err, os.ErrNotExist) && or != nil; or = or.or {
			err = w.write(or.file, or.value)
		}
		if err != nil && !(s.optional && errors.Is(err, os.ErrNotExist)) {
			return err
		}
	}
	return nil
}

// notThere explains why the kernel refused processors or memory nodes, and is nil
// for anything else.
func notThere(l limit, err error) *LimitError {
	of := map[string][2]string{"cpuset-cpus": {"processors", "cpu"}, "cpuset-mems": {"memory nodes", "node"}}[l.name]
	// A list that could not even be opened is another matter.
	var opened *os.PathError
	if of[0] == "" || !errors.As(err, &opened) || opened.Op == "open" {
		return nil
	}
	if !errors.Is(err, unix.ERANGE) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EACCES) {
		return nil
	}
	there, rerr := os.ReadFile("/sys/devices/system/" + of[1] + "/online")
	if rerr != nil {
		return nil
	}
	online := strings.TrimSpace(string(there))
	return &LimitError{
		Limit: l.name, Reason: fmt.Sprintf("not all of the %s %s are there, or allowed to the group above", of[0], l.res.CPU.Cpus+l.res.CPU.Mems),
		Mend: fmt.Sprintf("this machine has %s %s", of[0], online),
	}
}

func (b *builder) refusedV2(l limit, err error) error {
	if e := notThere(l, err); e != nil {
		return e
	}
	e := &LimitError{Limit: l.name, Reason: "the kernel refused it", Err: err}
	if !errors.Is(err, os.ErrNotExist) {
		return e
	}
	switch l.name {
	case "memory-swap":
		e.Reason, e.Mend, e.Err = "this kernel does not count swap", "give no swap limit", nil
	case "hugetlb":
		e.Reason, e.Mend = noPageSize(b.group.v2, ".max", l)
		e.Err = nil
	}
	return e
}

// noPageSize says which sizes of pages there are instead.
func noPageSize(dir, suffix string, l limit) (reason, mend string) {
	sizes := hugePrefixes(dir, suffix)
	for i := range sizes {
		sizes[i] = strings.TrimPrefix(sizes[i], "hugetlb.")
	}
	reason = fmt.Sprintf("this machine has no pages of %s", l.res.HugepageLimits[0].Pagesize)
	if len(sizes) > 0 {
		mend = "use one of " + strings.Join(sizes, ", ")
	}
	return reason, mend
}

// partition reads back what the kernel made of a cpuset partition: it takes the
// word and says in the same file that it cannot be.
func (b *builder) partition(l limit) error {
	const file = "cpuset.cpus.partition"
	if _, ok := l.res.Unified[file]; !ok {
		return nil
	}
	words, err := readWords(filepath.Join(b.group.v2, file))
	if err == nil && slices.Contains(words, "invalid") {
		err = errors.New(strings.Join(words, " "))
	}
	if err != nil {
		return &LimitError{Limit: l.name, Reason: "the kernel cannot make this partition", Err: err}
	}
	return nil
}

// absent says why a limit's controller is not there.
func (b *builder) absent(l limit) error {
	e := &LimitError{Limit: l.name, Reason: b.noV2, Mend: b.mendV2}
	if e.Reason == "" {
		e.Reason = fmt.Sprintf("the kernel offers no %s controller here", controllerV2(l.controller))
		e.Mend = fmt.Sprintf("see whether %s is in /proc/cgroups and not disabled on the kernel's command line (cgroup_enable=%s)", l.controller, l.controller)
	}
	if l.name == "unified" {
		if _, ok := b.host.v1[l.controller]; ok {
			e.Reason, e.Mend = fmt.Sprintf("the %s controller is on cgroup v1 here, which has other files", l.controller), "use the option of that limit instead"
		}
	}
	return e
}

// confine puts the device rules in force: the v1 devices controller where it
// is mounted, an eBPF program on the unified group elsewhere.
func (b *builder) confine(bundle []specs.LinuxDeviceCgroup) error {
	rules, err := deviceRules(bundle)
	if err != nil {
		return err
	}
	if _, ok := b.host.v1["devices"]; ok {
		err = b.applyV1(limit{"devices", "devices", specs.LinuxResources{Devices: rules}})
	} else if b.group.v2 != "" {
		if err = attachDeviceFilter(b.group.fd, rules); err != nil {
			err = &LimitError{Limit: "devices", Reason: "the kernel takes no device program", Err: err}
		}
	} else {
		err = b.absent(limit{name: "devices", controller: "devices"})
	}
	var le *LimitError
	switch {
	case err == nil:
		b.group.confined = true
	case !errors.As(err, &le):
		return err
	case b.strict["devices"]:
		return le
	case b.noDevices:
	default:
		b.missing = append(b.missing, le)
	}
	return nil
}

// tell notes all missing defaults in one sentence per reason.
func (b *builder) tell() {
	if b.note == nil {
		return
	}
	var reasons []string
	names, mends := map[string][]string{}, map[string]string{}
	for _, e := range b.missing {
		if names[e.Reason] == nil {
			reasons = append(reasons, e.Reason)
		}
		names[e.Reason] = append(names[e.Reason], e.Limit)
		mends[e.Reason] = e.Mend
	}
	for _, reason := range reasons {
		s := fmt.Sprintf("running without the default limit on %s: %s", strings.Join(names[reason], ", "), reason)
		if mends[reason] != "" {
			s += "; " + mends[reason]
		}
		b.note(s)
	}
}

// reasonOf explains the error numbers of a cgroup file system that cannot be
// written.
func reasonOf(err error, dir string) (reason, mend string) {
	switch {
	case errors.Is(err, errReadOnly):
		return fmt.Sprintf("%s is mounted read-only", dir), "mount the cgroup file system writable, or ask for no limits"
	case errors.Is(err, os.ErrPermission):
		return fmt.Sprintf("%s may not be written by this user", dir), "run as root, or have the group delegated"
	}
	return err.Error(), ""
}
