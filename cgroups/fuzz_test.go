// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// FuzzCgroupsPath: whatever linux.cgroupsPath says, the group lies below the
// mounts of the hierarchies: these paths are made, recorded, killed and removed.
func FuzzCgroupsPath(f *testing.F) {
	for _, seed := range []string{
		"/a/b", "a/../../b", "../../../../tmp/x", "/../../etc", ".", "..", "/", "", "a//b/", "machine.slice:crio:id", "/libpod_parent/libpod-813647",
		"a\x00b", "a\nb", "a/b/..", "b/.", "./../x", "...",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		h := &host{
			v1: map[string]hierarchy{"memory": {mount: "/sys/fs/cgroup/memory", own: "/own"}},
			v2: &hierarchy{mount: "/sys/fs/cgroup/unified", own: "/own"},
		}
		o, err := Options{Name: "name", Path: path}.checked()
		if err != nil {
			return
		}
		dirs := candidates(h, o)
		if o.Path != "" { // as the builder puts it together
			dirs = append(dirs, filepath.Join(h.v2.mount, filepath.Dir(filepath.Clean("/"+o.Path)), filepath.Base(o.Path)))
		}
		for _, dir := range dirs {
			below := false
			for _, mount := range []string{"/sys/fs/cgroup/memory/", "/sys/fs/cgroup/unified/"} {
				below = below || strings.HasPrefix(dir, mount) && dir != mount
			}
			if !below || slices.Contains(strings.Split(dir, "/"), "..") || strings.ContainsAny(dir, "\x00\n") {
				t.Errorf("path %q makes the group %q", path, dir)
			}
		}
	})
}

// FuzzResources: a document of limits, of a bundle or of update -r, ends in
// settings or in an error. No setting names a file outside of its group, and
// none has a value of more than one line.
func FuzzResources(f *testing.F) {
	for _, seed := range []string{
		`{"memory":{"limit":67108864,"swap":134217728,"reservation":-1},"pids":{"limit":50}}`,
		`{"cpu":{"shares":1024,"quota":-1,"period":100000,"burst":1,"cpus":"0-1","mems":"0","idle":1,"realtimeRuntime":1}}`,
		`{"unified":{"memory.high":"1","../x":"1","cgroup.procs":"1"},"hugepageLimits":[{"pageSize":"2MB","limit":1}]}`,
		`{"blockIO":{"weight":100,"weightDevice":[{"major":8,"minor":0,"weight":10}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]}}`,
		`{"rdma":{"mlx5_1":{"hcaHandles":3}},"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":500}]}}`,
		`{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}]}`,
		`{"unified":{"a/b":"x","memory.max":"1\n2"},"hugepageLimits":[{"pageSize":"../../x","limit":1}]}`, `{}`, `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var r *specs.LinuxResources
		if json.Unmarshal(doc, &r) != nil || r == nil {
			return
		}
		limits, err := limitsOf(r)
		if err != nil {
			return
		}
		for _, l := range limits {
			for _, to := range []func(limit) ([]setting, error){toV1, toV2} {
				settings, err := to(l)
				if err != nil {
					continue
				}
				for _, s := range settings {
					if s.file == "" || strings.ContainsAny(s.file, "/\x00\n") || s.file == ".." {
						t.Errorf("%s: limit %q is written to %q", doc, l.name, s.file)
					}
				}
			}
		}
	})
}
