// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// setting is one control file and what goes into it. Where the file is not
// there, the next spelling of the same setting is tried.
type setting struct {
	file, value string
	or          *setting
	optional    bool // the kernel may be too old, or too new, for it
}

var (
	errNotOnV2 = errors.New("cgroup v2 has no such limit")
	errNotOnV1 = errors.New("only cgroup v2 has such a limit")
)

func one(file string, value any) []setting { return []setting{{file: file, value: fmt.Sprint(value)}} }

// toV2 says a limit in cgroup v2's words.
func toV2(l limit) ([]setting, error) {
	r := &l.res
	switch l.name {
	case "memory":
		return one("memory.max", *r.Memory.Limit), nil
	case "memory-reservation":
		return one("memory.low", *r.Memory.Reservation), nil
	case "memory-swap":
		// v1 counts memory and swap together, v2 swap alone.
		return one("memory.swap.max", *r.Memory.Swap-*r.Memory.Limit), nil
	case "cpu":
		return one("cpu.max", quotaOf(r.CPU)), nil
	case "cpu-burst":
		return one("cpu.max.burst", *r.CPU.Burst), nil
	case "cpu-shares":
		return one("cpu.weight", cpuWeight(*r.CPU.Shares)), nil
	case "cpu-idle":
		return one("cpu.idle", *r.CPU.Idle), nil
	case "cpuset-cpus":
		return one("cpuset.cpus", r.CPU.Cpus), nil
	case "cpuset-mems":
		return one("cpuset.mems", r.CPU.Mems), nil
	case "pids":
		return one("pids.max", *r.Pids.Limit), nil
	case "hugetlb":
		return hugePages(r.HugepageLimits, ".max"), nil
	case "rdma":
		return rdmaDevices(r.Rdma), nil
	case "unified":
		return unifiedFiles(r.Unified), nil
	}
	if r.BlockIO != nil {
		return blockV2(l.name, r.BlockIO)
	}
	return nil, errNotOnV2
}

// toV1 says it in those of the v1 controllers.
func toV1(l limit) ([]setting, error) {
	r := &l.res
	switch l.name {
	case "memory":
		return one("memory.limit_in_bytes", *r.Memory.Limit), nil
	case "memory-reservation":
		return one("memory.soft_limit_in_bytes", *r.Memory.Reservation), nil
	case "memory-swap":
		return one("memory.memsw.limit_in_bytes", *r.Memory.Swap), nil
	case "memory-swappiness":
		return one("memory.swappiness", *r.Memory.Swappiness), nil
	case "memory-kernel-tcp":
		return one("memory.kmem.tcp.limit_in_bytes", *r.Memory.KernelTCP), nil
	case "oom-kill-disable":
		return one("memory.oom_control", 1), nil
	case "cpuset-cpus":
		return one("cpuset.cpus", r.CPU.Cpus), nil
	case "cpuset-mems":
		return one("cpuset.mems", r.CPU.Mems), nil
	case "pids":
		return one("pids.max", *r.Pids.Limit), nil
	case "hugetlb":
		return hugePages(r.HugepageLimits, ".limit_in_bytes"), nil
	case "rdma":
		return rdmaDevices(r.Rdma), nil
	case "network-class":
		return one("net_cls.classid", *r.Network.ClassID), nil
	case "network-priority":
		var out []setting
		for _, p := range r.Network.Priorities {
			out = append(out, one("net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))...)
		}
		return out, nil
	case "devices":
		return devicesV1(r.Devices), nil
	}
	if r.BlockIO != nil {
		return blockV1Files(l.name, r.BlockIO), nil
	}
	if r.CPU != nil {
		return cpuV1(l.name, r.CPU), nil
	}
	return nil, errNotOnV1
}

func cpuV1(name string, c *specs.LinuxCPU) []setting {
	var out []setting
	switch name {
	case "cpu-burst":
		return one("cpu.cfs_burst_us", *c.Burst)
	case "cpu-shares":
		return one("cpu.shares", *c.Shares)
	case "cpu-idle":
		return one("cpu.idle", *c.Idle)
	case "cpu":
		if c.Period != nil {
			out = one("cpu.cfs_period_us", *c.Period)
		}
		if c.Quota != nil {
			out = append(out, one("cpu.cfs_quota_us", *c.Quota)...)
		}
	case "cpu-realtime":
		if c.RealtimePeriod != nil {
			out = one("cpu.rt_period_us", *c.RealtimePeriod)
		}
		if c.RealtimeRuntime != nil {
			out = append(out, one("cpu.rt_runtime_us", *c.RealtimeRuntime)...)
		}
	}
	return out
}

// quotaOf is a value of cpu.max.
func quotaOf(c *specs.LinuxCPU) string {
	quota, period := "max", uint64(defaultPeriod)
	if c.Quota != nil {
		quota = word(*c.Quota)
	}
	if c.Period != nil {
		period = *c.Period
	}
	return fmt.Sprintf("%s %d", quota, period)
}

// cpuWeight is cpu shares (2 to 262144) on the scale of cpu.weight (1 to
// 10000), by the curve all runtimes agreed on: it keeps the ends, and the
// default of the one is the default of the other.
func cpuWeight(shares uint64) uint64 {
	if shares <= 2 {
		return 1
	}
	if shares >= 262144 {
		return 10000
	}
	l := math.Log2(float64(shares))
	exponent := (l*l+125*l)/612.0 - 7.0/34.0
	return uint64(math.Ceil(math.Pow(10, exponent)))
}

// hugePages limits usage and, where the kernel tells them apart, what may be
// reserved: a page that is reserved and not used is gone for others too.
func hugePages(limits []specs.LinuxHugepageLimit, suffix string) []setting {
	var out []setting
	for _, l := range limits {
		value := strconv.FormatUint(l.Limit, 10)
		out = append(out,
			setting{file: "hugetlb." + l.Pagesize + suffix, value: value},
			setting{file: "hugetlb." + l.Pagesize + ".rsvd" + suffix, value: value, optional: true})
	}
	return out
}

func rdmaDevices(devices map[string]specs.LinuxRdma) []setting {
	var out []setting
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		value := name
		if n := devices[name].HcaHandles; n != nil {
			value += fmt.Sprintf(" hca_handle=%d", *n)
		}
		if n := devices[name].HcaObjects; n != nil {
			value += fmt.Sprintf(" hca_object=%d", *n)
		}
		out = append(out, setting{file: "rdma.max", value: value})
	}
	return out
}

// unifiedFiles writes line by line: a control file takes one per write.
func unifiedFiles(files map[string]string) []setting {
	var out []setting
	for _, file := range slices.Sorted(maps.Keys(files)) {
		for line := range strings.SplitSeq(strings.TrimRight(files[file], "\n"), "\n") {
			out = append(out, setting{file: file, value: line})
		}
	}
	return out
}

// blockV1Files: where BFQ schedules, that is where weights are, on the same
// scale. Weights of leaves went with CFQ in Linux 5.0.
func blockV1Files(name string, b *specs.LinuxBlockIO) []setting {
	var out []setting
	bfq := func(file, value string) {
		out = append(out, setting{file: "blkio." + file, value: value, or: &setting{file: "blkio.bfq." + file, value: value}})
	}
	switch name {
	case "blkio-weight":
		bfq("weight", fmt.Sprint(*b.Weight))
	case "blkio-leaf-weight":
		return one("blkio.leaf_weight", *b.LeafWeight)
	case "blkio-weight-device":
		for _, d := range b.WeightDevice {
			if d.Weight != nil {
				bfq("weight_device", deviceValue(d.Major, d.Minor, *d.Weight))
			}
		}
	case "blkio-leaf-weight-device":
		for _, d := range b.WeightDevice {
			if d.LeafWeight != nil {
				out = append(out, one("blkio.leaf_weight_device", deviceValue(d.Major, d.Minor, *d.LeafWeight))...)
			}
		}
	}
	file, _, devices := throttles(name, b)
	for _, d := range devices {
		out = append(out, one(file, deviceValue(d.Major, d.Minor, d.Rate))...)
	}
	return out
}

// blockV2: io.bfq.weight is there where BFQ schedules (its scale is 1 to 1000),
// io.weight with the io.cost controller.
func blockV2(name string, b *specs.LinuxBlockIO) ([]setting, error) {
	var out []setting
	weight := func(device string, w uint16) {
		out = append(out, setting{
			file: "io.bfq.weight", value: device + fmt.Sprint(min(w, 1000)),
			or: &setting{file: "io.weight", value: device + fmt.Sprint(ioWeight(w))},
		})
	}
	switch name {
	case "blkio-weight":
		weight("", *b.Weight)
	case "blkio-leaf-weight", "blkio-leaf-weight-device":
		return nil, errNotOnV2
	case "blkio-weight-device":
		for _, d := range b.WeightDevice {
			if d.Weight != nil {
				weight(fmt.Sprintf("%d:%d ", d.Major, d.Minor), *d.Weight)
			}
		}
	}
	_, key, devices := throttles(name, b)
	for _, d := range devices {
		out = append(out, one("io.max", fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, key, d.Rate))...)
	}
	return out, nil
}

// throttles returns the rates of one kind, with the file of v1 and the key of
// io.max.
func throttles(name string, b *specs.LinuxBlockIO) (file, key string, devices []specs.LinuxThrottleDevice) {
	switch name {
	case "device-read-bps":
		return "blkio.throttle.read_bps_device", "rbps", b.ThrottleReadBpsDevice
	case "device-write-bps":
		return "blkio.throttle.write_bps_device", "wbps", b.ThrottleWriteBpsDevice
	case "device-read-iops":
		return "blkio.throttle.read_iops_device", "riops", b.ThrottleReadIOPSDevice
	case "device-write-iops":
		return "blkio.throttle.write_iops_device", "wiops", b.ThrottleWriteIOPSDevice
	}
	return "", "", nil
}

func deviceValue[N uint16 | uint64](major, minor int64, n N) string {
	return fmt.Sprintf("%d:%d %d", major, minor, n)
}

// ioWeight is a blkio weight (10 to 1000) on the scale of io.weight (1 to
// 10000), by the formula of the runtime specification's users (runc, crun).
func ioWeight(blkio uint16) uint64 {
	if blkio < 10 {
		return 1
	}
	return 1 + (uint64(blkio)-10)*9999/990
}
