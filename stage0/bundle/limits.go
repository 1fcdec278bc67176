// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/hint"
)

// limits sets the resource limits asked for, and no other: what the caller
// has, a unit's LimitNOFILE= for one, reaches the app.
func (b *builder) limits() error {
	seen := map[string]bool{}
	for _, u := range b.Options.Ulimits {
		if u == "host" {
			continue // podman's word for what we do anyway
		}
		l, err := ParseUlimit(u)
		if err != nil {
			return err
		}
		if seen[l.Type] {
			return fmt.Errorf("--ulimit %q: given twice", u)
		}
		seen[l.Type] = true
		i := slices.IndexFunc(b.Host.Limits, func(h specs.POSIXRlimit) bool { return h.Type == l.Type })
		if i >= 0 && l.Hard > b.Host.Limits[i].Hard && !b.Host.CanRaise {
			return hint.With(
				fmt.Errorf("--ulimit %q: the hard limit here is %s, and only CAP_SYS_RESOURCE may raise it", u, limitText(b.Host.Limits[i].Hard)),
				"ask for less, or raise it where gantry is started (LimitNOFILE= and its kin in a unit)",
			)
		}
		b.r.Spec.Process.Rlimits = append(b.r.Spec.Process.Rlimits, l)
	}
	return nil
}

func limitText(n uint64) string {
	if n == math.MaxUint64 {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// RlimitNames are the limits of Linux, in the order of their numbers.
func RlimitNames() []string {
	return []string{
		"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS",
		"RLIMIT_NPROC", "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS",
		"RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
	}
}

// ParseUlimit reads NAME=SOFT[:HARD]; -1 and unlimited mean no limit.
func ParseUlimit(s string) (specs.POSIXRlimit, error) {
	name, value, ok := strings.Cut(s, "=")
	l := specs.POSIXRlimit{Type: "RLIMIT_" + strings.TrimPrefix(strings.ToUpper(name), "RLIMIT_")}
	if ok && !slices.Contains(RlimitNames(), l.Type) {
		return l, fmt.Errorf("--ulimit %q: there is no limit %q; there are %s", s, name, strings.ToLower(strings.ReplaceAll(strings.Join(RlimitNames(), ", "), "RLIMIT_", "")))
	}
	if !ok {
		return l, fmt.Errorf("--ulimit %q: write NAME=SOFT[:HARD], as in nofile=1024:4096", s)
	}
	soft, hard, both := strings.Cut(value, ":")
	if !both {
		hard = soft
	}
	var err error
	if l.Soft, err = parseLimit(soft); err == nil {
		l.Hard, err = parseLimit(hard)
	}
	if err != nil {
		return l, fmt.Errorf("--ulimit %q: %w", s, err)
	}
	if l.Soft > l.Hard {
		return l, fmt.Errorf("--ulimit %q: the soft limit is above the hard one", s)
	}
	return l, nil
}

func parseLimit(s string) (uint64, error) {
	switch s {
	case "-1", "unlimited", "infinity":
		return math.MaxUint64, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return n, nil
}

// ParseSize reads a size in bytes with an optional unit b, k, m, g or t, of
// powers of 1024, also written kb, KiB and so on.
func ParseSize(s string) (int64, error) {
	number := strings.TrimRight(strings.ToLower(s), "bikmgt")
	unit := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s)[len(number):], "b"), "i")
	shift, ok := map[string]uint{"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[unit]
	if !ok {
		return 0, fmt.Errorf("%q: write a number with k, m, g or nothing after it", s)
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.ContainsAny(number, "expin_+-") {
		return 0, fmt.Errorf("%q: write a number with k, m, g or nothing after it", s)
	}
	n *= float64(uint64(1) << shift)
	if n < 0 || n >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is out of range", s)
	}
	return int64(n), nil
}

// defaultPids is podman's.
const defaultPids = 2048

// resources fills the cgroup's limits. What the user named goes into Strict:
// a host that cannot do it refuses; of defaults it only takes a note.
func (b *builder) resources() error {
	r := &specs.LinuxResources{Devices: deviceRules()}
	b.r.Spec.Linux.Resources = r
	for _, step := range []func(*specs.LinuxResources) error{b.memory, b.memoryBehaviour, b.cpu, b.cpuTime, b.pids, b.blockIO, b.unified} {
		if err := step(r); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) memory(r *specs.LinuxResources) error {
	o := b.Options
	if o.Memory == "" && o.MemorySwap == "" && o.MemoryReserve == "" {
		return nil
	}
	r.Memory = &specs.LinuxMemory{}
	b.r.Strict["memory"] = true
	if o.Memory != "" {
		n, err := ParseSize(o.Memory)
		if err != nil || n <= 0 {
			return sizeError("--memory", o.Memory, err)
		}
		r.Memory.Limit = &n
	}
	if o.MemoryReserve != "" {
		n, err := ParseSize(o.MemoryReserve)
		if err != nil || n <= 0 {
			return sizeError("--memory-reservation", o.MemoryReserve, err)
		}
		if r.Memory.Limit != nil && n > *r.Memory.Limit {
			return fmt.Errorf("--memory-reservation %s: it is above --memory %s", o.MemoryReserve, o.Memory)
		}
		r.Memory.Reservation = &n
	}
	return b.swap(r.Memory)
}

// swap sets memory and swap together, as podman and Docker count it: twice
// the memory when only that was given.
func (b *builder) swap(m *specs.LinuxMemory) error {
	o := b.Options
	switch {
	case o.MemorySwap == "":
		if m.Limit != nil && *m.Limit <= math.MaxInt64/2 {
			n := *m.Limit * 2
			m.Swap = &n
			b.r.Strict["memory-swap"] = false // many kernels do not count swap
		}
		return nil
	case o.MemorySwap == "-1":
		n := int64(-1)
		m.Swap = &n
	default:
		n, err := ParseSize(o.MemorySwap)
		if err != nil || n <= 0 {
			return sizeError("--memory-swap", o.MemorySwap, err)
		}
		if m.Limit == nil {
			return fmt.Errorf("--memory-swap %s: it needs --memory", o.MemorySwap)
		}
		if n < *m.Limit {
			return fmt.Errorf("--memory-swap %s: it counts memory and swap together, so it cannot be below --memory %s", o.MemorySwap, o.Memory)
		}
		m.Swap = &n
	}
	b.r.Strict["memory-swap"] = true
	return nil
}

func sizeError(flag, value string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %w", flag, err)
	}
	return fmt.Errorf("%s %q: it must be above zero", flag, value)
}

// cpuPeriod is the kernel's own default, in microseconds.
const cpuPeriod = 100_000

func (b *builder) cpu(r *specs.LinuxResources) error {
	o := b.Options
	cpu := &specs.LinuxCPU{Cpus: o.CPUSetCPUs, Mems: o.CPUSetMems}
	if o.CPUs != "" {
		n, err := strconv.ParseFloat(o.CPUs, 64)
		// The kernel takes a quota from one millisecond on.
		if err != nil || !(n >= 0.01) || n > 1e6 {
			return fmt.Errorf("--cpus %q: write a number from 0.01 on, as in 1.5", o.CPUs)
		}
		quota, period := int64(math.Round(n*cpuPeriod)), uint64(cpuPeriod)
		cpu.Quota, cpu.Period = &quota, &period
		b.r.Strict["cpu"] = true
	}
	if o.CPUShares != "" {
		n, err := strconv.ParseUint(o.CPUShares, 10, 64)
		if err != nil || n < 2 || n > 262144 {
			return fmt.Errorf("--cpu-shares %q: write a number from 2 to 262144", o.CPUShares)
		}
		cpu.Shares = &n
		b.r.Strict["cpu"] = true
	}
	for flag, list := range map[string]string{"--cpuset-cpus": o.CPUSetCPUs, "--cpuset-mems": o.CPUSetMems} {
		if strings.Trim(list, "0123456789,-") != "" {
			return fmt.Errorf("%s %q: write a list, as in 0-3,7", flag, list)
		}
		if list != "" {
			b.r.Strict["cpuset"] = true
		}
	}
	if *cpu != (specs.LinuxCPU{}) {
		r.CPU = cpu
	}
	return nil
}

func (b *builder) pids(r *specs.LinuxResources) error {
	n := int64(defaultPids)
	if s := b.Options.PidsLimit; s != "" {
		var err error
		if n, err = strconv.ParseInt(s, 10, 64); err != nil || n < -1 {
			return fmt.Errorf("--pids-limit %q: write a number; -1 is no limit", s)
		}
		if n == 0 {
			n = -1
		}
		b.r.Strict["pids"] = n > 0
	}
	r.Pids = &specs.LinuxPids{Limit: &n}
	return nil
}
