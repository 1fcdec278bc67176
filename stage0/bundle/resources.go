// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/hint"
)

// Node is a device node of the host.
type Node struct {
	Path         string // below the one asked for; "" is that itself
	Type         string // c, b or p
	Major, Minor int64
	Mode         uint32 // permissions
	UID, GID     uint32
}

// cgroupParent is where the app's group goes instead of below our own. A
// slice is systemd's: a group that it has not made and not delegated it may
// take away.
func (b *builder) cgroupParent() error {
	p := b.Options.CgroupParent
	switch {
	case p == "":
		return nil
	case strings.HasSuffix(path.Clean(p), ".slice"):
		return hint.With(
			fmt.Errorf("--cgroup-parent %q: a slice is systemd's to fill", p),
			fmt.Sprintf("start in it: systemd-run --scope -p Delegate=yes --slice=%s gantry run …", path.Base(path.Clean(p))),
		)
	case !path.IsAbs(p) || path.Clean(p) == "/" || clean("", p) != nil:
		return fmt.Errorf("--cgroup-parent %q: write the group's path from the top of the hierarchy, as in /machines", p)
	}
	b.r.Strict["parent"] = true
	return nil
}

// number reads a whole number within bounds; "" is none.
func number(flag, s string, lo, hi int64) (*int64, error) {
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err == nil && n >= lo && n <= hi:
		return &n, nil
	case hi == math.MaxInt64:
		return nil, fmt.Errorf("%s %q: write a number from %d on", flag, s, lo)
	}
	return nil, fmt.Errorf("%s %q: write a number from %d to %d", flag, s, lo, hi)
}

// cpuTime is the quota by its parts, which --cpus says in one.
func (b *builder) cpuTime(r *specs.LinuxResources) error {
	o := b.Options
	if o.CPUs != "" && o.CPUPeriod+o.CPUQuota != "" {
		return fmt.Errorf("--cpus and --cpu-period or --cpu-quota say the same thing: give one")
	}
	period, err := number("--cpu-period", o.CPUPeriod, 1000, 1_000_000)
	if err != nil {
		return err
	}
	quota, err := number("--cpu-quota", o.CPUQuota, -1, math.MaxInt64)
	if err == nil && quota != nil && *quota >= 0 && *quota < 1000 {
		err = fmt.Errorf("--cpu-quota %q: the kernel takes 1000 (a millisecond) or more, or -1 for no limit", o.CPUQuota)
	}
	if err != nil {
		return err
	}
	rtPeriod, err := number("--cpu-rt-period", o.CPURTPeriod, 1, math.MaxInt64)
	if err != nil {
		return err
	}
	rtRuntime, err := number("--cpu-rt-runtime", o.CPURTRuntime, 0, math.MaxInt64)
	if err != nil {
		return err
	}
	if period == nil && quota == nil && rtPeriod == nil && rtRuntime == nil {
		return nil
	}
	if r.CPU == nil {
		r.CPU = &specs.LinuxCPU{}
	}
	b.r.Strict["cpu"] = true
	if quota != nil {
		r.CPU.Quota = quota
	}
	if period != nil {
		r.CPU.Period = unsigned(period)
	}
	r.CPU.RealtimePeriod, r.CPU.RealtimeRuntime = unsigned(rtPeriod), rtRuntime
	return nil
}

func unsigned(n *int64) *uint64 {
	if n == nil {
		return nil
	}
	u := uint64(*n)
	return &u
}

// memoryBehaviour is what cgroup v1 alone has; on v2 the launch refuses it.
func (b *builder) memoryBehaviour(r *specs.LinuxResources) error {
	swappiness, err := number("--memory-swappiness", b.Options.MemorySwappiness, -1, 100)
	if err != nil {
		return err
	}
	if swappiness != nil && *swappiness < 0 {
		swappiness = nil
	}
	if swappiness == nil && !b.Options.OOMKillDisable {
		return nil
	}
	if b.Options.OOMKillDisable && b.Options.Memory == "" {
		return fmt.Errorf("--oom-kill-disable: it needs --memory, or an app without a limit takes all of the host's")
	}
	if r.Memory == nil {
		r.Memory = &specs.LinuxMemory{}
	}
	r.Memory.Swappiness = unsigned(swappiness)
	b.r.Strict["memory-swappiness"] = true
	if b.Options.OOMKillDisable {
		yes := true
		r.Memory.DisableOOMKiller = &yes
		b.r.Strict["oom"] = true
	}
	return nil
}

// blockIO are weights and limits of block devices.
func (b *builder) blockIO(r *specs.LinuxResources) error {
	o := b.Options
	io := &specs.LinuxBlockIO{}
	weight, err := number("--blkio-weight", o.BlkioWeight, 10, 1000)
	if err != nil {
		return err
	}
	some := weight != nil
	if some {
		w := uint16(*weight)
		io.Weight = &w
	}
	for _, v := range o.BlkioWeightDevice {
		node, value, err := b.blockDevice("--blkio-weight-device", v, "WEIGHT")
		if err != nil {
			return err
		}
		n, err := number("--blkio-weight-device "+v+":", value, 10, 1000)
		if err != nil || n == nil {
			return fmt.Errorf("--blkio-weight-device %q: write a weight from 10 to 1000", v)
		}
		w := uint16(*n)
		d := specs.LinuxWeightDevice{Weight: &w}
		d.Major, d.Minor = node.Major, node.Minor
		io.WeightDevice, some = append(io.WeightDevice, d), true
	}
	for _, t := range []struct {
		flag   string
		values []string
		sizes  bool
		to     *[]specs.LinuxThrottleDevice
	}{
		{"--device-read-bps", o.DeviceReadBps, true, &io.ThrottleReadBpsDevice},
		{"--device-write-bps", o.DeviceWriteBps, true, &io.ThrottleWriteBpsDevice},
		{"--device-read-iops", o.DeviceReadIOPS, false, &io.ThrottleReadIOPSDevice},
		{"--device-write-iops", o.DeviceWriteIOPS, false, &io.ThrottleWriteIOPSDevice},
	} {
		for _, v := range t.values {
			d, err := b.throttle(t.flag, v, t.sizes)
			if err != nil {
				return err
			}
			*t.to, some = append(*t.to, d), true
			b.r.Strict["device"] = true
		}
	}
	if some {
		b.r.Strict["blkio"] = true
		r.BlockIO = io
	}
	return nil
}

func (b *builder) throttle(flag, v string, sizes bool) (specs.LinuxThrottleDevice, error) {
	var d specs.LinuxThrottleDevice
	kind := "NUMBER"
	if sizes {
		kind = "SIZE"
	}
	node, value, err := b.blockDevice(flag, v, kind)
	if err != nil {
		return d, err
	}
	d.Major, d.Minor = node.Major, node.Minor
	if sizes {
		n, err := ParseSize(value)
		if err != nil || n <= 0 {
			return d, sizeError(fmt.Sprintf("%s %q:", flag, v), value, err)
		}
		d.Rate = uint64(n)
		return d, nil
	}
	n, err := number(flag, value, 1, math.MaxInt64)
	if err != nil || n == nil {
		return d, fmt.Errorf("%s %q: write a number above zero", flag, v)
	}
	d.Rate = uint64(*n)
	return d, nil
}

// blockDevice reads DEVICE:VALUE.
func (b *builder) blockDevice(flag, v, kind string) (Node, string, error) {
	i := strings.LastIndexByte(v, ':')
	if i <= 0 || !path.IsAbs(v) {
		return Node{}, "", fmt.Errorf("%s %q: write DEVICE:%s, as in /dev/sda:%s", flag, v, kind, map[string]string{"WEIGHT": "500", "SIZE": "1m", "NUMBER": "1000"}[kind])
	}
	nodes := b.Host.Devices[v[:i]]
	if len(nodes) != 1 || nodes[0].Path != "" || nodes[0].Type != "b" {
		return Node{}, "", fmt.Errorf("%s %q: %s is not a block device of this host", flag, v, v[:i])
	}
	return nodes[0], v[i+1:], nil
}

// BlockDevices are the devices of the host that options are about.
func (r Resources) BlockDevices() []string {
	var out []string
	for _, list := range [][]string{r.BlkioWeightDevice, r.DeviceReadBps, r.DeviceWriteBps, r.DeviceReadIOPS, r.DeviceWriteIOPS} {
		for _, v := range list {
			if i := strings.LastIndexByte(v, ':'); i > 0 && path.IsAbs(v) {
				out = append(out, v[:i])
			}
		}
	}
	return out
}

// unified are control files of cgroup v2 by name.
func (b *builder) unified(r *specs.LinuxResources) error {
	for _, kv := range b.Options.CgroupConf {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" || value == "" || clean("", kv) != nil {
			return fmt.Errorf("--cgroup-conf %q: write FILE=VALUE, as in memory.high=512M", kv)
		}
		if r.Unified == nil {
			r.Unified = map[string]string{}
		}
		r.Unified[name] = value
		b.r.Strict["unified"] = true
	}
	return nil
}
