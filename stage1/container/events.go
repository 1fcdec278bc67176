// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"math"
	"os"
	"time"

	"github.com/gantryrun/gantry/cgroups"

	"github.com/gantryrun/gantry/stage1/launch"
)

// Event is what runc's command events prints, by the names engines read
// (runc's types/events.go).
type Event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data *Stats `json:"data,omitempty"`
}

// Stats are the figures of a container.
type Stats struct {
	CPU struct {
		Usage struct {
			Total  uint64   `json:"total,omitempty"`
			PerCPU []uint64 `json:"percpu,omitempty"`
			Kernel uint64   `json:"kernel"`
			User   uint64   `json:"user"`
		} `json:"usage"`
		Throttling struct {
			Periods   uint64 `json:"periods,omitempty"`
			Throttled uint64 `json:"throttledPeriods,omitempty"`
			Time      uint64 `json:"throttledTime,omitempty"`
		} `json:"throttling"`
	} `json:"cpu"`
	Memory struct {
		Cache     uint64            `json:"cache,omitempty"`
		Usage     counter           `json:"usage"`
		Swap      counter           `json:"swap"`
		Kernel    counter           `json:"kernel"`
		KernelTCP counter           `json:"kernelTCP"`
		Raw       map[string]uint64 `json:"raw,omitempty"`
	} `json:"memory"`
	Pids struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	} `json:"pids"`
	Blkio struct {
		Bytes []blockEntry `json:"ioServiceBytesRecursive,omitempty"`
		Ops   []blockEntry `json:"ioServicedRecursive,omitempty"`
	} `json:"blkio"`
	Hugetlb map[string]huge `json:"hugetlb"`
}

type counter struct {
	Limit    uint64 `json:"limit"`
	Usage    uint64 `json:"usage,omitempty"`
	Max      uint64 `json:"max,omitempty"`
	Failures uint64 `json:"failcnt"`
}

type huge struct {
	Usage    uint64 `json:"usage,omitempty"`
	Max      uint64 `json:"max,omitempty"`
	Failures uint64 `json:"failcnt"`
}

type blockEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

func statsOf(u cgroups.Usage) *Stats {
	s := &Stats{Hugetlb: map[string]huge{}}
	s.CPU.Usage.Total, s.CPU.Usage.PerCPU = u.CPU, u.PerCPU
	s.CPU.Usage.Kernel, s.CPU.Usage.User = u.CPUKernel, u.CPUUser
	s.CPU.Throttling.Periods, s.CPU.Throttling.Throttled, s.CPU.Throttling.Time = u.Periods, u.Throttled, u.ThrottledTime
	s.Memory.Usage, s.Memory.Swap = counter(u.Memory), counter(u.Swap)
	s.Memory.Kernel, s.Memory.KernelTCP = counter(u.Kernel), counter(u.KernelTCP)
	s.Memory.Raw, s.Memory.Cache = u.MemoryStat, u.MemoryStat["cache"]
	if cache, v2 := u.MemoryStat["file"]; v2 {
		s.Memory.Cache = cache
	}
	s.Pids.Current = u.Pids
	if u.PidsLimit != math.MaxUint64 { // as runc has it, no limit is zero
		s.Pids.Limit = u.PidsLimit
	}
	for size, c := range u.Huge {
		s.Hugetlb[size] = huge{c.Usage, c.Max, c.Failures}
	}
	for _, c := range u.BlockBytes {
		s.Blkio.Bytes = append(s.Blkio.Bytes, blockEntry(c))
	}
	for _, c := range u.BlockOps {
		s.Blkio.Ops = append(s.Blkio.Ops, blockEntry(c))
	}
	return s
}

// Stats reads the figures of a container that has not ended, once.
func (c *Container) Stats() (*Event, error) {
	p, err := c.living()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return c.stats(cgroups.ReadUsage(cgroups.Existing(c.Cgroups))), nil
}

func (c *Container) stats(u cgroups.Usage) *Event {
	return &Event{Type: "stats", ID: c.ID, Data: statsOf(u)}
}

// living opens the container's process, which must not have ended.
func (c *Container) living() (*os.File, error) {
	p, err := c.process()
	if err != nil {
		return nil, err
	}
	if p != nil && ended(p) {
		_ = p.Close()
		p = nil
	}
	if p == nil {
		return nil, fmt.Errorf("container %q is not running", c.ID)
	}
	return p, nil
}

// Follow tells of a container until it ends: its figures after each interval,
// and whenever processes were killed for want of memory since.
func (c *Container) Follow(interval time.Duration, tell func(*Event) error) error {
	p, err := c.living()
	if err != nil {
		return err
	}
	defer p.Close()
	dirs := cgroups.Existing(c.Cgroups)
	kills := cgroups.ReadUsage(dirs).OOMKills
	for {
		over, err := launch.EndsWithin(p, interval)
		if err != nil {
			return err
		}
		u := cgroups.ReadUsage(dirs)
		if u.OOMKills > kills {
			kills = u.OOMKills
			if err := tell(&Event{Type: "oom", ID: c.ID}); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
		if err := tell(c.stats(u)); err != nil {
			return err
		}
	}
}
