// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/internal/bounded"
)

// maxResources bounds what is read of a -r document.
const maxResources = 1 << 20

// update takes runc's flags. A document replaces them all.
func update(f *pflag.FlagSet) func(*call) error {
	file := f.StringP("resources", "r", "", "read linux.resources as JSON from `FILE`, - for standard input; other flags are ignored then")
	values := map[string]*string{}
	for _, u := range updates() {
		values[u.flag] = f.String(u.flag, "", u.text)
	}
	f.String("kernel-memory", "", "accepted for compatibility: kernels have no such limit any more")
	f.String("kernel-memory-tcp", "", "accepted for compatibility: kernels have no such limit any more")
	l3 := f.String("l3-cache-schema", "", "cache of the container's class of Intel RDT, `LINE` of schemata")
	bandwidth := f.String("mem-bw-schema", "", "memory bandwidth of that class, `LINE` of schemata")
	return func(c *call) error {
		r, err := resources(*file, values)
		if err != nil {
			return err
		}
		ct, err := c.store().Open(c.args[0])
		if err != nil {
			return err
		}
		defer ct.Close()
		if err := ct.Update(r); err != nil {
			return err
		}
		if lines := slices.DeleteFunc([]string{*l3, *bandwidth}, func(s string) bool { return s == "" }); len(lines) > 0 {
			return ct.Reclassify(lines...)
		}
		return nil
	}
}

func resources(file string, values map[string]*string) (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}, Pids: &specs.LinuxPids{}, BlockIO: &specs.LinuxBlockIO{}}
	if file != "" {
		return r, readResources(file, r)
	}
	for _, u := range updates() {
		if v := *values[u.flag]; v != "" {
			if err := u.set(r, v); err != nil {
				return nil, fmt.Errorf("--%s: %w", u.flag, err)
			}
		}
	}
	return r, nil
}

func readResources(file string, r *specs.LinuxResources) error {
	in := os.Stdin
	if file != "-" {
		var err error
		if in, err = os.Open(file); err != nil {
			return fmt.Errorf("--resources: %w", err)
		}
		defer in.Close()
	}
	b, err := bounded.All(in, maxResources)
	if err == nil {
		err = json.Unmarshal(b, r)
	}
	if err != nil {
		return fmt.Errorf("--resources %s: %w", file, err)
	}
	return nil
}

// updated is one flag of update.
type updated struct {
	flag, text string
	set        func(*specs.LinuxResources, string) error
}

func updates() []updated {
	signed := func(flag, text string, field func(*specs.LinuxResources) **int64) updated {
		return updated{flag, text, func(r *specs.LinuxResources, s string) error { return parseTo(field(r), s, number) }}
	}
	size := func(flag, text string, field func(*specs.LinuxResources) **int64) updated {
		return updated{flag, text, func(r *specs.LinuxResources, s string) error { return parseTo(field(r), s, parseSize) }}
	}
	unsigned := func(flag, text string, field func(*specs.LinuxResources) **uint64) updated {
		return updated{flag, text, func(r *specs.LinuxResources, s string) error {
			return parseTo(field(r), s, func(s string) (uint64, error) { n, err := strconv.ParseUint(s, 10, 64); return n, plain(err) })
		}}
	}
	return []updated{
		{"blkio-weight", "weight of block IO, `N` from 10 to 1000", func(r *specs.LinuxResources, s string) error {
			return parseTo(&r.BlockIO.Weight, s, func(s string) (uint16, error) { n, err := strconv.ParseUint(s, 10, 16); return uint16(n), plain(err) })
		}},
		unsigned("cpu-period", "period of the CPU quota, in microseconds `N`", func(r *specs.LinuxResources) **uint64 { return &r.CPU.Period }),
		signed("cpu-quota", "CPU time per period, in microseconds `N`; -1 for no limit", func(r *specs.LinuxResources) **int64 { return &r.CPU.Quota }),
		unsigned("cpu-burst", "CPU time that may be saved up, in microseconds `N`", func(r *specs.LinuxResources) **uint64 { return &r.CPU.Burst }),
		unsigned("cpu-share", "weight of the CPU, `N`", func(r *specs.LinuxResources) **uint64 { return &r.CPU.Shares }),
		unsigned("cpu-rt-period", "period of the realtime quota, in microseconds `N`", func(r *specs.LinuxResources) **uint64 { return &r.CPU.RealtimePeriod }),
		signed("cpu-rt-runtime", "realtime per period, in microseconds `N`", func(r *specs.LinuxResources) **int64 { return &r.CPU.RealtimeRuntime }),
		signed("cpu-idle", "`N` is 1 for the CPU's idle class, 0 to leave it", func(r *specs.LinuxResources) **int64 { return &r.CPU.Idle }),
		{"cpuset-cpus", "CPUs to use, a `LIST` like 0-2,4", func(r *specs.LinuxResources, s string) error { r.CPU.Cpus = s; return nil }},
		{"cpuset-mems", "memory nodes to use, a `LIST`", func(r *specs.LinuxResources, s string) error { r.CPU.Mems = s; return nil }},
		size("memory", "memory limit of `BYTES`, with k, m or g; -1 for no limit", func(r *specs.LinuxResources) **int64 { return &r.Memory.Limit }),
		size("memory-reservation", "soft limit of `BYTES`", func(r *specs.LinuxResources) **int64 { return &r.Memory.Reservation }),
		size("memory-swap", "limit of memory and swap together, `BYTES`; -1 for no limit", func(r *specs.LinuxResources) **int64 { return &r.Memory.Swap }),
		signed("pids-limit", "at most `N` processes; -1 for no limit", func(r *specs.LinuxResources) **int64 { return &r.Pids.Limit }),
	}
}

func parseTo[T any](to **T, s string, parse func(string) (T, error)) error {
	v, err := parse(s)
	if err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	*to = &v
	return nil
}

func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, plain(err)
}

// plain keeps the reason of strconv, without its words.
func plain(err error) error {
	if n := (*strconv.NumError)(nil); errors.As(err, &n) {
		if errors.Is(n.Err, strconv.ErrRange) {
			return errors.New("is out of range")
		}
		return errors.New("is not a number")
	}
	return err
}

// parseSize reads bytes with an optional unit, of powers of 1024.
func parseSize(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	lower := strings.ToLower(s)
	digits := strings.TrimRight(lower, "bikmgt")
	unit := strings.TrimSuffix(strings.TrimSuffix(lower[len(digits):], "b"), "i")
	shift, ok := map[string]uint{"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[unit]
	n, err := strconv.ParseUint(digits, 10, 63)
	if !ok || err != nil || n > math.MaxInt64>>shift {
		return 0, errors.New("write a number with k, m, g or nothing after it")
	}
	return int64(n << shift), nil
}
