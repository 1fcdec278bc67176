// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/cgroups/v3"
)

// hierarchy is one mounted hierarchy as the calling process sees it.
type hierarchy struct {
	mount string // where it is mounted
	own   string // our group, relative to mount, "/" for its top
	ro    bool
}

// dir returns the absolute path of our own group.
func (h hierarchy) dir() string { return filepath.Join(h.mount, h.own) }

// host is what the kernel shows of its control groups. Everything decided
// from it is a pure function.
type host struct {
	v1          map[string]hierarchy // by controller
	tracked     *hierarchy           // the v1 hierarchy name=systemd, which has no controller
	v2          *hierarchy
	controllers []string // of v2, at our own group
	systemd     bool
	top         bool // our v2 group is the real root, where processes may stay
	delegated   bool // our v2 group was handed to us by the init system
	parentToo   bool // its parent was: we are in a leaf of a delegated unit
}

func thisHost() (*host, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	// The calling thread's groups: a locked thread may stand elsewhere than
	// its process.
	groups, err := os.ReadFile("/proc/thread-self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read own cgroups: %w", err)
	}
	h, err := parseHost(string(mounts), string(groups))
	if err != nil {
		return nil, fmt.Errorf("read own cgroups: %w", err)
	}
	if h.v2 == nil {
		return h, nil
	}
	b, err := os.ReadFile(filepath.Join(h.v2.dir(), "cgroup.controllers"))
	if err == nil {
		h.controllers = strings.Fields(string(b))
	}
	_, err = os.Stat("/run/systemd/system")
	h.systemd = err == nil
	_, err = os.Stat(filepath.Join(h.v2.dir(), "cgroup.type"))
	h.top = h.v2.own == "/" && errors.Is(err, fs.ErrNotExist)
	h.delegated = delegated(h.v2.dir())
	h.parentToo = h.v2.own != "/" && delegated(filepath.Dir(h.v2.dir()))
	return h, nil
}

// parseHost reads /proc/self/mountinfo and /proc/self/cgroup (proc(5),
// cgroups(7)). A hierarchy whose mount does not show our own group is as good
// as absent: a container may be given one of somebody else.
func parseHost(mountinfo, cgroup string) (*host, error) {
	groups, unified, err := cgroups.ParseCgroupFromReaderUnified(strings.NewReader(cgroup))
	if err != nil {
		return nil, err
	}
	groups[""] = unified
	h := &host{v1: map[string]hierarchy{}}
	for line := range strings.Lines(mountinfo) {
		h.addMount(line, groups)
	}
	return h, nil
}

func (h *host) addMount(line string, groups map[string]string) {
	left, right, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
	f, super := strings.Fields(left), strings.Fields(right)
	if !ok || len(f) < 6 || len(super) < 3 {
		return
	}
	root, mount := unescape(f[3]), unescape(f[4])
	ro := slices.Contains(strings.Split(f[5], ","), "ro") || slices.Contains(strings.Split(super[2], ","), "ro")
	switch super[0] {
	case "cgroup2":
		if own, ok := below(root, groups[""]); ok && h.v2 == nil {
			h.v2 = &hierarchy{mount, own, ro}
		}
	case "cgroup":
		for name := range strings.SplitSeq(super[2], ",") {
			path, named := groups[name]
			if name == tracker && named && h.tracked == nil {
				if own, ok := below(root, path); ok {
					h.tracked = &hierarchy{mount, own, ro}
				}
			}
			if _, have := h.v1[name]; !named || have || !known[name] {
				continue
			}
			if own, ok := below(root, path); ok {
				h.v1[name] = hierarchy{mount, own, ro}
			}
		}
	}
}

// Tracked returns where systemd sees a process: its group in the unified
// hierarchy, or in the v1 one that systemd made for that.
func Tracked(pid int) (string, error) {
	v1, unified, err := cgroups.ParseCgroupFileUnified(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", fmt.Errorf("read cgroup of process %d: %w", pid, err)
	}
	if tracked, ok := v1[tracker]; ok {
		return tracked, nil
	}
	return unified, nil
}

// below returns path as seen from a mount whose root is root.
func below(root, path string) (string, bool) {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "/..") {
		return "", false
	}
	if root == "/" {
		return filepath.Clean(path), true
	}
	rest, ok := strings.CutPrefix(path, root)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return filepath.Clean("/" + rest), true
}

// tracker is the v1 hierarchy in which systemd, before cgroup v2, kept track
// of processes. It limits nothing: only who names a path is put there.
const tracker = "name=systemd"

// known are the v1 controllers we have a use for. "rw" and "name=systemd" are
// not among the words of a mount's options by accident.
var known = map[string]bool{
	"memory": true, "pids": true, "cpu": true, "cpuacct": true, "cpuset": true,
	"devices": true, "freezer": true, "blkio": true, "hugetlb": true, "rdma": true,
	"net_cls": true, "net_prio": true, "perf_event": true,
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
