// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// File is a control file with a value, as cgroup v2 or v1 has it.
type File struct{ Name, Value string }

// Files says resources in control files, for who has somebody else write them:
// every spelling of each, of whatever of it the version has.
func Files(r *specs.LinuxResources, v1 bool) ([]File, error) {
	limits, err := limitsOf(r)
	if err != nil {
		return nil, err
	}
	to := toV2
	if v1 {
		to = toV1
	}
	var out []File
	for _, l := range limits {
		settings, err := to(l)
		if errors.Is(err, errNotOnV1) || errors.Is(err, errNotOnV2) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, s := range settings {
			for one := &s; one != nil; one = one.or {
				out = append(out, File{one.file, one.value})
			}
		}
	}
	return out, nil
}

// ReadFiles reads those of the named control files that a group has.
func ReadFiles(dirs, names []string) []File {
	var out []File
	for _, dir := range dirs {
		for _, name := range names {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				out = append(out, File{name, strings.TrimSpace(string(b))})
			}
		}
	}
	return out
}

// Version1 tells whether the limits of this host are those of cgroup v1. A lone
// hierarchy like net_cls beside the unified one does not make it so.
func Version1() (bool, error) {
	h, err := thisHost()
	if err != nil {
		return false, err
	}
	_, memory := h.v1["memory"]
	_, cpu := h.v1["cpu"]
	return memory || cpu, nil
}
