// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// LimitError says which limit cannot be had, why, and what would help.
type LimitError struct {
	Limit  string // in the words of Options.Strict: memory, memory-swap, pids, …
	Reason string
	Mend   string // what to do about it, may be empty
	Err    error  // from the kernel, may be nil
}

func (e *LimitError) Error() string {
	s := fmt.Sprintf("limit %s cannot be had: %s", e.Limit, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *LimitError) Unwrap() error { return e.Err }

// Hint returns what to do about it.
func (e *LimitError) Hint() string { return e.Mend }

// limit is one thing to ask a controller for. res holds this and nothing
// else, so that an error of the kernel is about this limit.
type limit struct {
	name       string
	controller string // its v1 name; blkio is io on v2
	res        specs.LinuxResources
}

// strict reports whether the user asked for this limit by name. What is said
// of the limit itself goes before what is said of its family: --memory alone
// also makes a swap limit nobody asked for.
func (l limit) strict(names map[string]bool) bool {
	if asked, ok := names[l.name]; ok {
		return asked
	}
	family, _, _ := strings.Cut(l.name, "-")
	return names[family]
}

// controllerV2 returns the name cgroup v2 uses.
func controllerV2(name string) string {
	if name == "blkio" {
		return "io"
	}
	return name
}

// limitsOf takes resources apart, in the order the kernel wants them. Values
// the specification calls "no limit" are left out where a fresh group has
// none anyway; contradictions are errors whoever asked.
func limitsOf(r *specs.LinuxResources) ([]limit, error) {
	if r == nil {
		return nil, nil
	}
	memory, err := memoryLimits(r.Memory)
	if err != nil {
		return nil, err
	}
	cpu, err := cpuLimits(r.CPU)
	if err != nil {
		return nil, err
	}
	out := append(memory, cpu...)
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0 {
		out = append(out, limit{"pids", "pids", specs.LinuxResources{Pids: r.Pids}})
	}
	out = append(out, blockLimits(r.BlockIO)...)
	for _, others := range []func(*specs.LinuxResources) ([]limit, error){hugeLimits, rdmaLimits, networkLimits} {
		more, err := others(r)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	unified, err := unifiedLimits(r.Unified)
	return append(out, unified...), err
}

func memoryLimits(m *specs.LinuxMemory) ([]limit, error) {
	if m == nil {
		return nil, nil
	}
	var out []limit
	add := func(name string, one specs.LinuxMemory) {
		out = append(out, limit{name, "memory", specs.LinuxResources{Memory: &one}})
	}
	if set(m.Limit) {
		add("memory", specs.LinuxMemory{Limit: m.Limit})
	}
	if set(m.Reservation) {
		add("memory-reservation", specs.LinuxMemory{Reservation: m.Reservation})
	}
	if m.Swap != nil && *m.Swap != 0 && *m.Swap != -1 {
		// The specification's swap is memory plus swap, as on v1.
		if !set(m.Limit) {
			return nil, &LimitError{Limit: "memory-swap", Reason: "it counts memory and swap together and needs a memory limit below it", Mend: "give --memory as well"}
		}
		if *m.Swap < *m.Limit {
			return nil, &LimitError{Limit: "memory-swap", Reason: fmt.Sprintf("%d is less than the memory limit %d it includes", *m.Swap, *m.Limit), Mend: "raise --memory-swap to --memory or more; equal means no swap"}
		}
		add("memory-swap", specs.LinuxMemory{Limit: m.Limit, Swap: m.Swap})
	}
	if set(m.KernelTCP) {
		add("memory-kernel-tcp", specs.LinuxMemory{KernelTCP: m.KernelTCP})
	}
	if m.Swappiness != nil {
		add("memory-swappiness", specs.LinuxMemory{Swappiness: m.Swappiness})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		add("oom-kill-disable", specs.LinuxMemory{DisableOOMKiller: m.DisableOOMKiller})
	}
	return out, nil
}

// set reports whether an optional limit is there and limits something.
func set(v *int64) bool { return v != nil && *v > 0 }

// defaultPeriod is the kernel's, and what a quota without a period is of.
const defaultPeriod = 100_000

func cpuLimits(c *specs.LinuxCPU) ([]limit, error) {
	if c == nil {
		return nil, nil
	}
	var out []limit
	add := func(name, controller string, one specs.LinuxCPU) {
		out = append(out, limit{name, controller, specs.LinuxResources{CPU: &one}})
	}
	if set(c.Quota) || c.Period != nil && *c.Period != 0 {
		period := uint64(defaultPeriod)
		if c.Period != nil && *c.Period != 0 {
			period = *c.Period
		}
		one := specs.LinuxCPU{Period: &period}
		if set(c.Quota) {
			one.Quota = c.Quota
		}
		add("cpu", "cpu", one)
	}
	if c.Burst != nil && *c.Burst != 0 {
		add("cpu-burst", "cpu", specs.LinuxCPU{Burst: c.Burst})
	}
	if c.Shares != nil && *c.Shares != 0 {
		add("cpu-shares", "cpu", specs.LinuxCPU{Shares: c.Shares})
	}
	if c.Idle != nil && *c.Idle != 0 {
		add("cpu-idle", "cpu", specs.LinuxCPU{Idle: c.Idle})
	}
	if c.RealtimePeriod != nil || c.RealtimeRuntime != nil {
		add("cpu-realtime", "cpu", specs.LinuxCPU{RealtimePeriod: c.RealtimePeriod, RealtimeRuntime: c.RealtimeRuntime})
	}
	for _, l := range []struct{ name, list string }{{"cpuset-cpus", c.Cpus}, {"cpuset-mems", c.Mems}} {
		if strings.Trim(l.list, "0123456789,-") != "" {
			return nil, &LimitError{Limit: l.name, Reason: fmt.Sprintf("%q is not a list of numbers and ranges", l.list), Mend: "write it like 0-2,4"}
		}
	}
	if c.Cpus != "" {
		add("cpuset-cpus", "cpuset", specs.LinuxCPU{Cpus: c.Cpus})
	}
	if c.Mems != "" {
		add("cpuset-mems", "cpuset", specs.LinuxCPU{Mems: c.Mems})
	}
	return out, nil
}

func blockLimits(b *specs.LinuxBlockIO) []limit {
	if b == nil {
		return nil
	}
	var out []limit
	add := func(name string, one specs.LinuxBlockIO) {
		out = append(out, limit{name, "blkio", specs.LinuxResources{BlockIO: &one}})
	}
	if b.Weight != nil && *b.Weight != 0 {
		add("blkio-weight", specs.LinuxBlockIO{Weight: b.Weight})
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		add("blkio-leaf-weight", specs.LinuxBlockIO{LeafWeight: b.LeafWeight})
	}
	if slices.ContainsFunc(b.WeightDevice, func(d specs.LinuxWeightDevice) bool { return d.Weight != nil }) {
		add("blkio-weight-device", specs.LinuxBlockIO{WeightDevice: b.WeightDevice})
	}
	if slices.ContainsFunc(b.WeightDevice, func(d specs.LinuxWeightDevice) bool { return d.LeafWeight != nil }) {
		add("blkio-leaf-weight-device", specs.LinuxBlockIO{WeightDevice: b.WeightDevice})
	}
	if len(b.ThrottleReadBpsDevice) > 0 {
		add("device-read-bps", specs.LinuxBlockIO{ThrottleReadBpsDevice: b.ThrottleReadBpsDevice})
	}
	if len(b.ThrottleWriteBpsDevice) > 0 {
		add("device-write-bps", specs.LinuxBlockIO{ThrottleWriteBpsDevice: b.ThrottleWriteBpsDevice})
	}
	if len(b.ThrottleReadIOPSDevice) > 0 {
		add("device-read-iops", specs.LinuxBlockIO{ThrottleReadIOPSDevice: b.ThrottleReadIOPSDevice})
	}
	if len(b.ThrottleWriteIOPSDevice) > 0 {
		add("device-write-iops", specs.LinuxBlockIO{ThrottleWriteIOPSDevice: b.ThrottleWriteIOPSDevice})
	}
	return out
}

// hugeLimits checks the sizes of pages, which become file names: config-linux.md
// wants <size><unit-prefix>B, as the kernel names its files.
func hugeLimits(r *specs.LinuxResources) ([]limit, error) {
	var out []limit
	for _, l := range r.HugepageLimits {
		number, ok := strings.CutSuffix(l.Pagesize, "B")
		if ok && number != "" && strings.ContainsAny(number[len(number)-1:], "KMG") {
			number = number[:len(number)-1]
		}
		if n, err := strconv.ParseUint(number, 10, 32); !ok || err != nil || n == 0 || number[0] == '0' || number[0] == '+' {
			return nil, &LimitError{Limit: "hugetlb", Reason: fmt.Sprintf("%q is not the size of a page", l.Pagesize), Mend: "write it like 2MB or 1GB"}
		}
		out = append(out, limit{"hugetlb", "hugetlb", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{l}}})
	}
	return out, nil
}

// isWord tells whether a name can be one word of a control file's line.
func isWord(name string) bool {
	return name != "" && len(name) < 256 && !strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '=' })
}

func rdmaLimits(r *specs.LinuxResources) ([]limit, error) {
	if len(r.Rdma) == 0 {
		return nil, nil
	}
	for name, d := range r.Rdma {
		if !isWord(name) {
			return nil, &LimitError{Limit: "rdma", Reason: fmt.Sprintf("%q is not the name of a device", name)}
		}
		if d.HcaHandles == nil && d.HcaObjects == nil {
			return nil, &LimitError{Limit: "rdma", Reason: fmt.Sprintf("%s limits neither hcaHandles nor hcaObjects", name), Mend: "give at least one of them (config-linux.md, RDMA)"}
		}
	}
	return []limit{{"rdma", "rdma", specs.LinuxResources{Rdma: r.Rdma}}}, nil
}

func networkLimits(r *specs.LinuxResources) ([]limit, error) {
	n := r.Network
	if n == nil {
		return nil, nil
	}
	var out []limit
	if n.ClassID != nil && *n.ClassID != 0 {
		out = append(out, limit{"network-class", "net_cls", specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: n.ClassID}}})
	}
	for _, p := range n.Priorities {
		if !isWord(p.Name) {
			return nil, &LimitError{Limit: "network-priority", Reason: fmt.Sprintf("%q is not the name of an interface", p.Name)}
		}
	}
	if len(n.Priorities) > 0 {
		out = append(out, limit{"network-priority", "net_prio", specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: n.Priorities}}})
	}
	return out, nil
}

// fields are the places in a bundle that limits come from.
var fields = map[string]string{
	"memory": "memory.limit", "memory-reservation": "memory.reservation", "memory-swap": "memory.swap",
	"memory-kernel-tcp": "memory.kernelTCP", "memory-swappiness": "memory.swappiness", "oom-kill-disable": "memory.disableOOMKiller",
	"cpu": "cpu.quota", "cpu-burst": "cpu.burst", "cpu-shares": "cpu.shares", "cpu-idle": "cpu.idle", "cpu-realtime": "cpu.realtimeRuntime",
	"cpuset-cpus": "cpu.cpus", "cpuset-mems": "cpu.mems", "pids": "pids.limit", "devices": "devices",
	"blkio-weight": "blockIO.weight", "blkio-leaf-weight": "blockIO.leafWeight",
	"blkio-weight-device": "blockIO.weightDevice", "blkio-leaf-weight-device": "blockIO.weightDevice",
	"device-read-bps": "blockIO.throttleReadBpsDevice", "device-write-bps": "blockIO.throttleWriteBpsDevice",
	"device-read-iops": "blockIO.throttleReadIOPSDevice", "device-write-iops": "blockIO.throttleWriteIOPSDevice",
	"hugetlb": "hugepageLimits", "rdma": "rdma", "network-class": "network.classID", "network-priority": "network.priorities",
	"unified": "unified",
}

// Field is where in a bundle the limit is (config-linux.md).
func (e *LimitError) Field() string { return "linux.resources." + fields[e.Limit] }

// unifiedLimits checks the names of control files: they become paths. The
// core's own files are refused but for the two that limit: cgroup.procs or
// cgroup.kill in a bundle would be an order, not a limit.
func unifiedLimits(files map[string]string) ([]limit, error) {
	var out []limit
	for _, name := range slices.Sorted(maps.Keys(files)) {
		controller, rest, ok := strings.Cut(name, ".")
		bad := strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != ""
		core := controller == "cgroup" && rest != "max.depth" && rest != "max.descendants"
		if !ok || controller == "" || rest == "" || bad || core {
			return nil, &LimitError{Limit: "unified", Reason: fmt.Sprintf("%q is not the control file of a limit", name)}
		}
		if controller == "cgroup" {
			controller = ""
		}
		out = append(out, limit{"unified", controller, specs.LinuxResources{Unified: map[string]string{name: files[name]}}})
	}
	return out, nil
}
