// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// say writes settings as "file=value", those the kernel may lack with a
// question mark, other spellings after a bar.
func say(settings []setting) string {
	var out []string
	for _, s := range settings {
		text := s.file + "=" + s.value
		for or := s.or; or != nil; or = or.or {
			text += "|" + or.file + "=" + or.value
		}
		if s.optional {
			text += "?"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func TestSettings(t *testing.T) {
	throttled := []specs.LinuxThrottleDevice{throttle(8, 1, 9)}
	var weighed specs.LinuxWeightDevice
	weighed.Major, weighed.Minor, weighed.Weight, weighed.LeafWeight = 8, 16, ptr(uint16(300)), ptr(uint16(30))
	const no = "-"
	for _, tt := range []struct {
		name   string
		res    specs.LinuxResources
		v1, v2 string
	}{
		{"memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(4096))}}, "memory.limit_in_bytes=4096", "memory.max=4096"},
		{"reservation", specs.LinuxResources{Memory: &specs.LinuxMemory{Reservation: ptr(int64(4096))}}, "memory.soft_limit_in_bytes=4096", "memory.low=4096"},
		{
			"swap is without memory on v2",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(150))}},
			"memory.limit_in_bytes=100, memory.memsw.limit_in_bytes=150", "memory.max=100, memory.swap.max=50",
		},
		{
			"no swap at all",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(100))}},
			"memory.limit_in_bytes=100, memory.memsw.limit_in_bytes=100", "memory.max=100, memory.swap.max=0",
		},
		{"kernel memory of TCP", specs.LinuxResources{Memory: &specs.LinuxMemory{KernelTCP: ptr(int64(5))}}, "memory.kmem.tcp.limit_in_bytes=5", no},
		{"swappiness", specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(7))}}, "memory.swappiness=7", no},
		{"no OOM killer", specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: ptr(true)}}, "memory.oom_control=1", no},
		{
			"a quota without period",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(50000))}},
			"cpu.cfs_period_us=100000, cpu.cfs_quota_us=50000", "cpu.max=50000 100000",
		},
		{"a period without quota", specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(50000))}}, "cpu.cfs_period_us=50000", "cpu.max=max 50000"},
		{"shares", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024))}}, "cpu.shares=1024", "cpu.weight=100"},
		{"burst", specs.LinuxResources{CPU: &specs.LinuxCPU{Burst: ptr(uint64(5))}}, "cpu.cfs_burst_us=5", "cpu.max.burst=5"},
		{"idle", specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(1))}}, "cpu.idle=1", "cpu.idle=1"},
		{"real time", specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimePeriod: ptr(uint64(9)), RealtimeRuntime: ptr(int64(3))}}, "cpu.rt_period_us=9, cpu.rt_runtime_us=3", no},
		{"cpuset", specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1", Mems: "0"}}, "cpuset.cpus=0-1, cpuset.mems=0", "cpuset.cpus=0-1, cpuset.mems=0"},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}}, "pids.max=5", "pids.max=5"},
		{
			"weight",
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(1000))}},
			"blkio.weight=1000|blkio.bfq.weight=1000", "io.bfq.weight=1000|io.weight=10000",
		},
		{
			"weight of a device",
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{weighed}}},
			"blkio.weight_device=8:16 300|blkio.bfq.weight_device=8:16 300, blkio.leaf_weight_device=8:16 30", "io.bfq.weight=8:16 300|io.weight=8:16 2930, -",
		},
		{"weight of leaves", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{LeafWeight: ptr(uint16(10))}}, "blkio.leaf_weight=10", no},
		{"read bytes", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: throttled}}, "blkio.throttle.read_bps_device=8:1 9", "io.max=8:1 rbps=9"},
		{"write bytes", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleWriteBpsDevice: throttled}}, "blkio.throttle.write_bps_device=8:1 9", "io.max=8:1 wbps=9"},
		{"reads", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadIOPSDevice: throttled}}, "blkio.throttle.read_iops_device=8:1 9", "io.max=8:1 riops=9"},
		{"writes", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleWriteIOPSDevice: throttled}}, "blkio.throttle.write_iops_device=8:1 9", "io.max=8:1 wiops=9"},
		{
			"huge pages",
			specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 7}}},
			"hugetlb.2MB.limit_in_bytes=7, hugetlb.2MB.rsvd.limit_in_bytes=7?", "hugetlb.2MB.max=7, hugetlb.2MB.rsvd.max=7?",
		},
		{
			"rdma",
			specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx": {HcaHandles: ptr(uint32(2)), HcaObjects: ptr(uint32(0))}, "b": {HcaObjects: ptr(uint32(1))}}},
			"rdma.max=b hca_object=1, rdma.max=mlx hca_handle=2 hca_object=0", "rdma.max=b hca_object=1, rdma.max=mlx hca_handle=2 hca_object=0",
		},
		{
			"network",
			specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1048577)), Priorities: []specs.LinuxInterfacePriority{{Name: "lo", Priority: 3}, {Name: "eth0", Priority: 1}}}},
			"net_cls.classid=1048577, net_prio.ifpriomap=lo 3, net_prio.ifpriomap=eth0 1", "-, -",
		},
		{
			"unified, by line",
			specs.LinuxResources{Unified: map[string]string{"memory.high": "1M", "io.max": "8:0 rbps=1\n8:16 rbps=2\n"}},
			"-, -", "io.max=8:0 rbps=1, io.max=8:16 rbps=2, memory.high=1M",
		},
		{"devices", specs.LinuxResources{Devices: nil}, "", ""},
	} {
		limits, err := limitsOf(&tt.res)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for version, want := range map[string]string{"v1": tt.v1, "v2": tt.v2} {
			to := toV1
			if version == "v2" {
				to = toV2
			}
			var got []string
			for _, l := range limits {
				settings, err := to(l)
				switch {
				case errors.Is(err, errNotOnV1) || errors.Is(err, errNotOnV2):
					got = append(got, no)
				case err != nil:
					t.Error(err)
				default:
					got = append(got, say(settings))
				}
			}
			if text := strings.Join(got, ", "); text != want {
				t.Errorf("%s on %s: %s, want %s", tt.name, version, text, want)
			}
		}
	}
}

func TestLimitsThatAreNone(t *testing.T) {
	huge := func(size string) specs.LinuxResources {
		return specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: size, Limit: 1}}}
	}
	for _, tt := range []struct {
		limit string
		res   specs.LinuxResources
	}{
		{"hugetlb", huge("../2MB")},
		{"hugetlb", huge("2MB.rsvd")},
		{"hugetlb", huge("MB")},
		{"hugetlb", huge("2M")},
		{"hugetlb", huge("")},
		{"hugetlb", huge("02MB")},
		{"hugetlb", huge("0KB")},
		{"rdma", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5": {}}}},
		{"rdma", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"a b": {HcaObjects: ptr(uint32(1))}}}},
		{"network-priority", specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "lo 1\neth0", Priority: 1}}}}},
	} {
		_, err := limitsOf(&tt.res)
		var le *LimitError
		if !errors.As(err, &le) || le.Limit != tt.limit || strings.HasSuffix(le.Field(), ".") {
			t.Errorf("%+v: %v, want a *LimitError about %s, whose field is known", tt.res, err, tt.limit)
		}
	}
}

// Every limit has a place in a bundle that errors can name.
func TestFields(t *testing.T) {
	for name := range map[string]bool{"memory": true, "oom-kill-disable": true, "hugetlb": true, "unified": true, "devices": true} {
		if e := (&LimitError{Limit: name}); strings.HasSuffix(e.Field(), ".") {
			t.Errorf("%s has no field", name)
		}
	}
}

// The curve is that of containerd/cgroups at every point.
func TestCPUWeightIsTheLibrarys(t *testing.T) {
	for shares := uint64(2); shares <= 262144; shares++ {
		if got, want := cpuWeight(shares), cgroup2.ConvertCPUSharesToCgroupV2Value(shares); got != want {
			t.Fatalf("%d shares weigh %d, the library says %d", shares, got, want)
		}
	}
	if cpuWeight(math.MaxUint64) != 10000 || cpuWeight(0) != 1 {
		t.Error("the ends of the scale do not hold")
	}
}

// What the kernel can be told through containerd/cgroups, it is told the same
// by us.
func TestSettingsAreTheLibrarys(t *testing.T) {
	for _, res := range []specs.LinuxResources{
		{Memory: &specs.LinuxMemory{Limit: ptr(int64(4096)), Reservation: ptr(int64(100))}},
		{CPU: &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(70000))}},
		{CPU: &specs.LinuxCPU{Shares: ptr(uint64(77)), Cpus: "0", Mems: "0"}},
		{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}},
		{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 7}}},
		{BlockIO: &specs.LinuxBlockIO{ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{throttle(8, 1, 9)}}},
	} {
		theirs, ours := t.TempDir(), t.TempDir()
		m, err := cgroup2.Load("/"+filepath.Base(theirs), cgroup2.WithMountpoint(filepath.Dir(theirs)))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Update(cgroup2.ToResources(&res)); err != nil {
			t.Fatal(err)
		}
		limits, err := limitsOf(&res)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range limits {
			settings, err := toV2(l)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range settings {
				if err := os.WriteFile(filepath.Join(ours, s.file), []byte(s.value), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		files, err := os.ReadDir(theirs)
		if err != nil || len(files) == 0 {
			t.Fatalf("the library wrote %v: %v", files, err)
		}
		for _, f := range files {
			want, _ := os.ReadFile(filepath.Join(theirs, f.Name()))
			if got, err := os.ReadFile(filepath.Join(ours, f.Name())); err != nil || string(got) != string(want) {
				t.Errorf("%s = %q, the library writes %q", f.Name(), got, want)
			}
		}
	}
}

// An assembler reads our program as it was meant.
func TestDeviceFilterIsReadable(t *testing.T) {
	program, err := deviceFilter([]specs.LinuxDeviceCgroup{
		{Type: "a", Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(136)), Minor: ptr(int64(-1)), Access: "rw"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, i := range program {
		for _, part := range []any{i.code, i.registers, i.offset, i.immediate} {
			if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []string
	for b.Len() > 0 {
		var i asm.Instruction
		if err := i.Unmarshal(&b, binary.LittleEndian, "linux"); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(i))
	}
	want := []string{
		"LdXMemW dst: r2 src: r1 off: 0 imm: 0", "AndImm32 dst: r2 imm: 65535",
		"LdXMemW dst: r3 src: r1 off: 0 imm: 0", "RShImm32 dst: r3 imm: 16",
		"LdXMemW dst: r4 src: r1 off: 4 imm: 0", "LdXMemW dst: r5 src: r1 off: 8 imm: 0",
		// c 136:* rw allowed
		"MovReg32 dst: r1 src: r3", "AndImm32 dst: r1 imm: 1", "JNEImm dst: r1 off: 4 imm: 0",
		"JNEImm dst: r2 off: 3 imm: 2", "JNEImm dst: r4 off: 2 imm: 136", "MovImm32 dst: r0 imm: 1", "Exit",
		// a rwm denied
		"MovReg32 dst: r1 src: r3", "AndImm32 dst: r1 imm: 7", "JEqImm dst: r1 off: 2 imm: 0", "MovImm32 dst: r0 imm: 0", "Exit",
		"MovImm32 dst: r0 imm: 0", "Exit",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("program:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
