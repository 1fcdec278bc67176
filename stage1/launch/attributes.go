// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// attributes are what the kernel's schedulers and allocator remember of a
// process and its children inherit.
func (p *planner) attributes(proc *specs.Process) error {
	if err := p.scheduler(proc.Scheduler); err != nil {
		return err
	}
	if io := proc.IOPriority; io != nil {
		step, err := ioPriority(io)
		if err != nil {
			return err
		}
		p.add(stage1.Step{IOPriority: step})
	}
	if err := p.affinity(proc.ExecCPUAffinity); err != nil {
		return err
	}
	if m := p.linux.MemoryPolicy; m != nil {
		step, err := memoryPolicy(m)
		if err != nil {
			return err
		}
		p.add(stage1.Step{MemPolicy: step})
	}
	return nil
}

// scheduler sets it while it is privileged. The process that an exec makes
// inherits all but two things. SCHED_FLAG_RESET_ON_FORK it can set itself. A
// deadline it gets no other way, and for that needs CAP_SYS_NICE.
func (p *planner) scheduler(s *specs.Scheduler) error {
	if s == nil {
		return nil
	}
	step, err := schedulerStep(s)
	if err != nil {
		return err
	}
	own := *step
	if h := p.spec.Hooks; p.apart == nil && h != nil && len(h.StartContainer) > 0 &&
		own.Policy == unix.SCHED_DEADLINE && own.Flags&unix.SCHED_FLAG_RESET_ON_FORK == 0 {
		return fmt.Errorf("process.scheduler: a process with a deadline makes no other (sched(7)), so hooks.startContainer needs SCHED_FLAG_RESET_ON_FORK")
	}
	if p.apart != nil && (own.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0 || own.Policy == unix.SCHED_DEADLINE) {
		p.apart.Scheduler = step
		own.Flags &^= unix.SCHED_FLAG_RESET_ON_FORK
		if own.Policy == unix.SCHED_DEADLINE {
			return p.mayHaveDeadline()
		}
	}
	p.add(stage1.Step{Scheduler: &own})
	return nil
}

func (p *planner) mayHaveDeadline() error {
	if caps := p.spec.Process.Capabilities; caps == nil || !slices.Contains(caps.Effective, "CAP_SYS_NICE") {
		return fmt.Errorf("process.scheduler: SCHED_DEADLINE is not inherited: the process of an exec needs CAP_SYS_NICE to have it")
	}
	return nil
}

func schedulerStep(s *specs.Scheduler) (*stage1.Scheduler, error) {
	policy := slices.Index([]specs.LinuxSchedulerPolicy{
		specs.SchedOther, specs.SchedFIFO, specs.SchedRR, specs.SchedBatch, specs.SchedISO, specs.SchedIdle, specs.SchedDeadline,
	}, s.Policy)
	realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	switch {
	case policy < 0:
		return nil, fmt.Errorf("process.scheduler.policy: %q is not a policy", s.Policy)
	case s.Policy == specs.SchedISO:
		return nil, fmt.Errorf("process.scheduler.policy: SCHED_ISO is reserved, no kernel has it")
	case s.Nice < -20 || s.Nice > 19:
		return nil, fmt.Errorf("process.scheduler.nice: %d is not from -20 to 19", s.Nice)
	case realtime && (s.Priority < 1 || s.Priority > 99):
		return nil, fmt.Errorf("process.scheduler.priority: %d is not from 1 to 99, which %s needs", s.Priority, s.Policy)
	case !realtime && s.Priority != 0:
		return nil, fmt.Errorf("process.scheduler.priority: is for SCHED_FIFO and SCHED_RR, not for %s", s.Policy)
	}
	if err := checkDeadline(s); err != nil {
		return nil, err
	}
	step := &stage1.Scheduler{
		Name: string(s.Policy), Policy: uint32(policy), Nice: s.Nice, Priority: uint32(s.Priority),
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	for i, flag := range s.Flags {
		bit, ok := schedulerFlag(flag)
		if !ok {
			return nil, fmt.Errorf("process.scheduler.flags[%d]: %q is not a flag", i, flag)
		}
		step.Flags |= bit
	}
	return step, nil
}

func checkDeadline(s *specs.Scheduler) error {
	period := s.Period
	if period == 0 {
		period = s.Deadline
	}
	switch {
	case s.Policy != specs.SchedDeadline && s.Runtime|s.Deadline|s.Period != 0:
		return fmt.Errorf("process.scheduler: runtime, deadline and period are for SCHED_DEADLINE, not for %s", s.Policy)
	case s.Policy == specs.SchedDeadline && (s.Runtime == 0 || s.Runtime > s.Deadline || s.Deadline > period):
		return fmt.Errorf("process.scheduler: SCHED_DEADLINE needs 0 < runtime <= deadline <= period, not %d, %d, %d", s.Runtime, s.Deadline, s.Period)
	}
	return nil
}

func schedulerFlag(flag specs.LinuxSchedulerFlag) (uint64, bool) {
	switch flag {
	case specs.SchedFlagResetOnFork:
		return unix.SCHED_FLAG_RESET_ON_FORK, true
	case specs.SchedFlagReclaim:
		return unix.SCHED_FLAG_RECLAIM, true
	case specs.SchedFlagDLOverrun:
		return unix.SCHED_FLAG_DL_OVERRUN, true
	case specs.SchedFlagKeepPolicy:
		return unix.SCHED_FLAG_KEEP_POLICY, true
	case specs.SchedFlagKeepParams:
		return unix.SCHED_FLAG_KEEP_PARAMS, true
	case specs.SchedFlagUtilClampMin:
		return unix.SCHED_FLAG_UTIL_CLAMP_MIN, true
	case specs.SchedFlagUtilClampMax:
		return unix.SCHED_FLAG_UTIL_CLAMP_MAX, true
	}
	return 0, false
}

// ioPriority: linux/ioprio.h counts the classes from none, and has them above
// 13 bits of priority.
func ioPriority(io *specs.LinuxIOPriority) (*stage1.IOPriority, error) {
	class := slices.Index([]specs.IOPriorityClass{"", specs.IOPRIO_CLASS_RT, specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE}, io.Class)
	switch {
	case class <= 0:
		return nil, fmt.Errorf("process.ioPriority.class: %q is not a class", io.Class)
	case io.Priority < 0 || io.Priority > 7:
		return nil, fmt.Errorf("process.ioPriority.priority: %d is not from 0 to 7", io.Priority)
	}
	return &stage1.IOPriority{Class: string(io.Class), Priority: io.Priority, Value: uint32(class<<13 | io.Priority)}, nil
}

// affinity checks both lists; that of the end is set by who ends up there, an
// exec. The one of the beginning is the parent's (see birth.fork).
func (p *planner) affinity(a *specs.CPUAffinity) error {
	if a == nil {
		return nil
	}
	if _, err := cpuList("process.execCPUAffinity.initial", a.Initial); err != nil {
		return err
	}
	step, err := cpuList("process.execCPUAffinity.final", a.Final)
	if step != nil && p.apart != nil {
		p.add(stage1.Step{Affinity: step})
	}
	return err
}

// maxProcessors is the most that kernels are built for.
const maxProcessors = 8192

// cpuList is nil for an empty one.
func cpuList(field, list string) (*stage1.Affinity, error) {
	mask, err := parseList(list, maxProcessors)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	if mask == nil {
		return nil, nil
	}
	return &stage1.Affinity{List: list, Mask: mask}, nil
}

// parseList reads numbers below a bound as the specification writes sets of
// processors and of memory nodes: 0-3,7. It gives nil for an empty one.
func parseList(list string, bound uint64) ([]uint64, error) {
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	var mask []uint64
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.ParseUint(from, 10, 64)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(to, 10, 64)
		}
		if err != nil || first > last || last >= bound {
			return nil, fmt.Errorf("%q in %q is not a number below %d, nor a range like 0-3", part, list, bound)
		}
		if need := int(last/64) + 1; need > len(mask) {
			mask = append(mask, make([]uint64, need-len(mask))...)
		}
		for n := first; n <= last; n++ {
			mask[n/64] |= 1 << (n % 64)
		}
	}
	return mask, nil
}

// memoryModes are those of set_mempolicy(2) by number.
func memoryModes() []specs.MemoryPolicyModeType {
	return []specs.MemoryPolicyModeType{
		specs.MpolDefault, specs.MpolPreferred, specs.MpolBind, specs.MpolInterleave,
		specs.MpolLocal, specs.MpolPreferredMany, specs.MpolWeightedInterleave,
	}
}

func memoryFlag(flag specs.MemoryPolicyFlagType) (uint32, bool) {
	switch flag {
	case specs.MpolFStaticNodes:
		return unix.MPOL_F_STATIC_NODES, true
	case specs.MpolFRelativeNodes:
		return unix.MPOL_F_RELATIVE_NODES, true
	case specs.MpolFNumaBalancing:
		return unix.MPOL_F_NUMA_BALANCING, true
	}
	return 0, false
}

func memoryPolicy(m *specs.LinuxMemoryPolicy) (*stage1.MemPolicy, error) {
	mode := slices.Index(memoryModes(), m.Mode)
	if mode < 0 {
		return nil, fmt.Errorf("linux.memoryPolicy.mode: %q is not a mode", m.Mode)
	}
	const most = 1024 // MAX_NUMNODES of any kernel
	mask, err := parseList(m.Nodes, most)
	if err != nil {
		return nil, fmt.Errorf("linux.memoryPolicy.nodes: %w", err)
	}
	step := &stage1.MemPolicy{Name: string(m.Mode), Mode: uint32(mode), Mask: mask}
	for i, flag := range m.Flags {
		bit, ok := memoryFlag(flag)
		if !ok {
			return nil, fmt.Errorf("linux.memoryPolicy.flags[%d]: %q is not a flag", i, flag)
		}
		step.Mode |= bit
	}
	return step, checkMemoryPolicy(m, step)
}

// checkMemoryPolicy refuses what set_mempolicy(2) answers with EINVAL.
func checkMemoryPolicy(m *specs.LinuxMemoryPolicy, step *stage1.MemPolicy) error {
	const nodes = unix.MPOL_F_STATIC_NODES | unix.MPOL_F_RELATIVE_NODES
	none := m.Mode == specs.MpolDefault || m.Mode == specs.MpolLocal
	switch {
	case none && step.Mask != nil:
		return fmt.Errorf("linux.memoryPolicy.nodes: %s takes no nodes", m.Mode)
	case !none && m.Mode != specs.MpolPreferred && step.Mask == nil:
		return fmt.Errorf("linux.memoryPolicy.nodes: %s needs at least one node", m.Mode)
	case step.Mask == nil && step.Mode&nodes != 0:
		return fmt.Errorf("linux.memoryPolicy.flags: say how nodes are counted, but there are no nodes")
	case step.Mode&nodes == nodes:
		return fmt.Errorf("linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other")
	case step.Mode&unix.MPOL_F_NUMA_BALANCING != 0 && m.Mode != specs.MpolBind && m.Mode != specs.MpolPreferredMany:
		return fmt.Errorf("linux.memoryPolicy.flags: MPOL_F_NUMA_BALANCING is for MPOL_BIND and MPOL_PREFERRED_MANY, not for %s", m.Mode)
	}
	return nil
}
