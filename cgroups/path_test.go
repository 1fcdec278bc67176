// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// newPathGroup makes a group at a path from the top of every hierarchy.
func newPathGroup(t *testing.T, r *specs.LinuxResources) (*Group, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("ability missing: root")
	}
	if s, err := Probe(); err != nil || !s.Writable {
		t.Skip("ability missing: a writable cgroup hierarchy")
	}
	path := "/" + uniqueName()
	var recorded []string
	g, err := Create(Options{Path: path, Resources: r, Note: func(s string) { t.Log("note:", s) }, Record: func(dirs []string) error {
		recorded = dirs
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Delete(); err != nil {
			t.Errorf("delete: %v", err)
		}
		for _, dir := range recorded {
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", dir, err)
			}
		}
	})
	return g, path
}

// Who names a path finds the container there in every hierarchy that is
// mounted: runc's and crun's users read name=systemd to find the container of
// a process.
func TestNamedPathIsInEveryHierarchy(t *testing.T) {
	h, err := thisHost()
	if err != nil {
		t.Fatal(err)
	}
	g, path := newPathGroup(t, nil)
	cmd := start(t, g, "exec sleep 1000")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	mounted := map[string]bool{"": h.v2 != nil, tracker: h.tracked != nil}
	for name := range h.v1 {
		mounted[name] = true
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for name := range strings.SplitSeq(f[1], ",") {
			if mounted[name] && !strings.HasSuffix(f[2], path) {
				t.Errorf("the app is not in %s of hierarchy %q but in %s", path, name, f[2])
			}
		}
	}
	if h.tracked == nil {
		t.Log("ability missing: the hierarchy name=systemd: not looked at")
		return
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || strings.Contains(string(self), filepath.Base(path)) {
		t.Errorf("we stayed in the group:\n%s", self)
	}
}
