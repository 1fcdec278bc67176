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

// Below gives the directories of groups below those of dirs: sub are their
// paths by v1 controller, or by "" for all hierarchies without one of their
// own. They have to be there.
func Below(dirs []string, sub map[string]string) ([]string, error) {
	h, err := thisHost()
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	out := slices.Clone(dirs)
	for i, dir := range dirs {
		path, ok := sub[""]
		if ok {
			used[""] = true
		}
		for _, name := range h.controllersOf(dir) {
			if p, named := sub[name]; named {
				path, used[name] = p, true
			}
		}
		if out[i], err = inside(dir, path); err != nil {
			return nil, err
		}
	}
	for name := range sub {
		if !used[name] {
			return nil, fmt.Errorf("the container is in no group of a v1 controller %q", name)
		}
	}
	return out, nil
}

// controllersOf names the v1 controllers of the hierarchy a directory is in.
func (h *host) controllersOf(dir string) []string {
	var out []string
	for name, v1 := range h.v1 {
		if rel, err := filepath.Rel(v1.mount, dir); err == nil && filepath.IsLocal(rel) {
			out = append(out, name)
		}
	}
	return out
}

// inside is a group below dir; a path is always one below, also with a slash
// before it.
func inside(dir, path string) (string, error) {
	rel := strings.TrimLeft(path, "/")
	if rel == "" {
		return dir, nil
	}
	if !filepath.IsLocal(rel) || strings.ContainsRune(rel, 0) {
		return "", fmt.Errorf("%q leads out of the container's group", path)
	}
	group := filepath.Join(dir, rel)
	fi, err := os.Lstat(group)
	if err == nil && !fi.IsDir() {
		err = errors.New("it is not a group")
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("there is no such group below the container's")
	}
	if err != nil {
		return "", fmt.Errorf("%q: %w", path, err)
	}
	return group, nil
}

// Within finds the unified group that a process of a group stands in: what has
// groups with controllers below takes no process itself.
func Within(dirs []string, pid int) (string, error) {
	h, err := thisHost()
	if err != nil {
		return "", err
	}
	_, unified, err := cgroups.ParseCgroupFileUnified(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", fmt.Errorf("read cgroup of process %d: %w", pid, err)
	}
	if h.v2 != nil {
		group := filepath.Join(h.v2.mount, unified)
		for _, dir := range dirs {
			if rel, err := filepath.Rel(dir, group); err == nil && filepath.IsLocal(rel) {
				return group, nil
			}
		}
	}
	return "", fmt.Errorf("process %d is in %s, not below the container's group", pid, unified)
}
