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

// mounts lists every mount in the order it is made: parents before children, so
// that the pod's own files come on top of an /etc of the user's. Of the same
// destination one replaces another in this order: defaults, the image's volumes,
// those of other pods, the user's.
func (b *builder) mounts() error {
	mounts, err := b.defaultMounts()
	if err != nil {
		return err
	}
	shared, err := b.volumesFrom()
	if err != nil {
		return err
	}
	user, err := b.userMounts()
	if err != nil {
		return err
	}
	asked := append(without(shared, user), user...)
	b.r.Mounts = latest(b.r.Mounts)
	image, err := b.imageVolumes(mounts, asked)
	if err != nil {
		return err
	}
	extra := append(image, asked...)
	b.r.Spec.Mounts = append(without(mounts, extra), extra...)
	byDepth(b.r.Spec.Mounts)
	b.r.Binds = b.hostPaths()
	return nil
}

// hostPaths are the sources of what is mounted of the host. One that another
// mount replaces need not be there.
func (b *builder) hostPaths() (paths []string) {
	for _, m := range b.r.Spec.Mounts {
		host := func(o Mount) bool { return o.Dest == m.Destination && o.Dir+o.Volume+o.Image == "" }
		if m.Type == "bind" && slices.ContainsFunc(b.r.Mounts, host) {
			paths = append(paths, m.Source)
		}
	}
	return paths
}

// byDepth puts parents before their children, which they would cover.
func byDepth(mounts []specs.Mount) {
	slices.SortStableFunc(mounts, func(x, y specs.Mount) int {
		return strings.Count(x.Destination, "/") - strings.Count(y.Destination, "/")
	})
}

// isBelow tells whether a path lies below the destination of a mount.
func isBelow(path string, mounts []specs.Mount) bool {
	return slices.ContainsFunc(mounts, func(m specs.Mount) bool { return strings.HasPrefix(path, m.Destination+"/") })
}

// without leaves out the mounts whose destination others take.
func without(mounts, others []specs.Mount) []specs.Mount {
	return slices.DeleteFunc(mounts, func(m specs.Mount) bool {
		return slices.ContainsFunc(others, func(o specs.Mount) bool { return o.Destination == m.Destination })
	})
}

// latest keeps the last mount of each destination.
func latest(mounts []Mount) []Mount {
	var out []Mount
	for i, m := range mounts {
		if !slices.ContainsFunc(mounts[i+1:], func(o Mount) bool { return o.Dest == m.Dest }) {
			out = append(out, m)
		}
	}
	return out
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
		if err := add("--tmpfs", v, b.parseTmpfs); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// destination checks where in the pod a mount goes. Nothing may cover /,
// anything of /proc, or /sys as a whole: what confines the app is written
// through them (CVE-2019-16884).
func destination(dest string) (string, error) {
	if !path.IsAbs(dest) {
		return "", fmt.Errorf("destination %q: it must be an absolute path", dest)
	}
	if err := clean("destination", dest); err != nil {
		return "", err
	}
	dest = path.Clean(dest)
	if dest == "/" || dest == "/sys" || dest == "/proc" || strings.HasPrefix(dest, "/proc/") {
		return "", fmt.Errorf("destination %q: nothing can be mounted there", dest)
	}
	return dest, nil
}

// imageVolumes gives each VOLUME of the image that the user mounts nothing
// over a fresh directory of the pod, as podman and Docker do; the path is the
// image's word and goes through the same checks (CVE-2019-16884).
func (b *builder) imageVolumes(mounts, user []specs.Mount) ([]specs.Mount, error) {
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
			b.r.Volumes, b.r.Mounts = b.r.Volumes[:len(b.r.Volumes)-1], b.r.Mounts[:len(b.r.Mounts)-1]
			m, err = b.tmpfs(dest, nil, nil)
		}
		if err != nil {
			return nil, err
		}
		// A link of the image may lead to where the user has mounted something. Plainly
		// below another mount it is mounted, as podman does.
		if !isBelow(dest, mounts) && !isBelow(dest, user) && !isBelow(dest, out) {
			m.Options = append(m.Options, "yield")
		}
		out = append(out, m)
	}
	return out, nil
}
