// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// reads wants a content in the first file that is there, by its v1 or v2 name.
// A file that is nowhere is an ability that is missing.
func reads(t *testing.T, g *Group, want map[string]string) {
	t.Helper()
	found := false
	for _, dir := range g.Dirs() {
		for file, value := range want {
			b, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				continue
			}
			found = true
			if got := strings.TrimSpace(string(b)); got != value {
				t.Errorf("%s/%s = %q, want %q", dir, file, got, value)
			}
		}
	}
	if !found {
		t.Skipf("ability missing: none of %v", want)
	}
}

// Limits of a group in use are raised, lowered and lifted, whatever the order
// the kernel wants; what is not named stays.
func TestUpdate(t *testing.T) {
	const mib = int64(1 << 20)
	const none = "9223372036854771712"
	memory := func(limit, swap int64) *specs.LinuxResources {
		return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap}}
	}
	cpu := func(c specs.LinuxCPU) *specs.LinuxResources { return &specs.LinuxResources{CPU: &c} }
	pids := func(n int64) *specs.LinuxResources { return &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}} }
	g, _ := newPathGroup(t, nil)
	start(t, g, "exec sleep 1000")
	for _, tt := range []struct {
		name   string
		update *specs.LinuxResources
		want   map[string]string
	}{
		{"memory", memory(64*mib, 0), map[string]string{"memory.limit_in_bytes": "67108864", "memory.max": "67108864"}},
		{"memory and swap, raised", memory(128*mib, 256*mib), map[string]string{"memory.limit_in_bytes": "134217728", "memory.memsw.limit_in_bytes": "268435456", "memory.max": "134217728", "memory.swap.max": "134217728"}},
		{"memory and swap, lowered", memory(32*mib, 48*mib), map[string]string{"memory.limit_in_bytes": "33554432", "memory.memsw.limit_in_bytes": "50331648", "memory.max": "33554432", "memory.swap.max": "16777216"}},
		{"memory, lifted", memory(-1, 0), map[string]string{"memory.limit_in_bytes": none, "memory.memsw.limit_in_bytes": none, "memory.max": "max", "memory.swap.max": "max"}},
		{"pids", pids(7), map[string]string{"pids.max": "7"}},
		{"pids, unchanged by zero", pids(0), map[string]string{"pids.max": "7"}},
		{"pids, lifted", pids(-1), map[string]string{"pids.max": "max"}},
		{"quota and period", cpu(specs.LinuxCPU{Quota: ptr(int64(30000)), Period: ptr(uint64(60000))}), map[string]string{"cpu.cfs_quota_us": "30000", "cpu.cfs_period_us": "60000", "cpu.max": "30000 60000"}},
		{"quota alone keeps the period", cpu(specs.LinuxCPU{Quota: ptr(int64(20000))}), map[string]string{"cpu.cfs_quota_us": "20000", "cpu.cfs_period_us": "60000", "cpu.max": "20000 60000"}},
		{"quota, lifted", cpu(specs.LinuxCPU{Quota: ptr(int64(-1))}), map[string]string{"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "60000", "cpu.max": "max 60000"}},
		{"shares", cpu(specs.LinuxCPU{Shares: ptr(uint64(512))}), map[string]string{"cpu.shares": "512", "cpu.weight": "59"}},
		{"cpus", cpu(specs.LinuxCPU{Cpus: "0"}), map[string]string{"cpuset.cpus": "0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Update(g.Dirs(), tt.update)
			var le *LimitError
			if errors.As(err, &le) && le.Err == nil {
				t.Skipf("ability missing: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			reads(t, g, tt.want)
		})
	}
}

// A limit that contradicts another is named, and the group stays as it was.
func TestUpdateRefusesContradictions(t *testing.T) {
	g, _ := newPathGroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}})
	for says, r := range map[string]*specs.LinuxResources{
		"limit memory-swap cannot be had": {Memory: &specs.LinuxMemory{Limit: ptr(int64(32 << 20)), Swap: ptr(int64(16 << 20))}},
		"limit cpuset-cpus cannot be had": {Memory: &specs.LinuxMemory{Limit: ptr(int64(32 << 20))}, CPU: &specs.LinuxCPU{Cpus: "x"}},
		"is not the control file":         {Unified: map[string]string{"cgroup.procs": "1"}},
	} {
		if err := Update(g.Dirs(), r); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q, got %v", says, err)
		}
	}
	reads(t, g, map[string]string{"memory.limit_in_bytes": "67108864", "memory.max": "67108864"})
	if err := Update([]string{"/tmp"}, &specs.LinuxResources{}); err == nil {
		t.Error("a directory that is no group was taken")
	}
}

// The same on a unified group played by plain files: what the kernel is told.
func TestUpdateOnUnified(t *testing.T) {
	for _, tt := range []struct {
		name   string
		now    map[string]string
		update specs.LinuxResources
		want   map[string]string
	}{
		{"swap is counted alone", nil, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(150))}}, map[string]string{"memory.max": "100", "memory.swap.max": "50"}},
		{"swap over the limit in force", map[string]string{"memory.max": "100"}, specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(150))}}, map[string]string{"memory.swap.max": "50"}},
		{"memory without limit lifts swap", nil, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}}, map[string]string{"memory.max": "max", "memory.swap.max": "max"}},
		{"reservation", nil, specs.LinuxResources{Memory: &specs.LinuxMemory{Reservation: ptr(int64(7))}}, map[string]string{"memory.low": "7"}},
		{"quota keeps the period", map[string]string{"cpu.max": "max 50000"}, specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(1000))}}, map[string]string{"cpu.max": "1000 50000"}},
		{"period keeps the quota", map[string]string{"cpu.max": "max 50000"}, specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(70000))}}, map[string]string{"cpu.max": "max 70000"}},
		{"idle can be taken back", nil, specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(0))}}, map[string]string{"cpu.idle": "0"}},
		{"zeros change nothing", map[string]string{"memory.max": "5"}, specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: ptr(int64(0)), Reservation: ptr(int64(0)), Swap: ptr(int64(0))},
			CPU:    &specs.LinuxCPU{Shares: ptr(uint64(0)), Quota: ptr(int64(0)), Period: ptr(uint64(0)), RealtimeRuntime: ptr(int64(0)), RealtimePeriod: ptr(uint64(0))},
		}, map[string]string{"memory.max": "5", "memory.low": "", "memory.swap.max": "", "cpu.max": ""}},
		{"pids lifted", nil, specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, map[string]string{"pids.max": "max"}},
	} {
		dir := t.TempDir()
		for _, name := range strings.Fields("memory.max memory.swap.max memory.low cpu.max cpu.idle pids.max") {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(tt.now[name]), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte("memory cpu pids\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		h := &host{v2: &hierarchy{mount: filepath.Dir(dir)}}
		u := newUpdater(h, nil)
		u.b.group.v2 = dir
		memory, cpu, rest := split(&tt.update)
		if err := errors.Join(u.memory(memory), u.cpu(cpu), u.cpuIdle(tt.update.CPU), u.pids(tt.update.Pids)); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if limits, err := limitsOf(rest); err != nil || len(limits) > 0 {
			t.Errorf("%s: %v is left over, %v", tt.name, limits, err)
		}
		for name, want := range tt.want {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
				t.Errorf("%s: %s = %q, %v; want %q", tt.name, name, b, err, want)
			}
		}
	}
}
