// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/seccomp"
	"github.com/gantryrun/gantry/stage1"
)

// devices are those every container has, then those of the bundle, and the
// usual links. A bind mount on /dev brings its own.
func (p *planner) devices() error {
	for _, m := range p.spec.Mounts {
		if path.Clean(m.Destination) == "/dev" && (m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")) {
			return nil
		}
	}
	for _, d := range defaultDevices() {
		if !p.replaces(d.Path) {
			p.add(stage1.Step{Device: &d})
		}
	}
	for i, d := range p.linux.Devices {
		device, err := bundleDevice(d)
		if err != nil {
			return fmt.Errorf("linux.devices[%d] (%s): %w", i, d.Path, err)
		}
		p.add(stage1.Step{Device: &device})
	}
	for _, link := range [][2]string{
		{"/dev/ptmx", "pts/ptmx"},
		{"/dev/fd", "/proc/self/fd"},
		{"/dev/stdin", "/proc/self/fd/0"},
		{"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"},
		{"/dev/core", "/proc/kcore"},
	} {
		p.add(stage1.Step{Symlink: &stage1.Symlink{Path: link[0], Target: link[1]}})
	}
	return nil
}

// replaces tells whether the bundle has its own device or mount at a path.
func (p *planner) replaces(name string) bool {
	for _, d := range p.linux.Devices {
		if path.Clean(d.Path) == name {
			return true
		}
	}
	for _, m := range p.spec.Mounts {
		if path.Clean(m.Destination) == name {
			return true
		}
	}
	return false
}

func defaultDevices() []stage1.Device {
	char := func(name string, major, minor uint32) stage1.Device {
		return stage1.Device{Path: "/dev/" + name, Type: "c", Major: major, Minor: minor, Mode: 0o666}
	}
	return []stage1.Device{
		char("null", 1, 3), char("zero", 1, 5), char("full", 1, 7),
		char("random", 1, 8), char("urandom", 1, 9), char("tty", 5, 0),
	}
}

func bundleDevice(d specs.LinuxDevice) (stage1.Device, error) {
	if !slices.Contains([]string{"c", "u", "b", "p"}, d.Type) {
		return stage1.Device{}, fmt.Errorf("type %q is not one of c, u, b, p", d.Type)
	}
	if d.Major < 0 || d.Minor < 0 || d.Major >= 1<<12 || d.Minor >= 1<<20 {
		return stage1.Device{}, fmt.Errorf("number %d:%d is out of range", d.Major, d.Minor)
	}
	out := stage1.Device{Path: path.Clean(d.Path), Type: d.Type, Major: uint32(d.Major), Minor: uint32(d.Minor), Mode: 0o666}
	if d.FileMode != nil {
		out.Mode = uint32(*d.FileMode & 0o7777)
	}
	if d.UID != nil {
		out.UID = *d.UID
	}
	if d.GID != nil {
		out.GID = *d.GID
	}
	return out, nil
}

// sysctls takes what belongs to a namespace of the app's own and refuses the
// rest: it would change the host.
func (p *planner) sysctls() error {
	for _, key := range slices.Sorted(maps.Keys(p.linux.Sysctl)) {
		value := p.linux.Sysctl[key]
		kind, ok := sysctlNamespace(key)
		if !ok {
			return fmt.Errorf("linux.sysctl[%s]: not a setting of a namespace", key)
		}
		if !owns(p.spec, kind) {
			return fmt.Errorf("linux.sysctl[%s]: needs a %s namespace of its own", key, kind)
		}
		if strings.ContainsAny(value, "\x00\n\r") || !plainPath(SysctlFile(key)) {
			return fmt.Errorf("linux.sysctl[%q]: not a name, or a control character in the value", key)
		}
		p.add(stage1.Step{Sysctl: &stage1.Sysctl{Key: SysctlFile(key), Value: value}})
	}
	return nil
}

// plainPath refuses what leads out of the directory a name begins with, which
// is what decided its namespace; "net.//.kernel" becomes one with "..".
func plainPath(name string) bool {
	return path.Clean("/"+name) == "/"+name && !strings.ContainsFunc(name, unicode.IsControl)
}

// SysctlFile is the file of a setting below /proc/sys. It turns dots to slashes as sysctl(8) does: names that contain a
// dot are written with slashes.
func SysctlFile(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

func sysctlNamespace(key string) (specs.LinuxNamespaceType, bool) {
	key = strings.ReplaceAll(SysctlFile(key), "/", ".")
	switch {
	case strings.HasPrefix(key, "net."):
		return specs.NetworkNamespace, true
	case strings.HasPrefix(key, "fs.mqueue."):
		return specs.IPCNamespace, true
	case key == "kernel.domainname" || key == "kernel.hostname":
		return specs.UTSNamespace, true
	}
	ipc := []string{
		"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
		"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
	}
	return specs.IPCNamespace, slices.Contains(ipc, key)
}

// process ends every plan, of a launch and of an exec: what the app is
// allowed, and the app.
func (p *planner) process() error {
	proc := p.spec.Process
	if err := p.limits(proc); err != nil {
		return err
	}
	if err := p.labels(proc); err != nil {
		return err
	}
	p.add(stage1.Step{Cwd: &stage1.Cwd{Path: path.Clean(proc.Cwd)}})
	if p.o.Hold {
		// Before a filter, which need not allow it.
		fd := -1
		if !p.o.Attended {
			fd = p.source(stage1.Source{Kind: stage1.SourceStart, For: "start"})
		}
		p.add(stage1.Step{Hold: &stage1.Hold{FD: fd, Command: proc.Args[0], Env: proc.Env}})
	}
	if err := p.privileges(proc); err != nil {
		return err
	}
	p.add(stage1.Step{Exec: &stage1.Exec{Args: proc.Args, Env: proc.Env, Init: p.o.Init, Apart: p.apart}})
	return nil
}

func (p *planner) limits(proc *specs.Process) error {
	if d := p.linux.Personality; d != nil {
		domain, err := personality(d)
		if err != nil {
			return err
		}
		p.add(stage1.Step{Persona: &stage1.Persona{Domain: domain}})
	}
	for i, r := range proc.Rlimits {
		number, ok := rlimitNumber(r.Type)
		if !ok {
			return fmt.Errorf("process.rlimits[%d].type: unknown limit %q", i, r.Type)
		}
		p.add(stage1.Step{Rlimit: &stage1.Rlimit{Name: r.Type, Type: number, Soft: r.Soft, Hard: r.Hard}})
	}
	if proc.OOMScoreAdj != nil {
		p.add(stage1.Step{OOMScore: &stage1.OOMScore{Adj: *proc.OOMScoreAdj}})
	}
	if err := p.attributes(proc); err != nil {
		return err
	}
	mask := uint32(0o022)
	if proc.User.Umask != nil {
		mask = *proc.User.Umask
	}
	p.add(stage1.Step{Umask: &stage1.Umask{Mask: mask}})
	return nil
}

func (p *planner) labels(proc *specs.Process) error {
	if proc.ApparmorProfile != "" && proc.SelinuxLabel != "" {
		return fmt.Errorf("process: apparmorProfile and selinuxLabel exclude each other")
	}
	if proc.ApparmorProfile != "" {
		p.add(stage1.Step{Label: &stage1.Label{Module: "apparmor", Label: proc.ApparmorProfile}})
	}
	if proc.SelinuxLabel != "" {
		p.add(stage1.Step{Label: &stage1.Label{Module: "selinux", Label: proc.SelinuxLabel}})
	}
	return nil
}

// privileges: with no_new_privs the filter comes last, so that it need not
// allow what the steps before it do; without, loading it takes the
// capability that they give up.
func (p *planner) privileges(proc *specs.Process) error {
	caps := proc.Capabilities
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	sets := [5]uint64{}
	for i, names := range [][]string{caps.Bounding, caps.Effective, caps.Permitted, caps.Inheritable, caps.Ambient} {
		set, err := capSet(names)
		if err != nil {
			return fmt.Errorf("process.capabilities: %w", err)
		}
		sets[i] = set
	}
	filter, err := seccompStep(p.linux.Seccomp)
	if err != nil {
		return err
	}
	p.add(stage1.Step{Bounding: &stage1.Bounding{Set: sets[0]}})
	if p.enter != nil { // before the filter, which denies setns
		p.add(*p.enter)
	}
	if filter != nil && !proc.NoNewPrivileges {
		p.add(*filter)
	}
	u := proc.User
	p.add(stage1.Step{User: &stage1.User{UID: u.UID, GID: u.GID, Groups: u.AdditionalGids}})
	// The kernel raises nothing into the ambient set that is not permitted and
	// inheritable; like other runtimes we leave it out.
	ambient := sets[4] & sets[2] & sets[3]
	p.add(stage1.Step{Caps: &stage1.Caps{Effective: sets[1], Permitted: sets[2], Inheritable: sets[3], Ambient: ambient}})
	if proc.NoNewPrivileges {
		p.add(stage1.Step{NoNewPrivs: &stage1.NoNewPrivs{}})
	}
	return p.last(filter, proc.NoNewPrivileges)
}

// last is what the process that becomes the app has to do itself.
func (p *planner) last(filter *stage1.Step, noNewPrivileges bool) error {
	death := &stage1.DeathSig{Signal: int(unix.SIGKILL)}
	if p.o.Outlive {
		death = nil
	}
	if filter != nil && !noNewPrivileges {
		filter = nil // loaded already
	}
	switch {
	case p.apart != nil:
		p.apart.DeathSig = death
		if filter != nil {
			p.apart.Seccomp = filter.Seccomp
		}
		return nil
	case death != nil:
		p.add(stage1.Step{DeathSig: death})
	}
	if filter != nil && filter.Seccomp.Listen {
		// There is one listener, so hooks have the app's filter, not its like.
		p.add(*filter)
		filter = nil
	}
	if err := p.startHooks(filter); err != nil {
		return err
	}
	if filter != nil {
		p.add(*filter)
	}
	return nil
}

func seccompStep(s *specs.LinuxSeccomp) (*stage1.Step, error) {
	if s == nil {
		return nil, nil
	}
	if err := seccomp.Validate(s); err != nil {
		return nil, fmt.Errorf("linux.%w", err)
	}
	return &stage1.Step{Seccomp: &stage1.Seccomp{Flags: seccomp.Flags(s), Listen: seccomp.Notifies(s)}}, nil
}

func personality(d *specs.LinuxPersonality) (uint64, error) {
	if len(d.Flags) > 0 {
		return 0, fmt.Errorf("linux.personality.flags: %q is none, the specification has no flags", d.Flags[0])
	}
	switch d.Domain {
	case specs.PerLinux:
		return 0, nil
	case specs.PerLinux32:
		return 8, nil
	}
	return 0, fmt.Errorf("linux.personality.domain: unknown domain %q", d.Domain)
}
