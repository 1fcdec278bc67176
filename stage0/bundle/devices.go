// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/hint"
)

// Hardware is what a user asks of the host's devices.
type Hardware struct {
	Devices     []string `json:"devices,omitempty"`     // --device: HOST[:PATH][:rwm], or VENDOR/CLASS=NAME of CDI
	DeviceRules []string `json:"deviceRules,omitempty"` // --device-cgroup-rule: TYPE MAJOR:MINOR rwm
	CDIDirs     []string `json:"cdiDirs,omitempty"`     // --cdi-spec-dir: instead of CDI's own
}

// Edits are what one device of CDI, or the specification it is from, adds.
type Edits struct {
	Env        []string
	Devices    []DeviceEdit
	NetDevices map[string]specs.LinuxNetDevice
	Mounts     []specs.Mount
	Hooks      []HookEdit
	GIDs       []uint32
}

// DeviceEdit is a device node; what it does not say is that of Host.
type DeviceEdit struct {
	Path, Host   string
	Type         string
	Major, Minor int64
	Mode         *uint32
	UID, GID     *uint32
	Access       string
}

// HookEdit is a hook and the stage it is for.
type HookEdit struct {
	Stage string
	Hook  specs.Hook
}

// device is --device taken apart.
type device struct {
	source, dest, access string
}

func parseDevice(s string) (device, error) {
	parts := strings.Split(s, ":")
	d := device{source: parts[0], dest: parts[0], access: "rwm"}
	rest := parts[1:]
	if len(rest) > 0 && strings.Trim(rest[len(rest)-1], "rwm") == "" && rest[len(rest)-1] != "" {
		d.access, rest = rest[len(rest)-1], rest[:len(rest)-1]
	}
	if len(rest) == 1 {
		d.dest, rest = rest[0], nil
	}
	if len(rest) > 0 || !path.IsAbs(d.source) || !path.IsAbs(d.dest) || path.Clean(d.dest) == "/" || clean("", s) != nil {
		return d, hint.With(
			fmt.Errorf("--device %q: write HOST[:PATH][:rwm], or VENDOR/CLASS=NAME", s),
			"as in /dev/fuse, /dev/sda:/dev/xvda:r or nvidia.com/gpu=all",
		)
	}
	d.source, d.dest = path.Clean(d.source), path.Clean(d.dest)
	return d, nil
}

// Sources are the paths of the host that device options name; those of CDI
// are left out.
func (h Hardware) Sources(isCDI func(string) bool) []string {
	var out []string
	for _, s := range h.Devices {
		if isCDI(s) {
			continue
		}
		if d, err := parseDevice(s); err == nil {
			out = append(out, d.source)
		}
	}
	return out
}

// devices gives the app nodes and the right to use them.
func (b *builder) devices() error {
	for _, s := range b.Options.Devices {
		if slices.Contains(b.Host.CDI, s) {
			continue
		}
		d, err := parseDevice(s)
		if err != nil {
			return err
		}
		nodes := b.Host.Devices[d.source]
		if len(nodes) == 0 {
			return fmt.Errorf("--device %q: %s is neither a device of this host nor a directory of some", s, d.source)
		}
		for _, n := range nodes {
			mode := os.FileMode(n.Mode)
			if host := path.Join(d.source, n.Path); b.Host.Own != nil && host != path.Join(d.dest, n.Path) {
				b.bindDevice(host, path.Join(d.dest, n.Path))
				b.deviceRule(n.Type, n.Major, n.Minor, d.access)
				continue
			}
			b.addDevice(specs.LinuxDevice{
				Path: path.Join(d.dest, n.Path), Type: n.Type, Major: n.Major, Minor: n.Minor,
				FileMode: &mode, UID: &n.UID, GID: &n.GID,
			}, d.access)
		}
	}
	for _, s := range b.Options.DeviceRules {
		rule, err := parseDeviceRule(s)
		if err != nil {
			return err
		}
		b.rule(rule)
		b.r.Strict["devices"] = true
	}
	return nil
}

// addDevice adds a node, or puts it in the place of one of the same path.
func (b *builder) addDevice(d specs.LinuxDevice, access string) {
	l := b.r.Spec.Linux
	l.Devices = append(slices.DeleteFunc(l.Devices, func(old specs.LinuxDevice) bool { return old.Path == d.Path }), d)
	b.deviceRule(d.Type, d.Major, d.Minor, access)
}

// bindDevice shows an ordinary user's app a node of the host under another
// name: a bundle says of a device only where the app has it, and a user namespace
// makes no nodes.
func (b *builder) bindDevice(host, dest string) {
	b.r.Spec.Mounts = append(b.r.Spec.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: host, Options: []string{"bind", "nosuid", "noexec", "rprivate"}})
}

// deviceRule lets the app use a device.
func (b *builder) deviceRule(kind string, major, minor int64, access string) {
	switch kind {
	case "p":
		return // a pipe is not a device that rules know
	case "u":
		kind = "c"
	}
	b.rule(specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access})
	// An ordinary user's app makes no nodes, and opens what the user can: only
	// a rule that takes something away is missed where there are none.
	if b.Host.Own == nil || !strings.Contains(access, "r") || !strings.Contains(access, "w") {
		b.r.Strict["devices"] = true
	}
}

func (b *builder) rule(r specs.LinuxDeviceCgroup) {
	b.r.Spec.Linux.Resources.Devices = append(b.r.Spec.Linux.Resources.Devices, r)
}

// parseDeviceRule reads "TYPE MAJOR:MINOR ACCESS", as the kernel's devices.allow.
func parseDeviceRule(s string) (specs.LinuxDeviceCgroup, error) {
	f := strings.Fields(s)
	bad := fmt.Errorf("--device-cgroup-rule %q: write TYPE MAJOR:MINOR ACCESS, as in 'c 189:* rwm'", s)
	if len(f) != 3 || !slices.Contains([]string{"a", "b", "c"}, f[0]) || strings.Trim(f[2], "rwm") != "" {
		return specs.LinuxDeviceCgroup{}, bad
	}
	r := specs.LinuxDeviceCgroup{Allow: true, Type: f[0], Access: f[2]}
	major, minor, ok := strings.Cut(f[1], ":")
	if !ok {
		return r, bad
	}
	for text, to := range map[*string]**int64{&major: &r.Major, &minor: &r.Minor} {
		if *text == "*" {
			continue
		}
		n, err := strconv.ParseUint(*text, 10, 31)
		if err != nil {
			return r, bad
		}
		v := int64(n)
		*to = &v
	}
	return r, nil
}

// edits applies what devices of CDI add, after all that the user asked for.
func (b *builder) edits() error {
	for _, e := range b.Host.Edits {
		b.r.Spec.Process.Env = withEnv(b.r.Spec.Process.Env, e.Env)
		for _, d := range e.Devices {
			if err := b.editDevice(d); err != nil {
				return err
			}
		}
		if b.host && len(e.NetDevices) > 0 {
			return fmt.Errorf("--device: its specification moves network interfaces, and --net=host has them all")
		}
		for host, d := range e.NetDevices {
			if b.r.Spec.Linux.NetDevices == nil {
				b.r.Spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{}
			}
			b.r.Spec.Linux.NetDevices[host] = d
		}
		for _, m := range e.Mounts {
			dest, err := destination(m.Destination)
			if err != nil {
				return fmt.Errorf("--device: its specification mounts: %w", err)
			}
			m.Destination = dest
			b.r.Spec.Mounts = append(slices.DeleteFunc(b.r.Spec.Mounts, func(old specs.Mount) bool { return old.Destination == dest }), m)
			if m.Type == "bind" {
				b.r.Binds = append(b.r.Binds, m.Source)
			}
		}
		for _, h := range e.Hooks {
			b.r.Spec.Hooks = AddHook(b.r.Spec.Hooks, h)
		}
		for _, g := range e.GIDs {
			if u := &b.r.Spec.Process.User; g != 0 && !slices.Contains(u.AdditionalGids, g) {
				u.AdditionalGids = append(u.AdditionalGids, g)
			}
		}
	}
	byDepth(b.r.Spec.Mounts)
	return nil
}

// editDevice adds a node: what the specification does not say is the host's,
// and belongs to the app's user.
func (b *builder) editDevice(e DeviceEdit) error {
	d := specs.LinuxDevice{Path: e.Path, Type: e.Type, Major: e.Major, Minor: e.Minor, UID: e.UID, GID: e.GID}
	if e.Type == "" || e.Type != "p" && e.Major == 0 && e.Minor == 0 {
		nodes := b.Host.Devices[e.Host]
		if len(nodes) != 1 || nodes[0].Path != "" {
			return fmt.Errorf("--device: its specification wants %s, which is no device of this host", e.Host)
		}
		n := nodes[0]
		if e.Type != "" && e.Type != n.Type && (e.Type != "u" || n.Type != "c") {
			return fmt.Errorf("--device: its specification has %s of type %s, which is of type %s on this host", e.Host, e.Type, n.Type)
		}
		d.Type, d.Major, d.Minor = n.Type, n.Major, n.Minor
	}
	if e.Mode != nil {
		mode := os.FileMode(*e.Mode)
		d.FileMode = &mode
	}
	u := b.r.Spec.Process.User
	if d.UID == nil && u.UID != 0 {
		d.UID = &u.UID
	}
	if d.GID == nil && u.GID != 0 {
		d.GID = &u.GID
	}
	b.addDevice(d, e.Access)
	return nil
}

func withEnv(env, more []string) []string {
	for _, kv := range more {
		name, _, _ := strings.Cut(kv, "=")
		env = append(slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") }), kv)
	}
	return env
}

// AddHook appends a hook to those of its stage.
func AddHook(hooks *specs.Hooks, h HookEdit) *specs.Hooks {
	if hooks == nil {
		hooks = &specs.Hooks{}
	}
	to := map[string]*[]specs.Hook{
		//nolint:staticcheck // deprecated, but specifications have it
		"prestart": &hooks.Prestart, "createRuntime": &hooks.CreateRuntime, "createContainer": &hooks.CreateContainer,
		"startContainer": &hooks.StartContainer, "poststart": &hooks.Poststart, "poststop": &hooks.Poststop,
	}[h.Stage]
	*to = append(*to, h.Hook)
	return hooks
}
