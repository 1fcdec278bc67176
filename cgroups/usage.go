// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is everything the kernel counts of a group, for engines that want it
// as it is. What is not counted here is zero; no limit is the largest number.
type Usage struct {
	CPU, CPUKernel, CPUUser           uint64 // nanoseconds
	PerCPU                            []uint64
	Periods, Throttled, ThrottledTime uint64
	Memory, Swap, Kernel, KernelTCP   Counter // Swap counts memory as well
	MemoryStat                        map[string]uint64
	Pids, PidsLimit                   uint64
	Huge                              map[string]Counter // by size of page
	BlockBytes, BlockOps              []BlockCounter
	OOMKills                          uint64
}

// Counter is a resource that is used and limited.
type Counter struct{ Limit, Usage, Max, Failures uint64 }

// BlockCounter counts what was done on one device.
type BlockCounter struct {
	Major, Minor uint64
	Op           string
	Value        uint64
}

// ReadUsage reads it from the directories of a group, wherever its controllers
// are.
func ReadUsage(dirs []string) Usage {
	u := Usage{Huge: map[string]Counter{}}
	for _, dir := range dirs {
		if isUnified(dir) {
			u.readV2(dir)
		} else {
			u.readV1(dir)
		}
	}
	return u
}

// get sets *to from a file that is there.
func get(to *uint64, dir, file string) {
	if n, ok := number(dir, file); ok {
		*to = n
	} else if words, err := readWords(filepath.Join(dir, file)); err == nil && len(words) == 1 && words[0] == "max" {
		*to = math.MaxUint64
	}
}

func getKey(to *uint64, factor uint64, dir, file, word string) {
	if n, ok := key(dir, file, word); ok {
		*to = n * factor
	}
}

func (u *Usage) readV1(dir string) {
	const tick = 1e9 / 100 // of USER_HZ, which is 100 everywhere Go runs
	get(&u.CPU, dir, "cpuacct.usage")
	getKey(&u.CPUUser, tick, dir, "cpuacct.stat", "user")
	getKey(&u.CPUKernel, tick, dir, "cpuacct.stat", "system")
	if words, err := readWords(filepath.Join(dir, "cpuacct.usage_percpu")); err == nil {
		for _, w := range words {
			n, _ := strconv.ParseUint(w, 10, 64)
			u.PerCPU = append(u.PerCPU, n)
		}
	}
	u.throttling(dir, "throttled_time", 1)
	for prefix, c := range map[string]*Counter{
		"memory": &u.Memory, "memory.memsw": &u.Swap, "memory.kmem": &u.Kernel, "memory.kmem.tcp": &u.KernelTCP,
	} {
		c.readV1(dir, prefix)
	}
	getKey(&u.OOMKills, 1, dir, "memory.oom_control", "oom_kill")
	u.common(dir)
	for _, prefix := range hugePrefixes(dir, ".limit_in_bytes") {
		var c Counter
		c.readV1(dir, prefix)
		u.Huge[strings.TrimPrefix(prefix, "hugetlb.")] = c
	}
	u.BlockBytes = append(u.BlockBytes, blockV1(dir, "blkio.throttle.io_service_bytes_recursive")...)
	u.BlockOps = append(u.BlockOps, blockV1(dir, "blkio.throttle.io_serviced_recursive")...)
}

func (c *Counter) readV1(dir, prefix string) {
	get(&c.Limit, dir, prefix+".limit_in_bytes")
	get(&c.Usage, dir, prefix+".usage_in_bytes")
	get(&c.Max, dir, prefix+".max_usage_in_bytes")
	get(&c.Failures, dir, prefix+".failcnt")
}

// common are the files both versions have.
func (u *Usage) common(dir string) {
	get(&u.Pids, dir, "pids.current")
	get(&u.PidsLimit, dir, "pids.max")
	if stat := keys(dir, "memory.stat"); len(stat) > 0 {
		u.MemoryStat = stat
	}
}

func (u *Usage) throttling(dir, word string, factor uint64) {
	getKey(&u.Periods, 1, dir, "cpu.stat", "nr_periods")
	getKey(&u.Throttled, 1, dir, "cpu.stat", "nr_throttled")
	getKey(&u.ThrottledTime, factor, dir, "cpu.stat", word)
}

func (u *Usage) readV2(dir string) {
	if u.CPU == 0 { // on hosts that mix, cpuacct counts more finely
		getKey(&u.CPU, 1000, dir, "cpu.stat", "usage_usec")
		getKey(&u.CPUUser, 1000, dir, "cpu.stat", "user_usec")
		getKey(&u.CPUKernel, 1000, dir, "cpu.stat", "system_usec")
	}
	u.throttling(dir, "throttled_usec", 1000)
	u.Memory.readV2(dir, "memory")
	getKey(&u.Memory.Failures, 1, dir, "memory.events", "max")
	getKey(&u.OOMKills, 1, dir, "memory.events", "oom_kill")
	if _, ok := number(dir, "memory.swap.current"); ok {
		u.Swap.readV2(dir, "memory.swap")
		getKey(&u.Swap.Failures, 1, dir, "memory.swap.events", "max")
		u.Swap.Usage += u.Memory.Usage
		u.Swap.Limit = plus(u.Swap.Limit, u.Memory.Limit)
		u.Swap.Max = plus(u.Swap.Max, u.Memory.Max)
	}
	u.common(dir)
	for _, prefix := range hugePrefixes(dir, ".max") {
		var c Counter
		c.readV2(dir, prefix)
		getKey(&c.Failures, 1, dir, prefix+".events", "max")
		u.Huge[strings.TrimPrefix(prefix, "hugetlb.")] = c
	}
	u.blockV2(dir)
}

func (c *Counter) readV2(dir, prefix string) {
	get(&c.Limit, dir, prefix+".max")
	get(&c.Usage, dir, prefix+".current")
	get(&c.Max, dir, prefix+".peak")
}

// plus adds, where the largest number is no limit.
func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// keys reads a file of "word number" lines.
func keys(dir, file string) map[string]uint64 {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil
	}
	out := map[string]uint64{}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			if n, err := strconv.ParseUint(v, 10, 64); err == nil {
				out[k] = n
			}
		}
	}
	return out
}

// hugePrefixes are the sizes of huge pages that are counted: "hugetlb.2MB".
func hugePrefixes(dir, suffix string) []string {
	files, _ := filepath.Glob(filepath.Join(dir, "hugetlb.*"+suffix))
	var out []string
	for _, f := range files {
		prefix := strings.TrimSuffix(filepath.Base(f), suffix)
		if strings.Count(prefix, ".") == 1 { // not hugetlb.2MB.rsvd
			out = append(out, prefix)
		}
	}
	return out
}

// blockV1 reads lines like "8:0 Read 123"; those of totals have no device.
func blockV1(dir, file string) []BlockCounter {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil
	}
	var out []BlockCounter
	for line := range strings.Lines(string(b)) {
		var c BlockCounter
		if _, err := fmt.Sscanf(line, "%d:%d %s %d", &c.Major, &c.Minor, &c.Op, &c.Value); err == nil {
			out = append(out, c)
		}
	}
	return out
}

// blockV2 reads lines like "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …" and says
// them in the words of v1, as engines expect.
func (u *Usage) blockV2(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "io.stat"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		var c BlockCounter
		if len(fields) == 0 {
			continue
		}
		if _, err := fmt.Sscanf(fields[0], "%d:%d", &c.Major, &c.Minor); err != nil {
			continue
		}
		for _, f := range fields[1:] {
			name, value, _ := strings.Cut(f, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				continue
			}
			c.Value = n
			switch name {
			case "rbytes", "wbytes":
				c.Op = map[string]string{"rbytes": "Read", "wbytes": "Write"}[name]
				u.BlockBytes = append(u.BlockBytes, c)
			case "rios", "wios":
				c.Op = map[string]string{"rios": "Read", "wios": "Write"}[name]
				u.BlockOps = append(u.BlockOps, c)
			}
		}
	}
}
