// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func group(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Both versions are said in the same words and units.
func TestUsageOfBothVersions(t *testing.T) {
	v1 := group(t, map[string]string{
		"cpuacct.usage": "5000000000\n", "cpuacct.stat": "user 300\nsystem 200\n", "cpu.stat": "nr_periods 10\nnr_throttled 2\nthrottled_time 7000\n",
		"memory.limit_in_bytes": "100\n", "memory.usage_in_bytes": "40\n", "memory.max_usage_in_bytes": "60\n", "memory.failcnt": "1\n",
		"memory.memsw.limit_in_bytes": "150\n", "memory.memsw.usage_in_bytes": "50\n", "memory.memsw.max_usage_in_bytes": "70\n", "memory.memsw.failcnt": "3\n",
		"memory.stat": "cache 12\n", "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", "pids.current": "3\n", "pids.max": "max\n",
		"hugetlb.2MB.limit_in_bytes": "8\n", "hugetlb.2MB.usage_in_bytes": "6\n", "hugetlb.2MB.max_usage_in_bytes": "7\n", "hugetlb.2MB.failcnt": "0\n", "hugetlb.2MB.rsvd.limit_in_bytes": "9\n",
		"blkio.throttle.io_service_bytes_recursive": "8:0 Read 11\n8:0 Write 12\nTotal 23\n", "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\n",
	})
	v2 := group(t, map[string]string{
		"cgroup.events": "populated 1\n", "cpu.stat": "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 10\nnr_throttled 2\nthrottled_usec 7\n",
		"memory.max": "100\n", "memory.current": "40\n", "memory.peak": "60\n", "memory.events": "low 0\nmax 1\noom_kill 4\n",
		"memory.swap.max": "50\n", "memory.swap.current": "10\n", "memory.swap.peak": "10\n", "memory.swap.events": "max 3\n",
		"memory.stat": "cache 12\n", "pids.current": "3\n", "pids.max": "max\n",
		"hugetlb.2MB.max": "8\n", "hugetlb.2MB.current": "6\n", "hugetlb.2MB.peak": "7\n", "hugetlb.2MB.rsvd.max": "9\n", "hugetlb.2MB.events": "max 0\n",
		"io.stat": "8:0 rbytes=11 wbytes=12 rios=1 wios=2 dbytes=0 dios=0\n",
	})
	want := Usage{
		CPU: 5e9, CPUUser: 3e9, CPUKernel: 2e9, Periods: 10, Throttled: 2, ThrottledTime: 7000,
		Memory: Counter{100, 40, 60, 1}, Swap: Counter{150, 50, 70, 3}, MemoryStat: map[string]uint64{"cache": 12},
		Pids: 3, PidsLimit: math.MaxUint64, OOMKills: 4, Huge: map[string]Counter{"2MB": {8, 6, 7, 0}},
		BlockBytes: []BlockCounter{{8, 0, "Read", 11}, {8, 0, "Write", 12}}, BlockOps: []BlockCounter{{8, 0, "Read", 1}, {8, 0, "Write", 2}},
	}
	for name, dir := range map[string]string{"v1": v1, "v2": v2} {
		if got := ReadUsage([]string{dir}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
		}
	}
}

func TestUsageOfALivingGroup(t *testing.T) {
	g, _ := newPathGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(99))}})
	start(t, g, "exec sleep 1000")
	u := ReadUsage(g.Dirs())
	if u.Pids != 1 || u.PidsLimit != 99 || u.CPU == 0 || u.Memory.Usage == 0 {
		t.Errorf("%+v", u)
	}
}
