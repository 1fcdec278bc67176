// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mounts lists every mount in the order it is made: the defaults, the pod's
// files, then what image and user ask for, parents before children. A later
// one replaces an earlier one of the same destination: defaults, the image's
// volumes, the user's.
func (b *builder) mounts() error {
	mounts, err := b.defaultMounts()
	if err != nil {
		return err
	}
	user, err := b.userMounts()
	if err != nil {
		return err
	}
	image, err := b.imageVolumes(user)
	if err != nil {
		return err
	}
	extra := append(image, user...)
	for _, m := range extra {
		mounts = slices.DeleteFunc(mounts, func(d specs.Mount) bool { return d.Destination == m.Destination })
	}
	slices.SortStableFunc(extra, func(x, y specs.Mount) int {
		return strings.Count(path.Clean(x.Destination), "/") - strings.Count(path.Clean(y.Destination), "/")
	})
	b.r.Spec.Mounts = append(mounts, extra...)
	return nil
}

// defaultMounts are those of the runtime specification and of podman.
func (b *builder) defaultMounts() ([]specs.Mount, error) {
	shm := int64(64 << 20)
	if s := b.Options.ShmSize; s != "" {
		var err error
		if shm, err = ParseSize(s); err != nil || shm <= 0 {
			return nil, sizeError("--shm-size", s, err)
		}
	}
	m := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10)}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
	m = b.ipcMounts(m)
	for _, f := range b.podFiles() {
		m = append(m, specs.Mount{Destination: "/etc/" + f, Type: "bind", Source: path.Join(b.Pod.Dir, f), Options: b.owned([]string{"bind", "nosuid", "nodev", "noexec", "rprivate"})})
	}
	if b.Options.ReadOnly && !b.Options.NoReadOnlyTmp {
		for _, d := range []string{"/run", "/tmp", "/var/tmp"} {
			m = append(m, specs.Mount{Destination: d, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "tmpcopyup"}})
		}
	}
	return m, nil
}

// userMounts are --volume, --mount and --tmpfs, each destination once.
func (b *builder) userMounts() ([]specs.Mount, error) {
	var out []specs.Mount
	seen := map[string]string{}
	add := func(flag, value string, parse func(string) (specs.Mount, error)) error {
		m, err := parse(value)
		if err != nil {
			return fmt.Errorf("%s %q: %w", flag, value, err)
		}
		if prev, dup := seen[m.Destination]; dup {
			return fmt.Errorf("%s %q: %s is mounted twice, see %s", flag, value, m.Destination, prev)
		}
		seen[m.Destination] = fmt.Sprintf("%s %q", flag, value)
		out = append(out, m)
		return nil
	}
	for _, v := range b.Options.Volumes {
		if err := add("--volume", v, b.parseVolume); err != nil {
			return nil, err
		}
	}
	for _, v := range b.Options.Mounts {
		if err := add("--mount", v, b.parseMount); err != nil {
			return nil, err
		}
	}
	for _, v := range b.Options.Tmpfs {
		if err := add("--tmpfs", v, parseTmpfs); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// parseVolume reads [SOURCE:]DEST[:OPTIONS]. A source that begins with "/" or
// "." is a host path; DEST alone is a fresh directory of the pod.
func (b *builder) parseVolume(s string) (specs.Mount, error) {
	parts := strings.Split(s, ":")
	switch {
	case len(parts) > 3 || slices.Contains(parts, ""):
		return specs.Mount{}, fmt.Errorf("write SOURCE:DEST[:OPTIONS]")
	case len(parts) == 1:
		return b.freshVolume(s)
	}
	var options []string
	if len(parts) == 3 {
		options = strings.Split(parts[2], ",")
	}
	return b.bind(parts[0], parts[1], options)
}

// freshVolume is a directory of the pod, gone with it, that begins with what
// the image has there.
func (b *builder) freshVolume(dest string) (specs.Mount, error) {
	dest, err := destination(dest)
	if err != nil {
		return specs.Mount{}, err
	}
	v := Volume{Dir: "volumes/" + strconv.Itoa(len(b.r.Volumes)), Dest: dest}
	b.r.Volumes = append(b.r.Volumes, v)
	return specs.Mount{Destination: dest, Type: "bind", Source: path.Join(b.Pod.Dir, v.Dir), Options: b.owned([]string{"rbind", "nosuid", "nodev", "rprivate", "copyup"})}, nil
}

// bind makes a bind mount as podman does: recursive, private, without devices
// and setuid unless asked for.
func (b *builder) bind(source, dest string, options []string) (specs.Mount, error) {
	if err := clean("source", source); err != nil {
		return specs.Mount{}, err
	}
	switch {
	case path.IsAbs(source):
	case source == "." || source == ".." || strings.HasPrefix(source, "./") || strings.HasPrefix(source, "../"):
		source = path.Join(b.Host.Dir, source)
	default:
		return specs.Mount{}, fmt.Errorf("%q is not a path: named volumes are not supported, begin a path with / or ./", source)
	}
	dest, err := destination(dest)
	if err != nil {
		return specs.Mount{}, err
	}
	o, err := b.bindOptions(options)
	if err != nil {
		return specs.Mount{}, err
	}
	source = path.Clean(source)
	b.r.Binds = append(b.r.Binds, source)
	return specs.Mount{Destination: dest, Type: "bind", Source: source, Options: o}, nil
}

// destination checks where in the pod a mount goes. Nothing may cover / or
// anything of /proc: what confines the app is written through it
// (CVE-2019-16884).
func destination(dest string) (string, error) {
	if !path.IsAbs(dest) {
		return "", fmt.Errorf("destination %q: it must be an absolute path", dest)
	}
	if err := clean("destination", dest); err != nil {
		return "", err
	}
	dest = path.Clean(dest)
	if dest == "/" || dest == "/proc" || strings.HasPrefix(dest, "/proc/") {
		return "", fmt.Errorf("destination %q: nothing can be mounted there", dest)
	}
	return dest, nil
}

// group is a set of options of which one holds.
type group struct {
	words []string
	def   string // used when none was given; "" is none
}

func bindGroups() []group {
	return []group{
		{[]string{"rbind", "bind"}, "rbind"},
		{[]string{"ro", "rw", "rro"}, ""},
		{[]string{"nosuid", "suid"}, "nosuid"},
		{[]string{"nodev", "dev"}, "nodev"},
		{[]string{"noexec", "exec"}, ""},
		{[]string{"noatime", "relatime", "strictatime"}, ""},
		{[]string{"rprivate", "private", "rshared", "shared", "rslave", "slave", "runbindable", "unbindable"}, "rprivate"},
	}
}

func (b *builder) bindOptions(options []string) ([]string, error) {
	var plain []string
	for _, o := range options {
		switch o {
		case "z", "Z":
			if b.Host.SELinux {
				return nil, fmt.Errorf("option %q: relabelling for SELinux is not supported: label the files with chcon", o)
			}
		case "U", "O", "idmap":
			return nil, fmt.Errorf("option %q is not supported", o)
		case "copy", "nocopy":
			return nil, fmt.Errorf("option %q is for named volumes, which are not supported", o)
		default:
			plain = append(plain, o)
		}
	}
	return settle(plain, bindGroups())
}

// settle picks one word of each group, in the groups' order.
func settle(options []string, groups []group) ([]string, error) {
	chosen := make([]string, len(groups))
	for _, o := range options {
		i := slices.IndexFunc(groups, func(g group) bool { return slices.Contains(g.words, o) })
		if i < 0 {
			return nil, fmt.Errorf("option %q: there is none of that name", o)
		}
		if chosen[i] != "" && chosen[i] != o {
			return nil, fmt.Errorf("options %q and %q contradict each other", chosen[i], o)
		}
		chosen[i] = o
	}
	var out []string
	for i, g := range groups {
		// "rw", "suid", "dev" and "exec" are what a mount is without options.
		switch o := first(chosen[i], g.def); o {
		case "", "rw", "suid", "dev", "exec":
		default:
			out = append(out, o)
		}
	}
	return out, nil
}

// parseTmpfs reads --tmpfs DEST[:OPTIONS].
func parseTmpfs(s string) (specs.Mount, error) {
	dest, options, _ := strings.Cut(s, ":")
	var list []string
	if options != "" {
		list = strings.Split(options, ",")
	}
	return tmpfs(dest, list, []string{"noexec"})
}

func tmpfs(dest string, options, defaults []string) (specs.Mount, error) {
	dest, err := destination(dest)
	if err != nil {
		return specs.Mount{}, err
	}
	var plain []string
	size, mode, copyUp := "", "", true
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "size":
			if size, err = tmpfsSize(value); err != nil {
				return specs.Mount{}, err
			}
		case "mode":
			if n, err := strconv.ParseUint(value, 8, 12); err != nil || n > 0o7777 {
				return specs.Mount{}, fmt.Errorf("mode %q: write it in octal, as in 1777", value)
			}
			mode = value
		case "tmpcopyup":
			copyUp = true
		case "notmpcopyup":
			copyUp = false
		default:
			plain = append(plain, o)
		}
	}
	out, err := settle(plain, []group{
		{[]string{"nosuid", "suid"}, "nosuid"},
		{[]string{"nodev", "dev"}, "nodev"},
		{[]string{"noexec", "exec"}, first(defaults...)},
		{[]string{"noatime", "relatime", "strictatime"}, ""},
		{[]string{"ro", "rw"}, ""},
	})
	if err != nil {
		return specs.Mount{}, err
	}
	if mode != "" { // else that of the image's directory, or 1777
		out = append(out, "mode="+mode)
	}
	if size != "" {
		out = append(out, "size="+size)
	}
	if copyUp {
		out = append(out, "tmpcopyup")
	}
	return specs.Mount{Destination: dest, Type: "tmpfs", Source: "tmpfs", Options: out}, nil
}

func tmpfsSize(s string) (string, error) {
	if p, ok := strings.CutSuffix(s, "%"); ok {
		if n, err := strconv.ParseUint(p, 10, 8); err != nil || n == 0 || n > 100 {
			return "", fmt.Errorf("size %q: between 1%% and 100%% are allowed", s)
		}
		return s, nil
	}
	n, err := ParseSize(s)
	if err != nil || n <= 0 {
		return "", sizeError("size", s, err)
	}
	return strconv.FormatInt(n, 10), nil
}

// imageVolumes gives each VOLUME of the image that the user mounts nothing
// over a fresh directory of the pod, as podman and Docker do; the path is the
// image's word and goes through the same checks (CVE-2019-16884).
func (b *builder) imageVolumes(user []specs.Mount) ([]specs.Mount, error) {
	mode := first(b.Options.ImageVolume, "anonymous")
	if mode == "bind" {
		mode = "anonymous" // podman's older word
	}
	if mode != "anonymous" && mode != "tmpfs" && mode != "ignore" {
		return nil, fmt.Errorf("--image-volume %q: use anonymous, tmpfs or ignore", mode)
	}
	dests := make([]string, 0, len(b.Image.Volumes))
	for d := range b.Image.Volumes {
		dests = append(dests, d)
	}
	slices.Sort(dests)
	var out []specs.Mount
	for _, d := range dests {
		dest, err := destination(d)
		if err != nil {
			return nil, fmt.Errorf("the image's volume %q: %w", d, err)
		}
		taken := func(m specs.Mount) bool { return m.Destination == dest }
		if mode == "ignore" || slices.ContainsFunc(user, taken) || slices.ContainsFunc(out, taken) {
			continue
		}
		m, err := b.freshVolume(dest)
		if mode == "tmpfs" {
			b.r.Volumes = b.r.Volumes[:len(b.r.Volumes)-1]
			m, err = tmpfs(dest, nil, nil)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}
