// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hierarchyOf mounts a v1 hierarchy that few hosts still have, for a test.
func hierarchyOf(t *testing.T, controllers string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("cgroup", dir, "cgroup", 0, controllers); err != nil {
		t.Skipf("ability missing: cgroup v1 with %s: %v", controllers, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// The class and the priorities of packets are set where those hierarchies are
// mounted, and read back from there.
func TestNetworkOnV1(t *testing.T) {
	newGroup(t, nil)
	classes, priorities := hierarchyOf(t, "net_cls"), hierarchyOf(t, "net_prio")
	h := &host{v1: map[string]hierarchy{"net_cls": {mount: classes, own: "/"}, "net_prio": {mount: priorities, own: "/"}}}
	name := uniqueName()
	g, err := create(h, Options{Name: name, Strict: map[string]bool{"network": true}, Resources: &specs.LinuxResources{
		Network: &specs.LinuxNetwork{ClassID: ptr(uint32(0x100001)), Priorities: []specs.LinuxInterfacePriority{{Name: "lo", Priority: 5}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Delete()
	b, err := os.ReadFile(filepath.Join(classes, name, "net_cls.classid"))
	if err != nil || strings.TrimSpace(string(b)) != "1048577" {
		t.Errorf("net_cls.classid = %q, %v", b, err)
	}
	b, err = os.ReadFile(filepath.Join(priorities, name, "net_prio.ifpriomap"))
	if err != nil || !strings.Contains("\n"+string(b), "\nlo 5\n") {
		t.Errorf("net_prio.ifpriomap = %q, %v", b, err)
	}
}

// A size of pages that the machine does not have is refused with those it has.
func TestHugePages(t *testing.T) {
	limits := func(size string) *specs.LinuxResources {
		return &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: size, Limit: 4 << 20}}}
	}
	newGroup(t, limits("2MB"), "hugetlb")
	_, err := Create(Options{Name: uniqueName(), Resources: limits("3MB"), Strict: map[string]bool{"hugetlb": true}})
	var le *LimitError
	if !errors.As(err, &le) || !strings.Contains(le.Reason, "3MB") || !strings.Contains(le.Mend, "2MB") {
		t.Errorf("pages of 3MB: %v (%+v)", err, le)
	}
}

// Classes of packets are no limit of cgroup v2: who asks for one is told so,
// and nothing is left.
func TestNetworkOnV2(t *testing.T) {
	h := &host{v1: map[string]hierarchy{}}
	_, err := create(h, Options{Name: "x", Strict: map[string]bool{"network": true}, Resources: &specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))}}})
	var le *LimitError
	if !errors.As(err, &le) || le.Field() != "linux.resources.network.classID" || !strings.Contains(le.Mend, "net_cls") {
		t.Errorf("%v, want the field and the hierarchy that is missing", err)
	}
}

// The kernel takes a partition it cannot make, and says so in the file.
func TestPartitionIsReadBack(t *testing.T) {
	newGroup(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}, "cpuset")
	h, err := thisHost()
	if err != nil {
		t.Fatal(err)
	}
	if _, v1 := h.v1["cpuset"]; v1 {
		t.Skip("ability missing: cpuset on cgroup v2")
	}
	g, err := Create(Options{
		Name: uniqueName(), Strict: map[string]bool{"unified": true, "cpuset": true},
		Resources: &specs.LinuxResources{Unified: map[string]string{"cpuset.cpus": "0", "cpuset.cpus.partition": "isolated"}},
	})
	// Below a group that is no partition itself there can be none with its
	// processors to itself, unless they were reserved for it.
	if err == nil {
		defer g.Delete()
		if words, err := readWords(filepath.Join(g.v2, "cpuset.cpus.partition")); err != nil || strings.Join(words, " ") != "isolated" {
			t.Errorf("the partition is %q, %v", words, err)
		}
		return
	}
	var le *LimitError
	if !errors.As(err, &le) || le.Limit != "unified" || !strings.Contains(err.Error(), "partition") {
		t.Errorf("%v, want a *LimitError about the partition", err)
	}
}

// checkBeforeUpdate keeps a limit from killing.
func TestCheckBeforeUpdate(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}}, "memory")
	start(t, g, "head -c 8000000 /dev/zero > /dev/shm/"+filepath.Base(g.Dirs()[0])+"; sleep 1000")
	defer os.Remove("/dev/shm/" + filepath.Base(g.Dirs()[0]))
	used := func() uint64 { return *Stats(g.Dirs()).Memory }
	for n := 0; used() < 8_000_000; n++ {
		if n == 1000 {
			t.Fatalf("after ten seconds %d bytes are used", used())
		}
		_, _ = unix.Poll(nil, 10)
	}
	err := Update(g.Dirs(), &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 20)), CheckBeforeUpdate: ptr(true)}})
	var le *LimitError
	if !errors.As(err, &le) || le.Limit != "memory" || !strings.Contains(le.Reason, "in use") {
		t.Errorf("update below what is used: %v", err)
	}
	if err := Update(g.Dirs(), &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(48 << 20)), CheckBeforeUpdate: ptr(true)}}); err != nil {
		t.Errorf("update above what is used: %v", err)
	}
}
