// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// attributesOf is what the kernel says of a process: its policy and nice
// value, its IO priority, and the memory policy it allocates by.
func attributesOf(t *testing.T, pid int) string {
	t.Helper()
	attr, err := unix.SchedGetAttr(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	io, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(pid), 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/numa_maps", pid))
	if err != nil {
		t.Skip("ability missing: NUMA: " + err.Error())
	}
	return fmt.Sprintf("policy %d nice %d flags %d, io %d:%d, %s", attr.Policy, attr.Nice, attr.Flags, io>>13, io&7, strings.Fields(string(maps))[1])
}

func TestAppHasItsSchedulerIOPriorityAndMemoryPolicy(t *testing.T) {
	p, st := running(t, func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{
			Policy: specs.SchedBatch, Nice: 5, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork},
		}
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}
	})
	const want = "policy 3 nice 5 flags 1, io 2:6, bind:0"
	if got := attributesOf(t, st.Pid); got != want {
		t.Errorf("the app has %s, want %s", got, want)
	}
	// The flag is not inherited, and the process of an exec is a child: it has
	// it nevertheless, with all else.
	own := *p.request.Spec.Process
	own.Args = []string{"sh", "-c", "echo $(busybox cut -d' ' -f19,41 /proc/$$/stat) $(busybox ionice -p $$) $(busybox head -n1 /proc/$$/numa_maps)"}
	out, stderr, code := execGiven(t, p, st, &own)
	if code != 0 || !strings.HasPrefix(out, "5 3 best-effort: prio 6 ") || !strings.Contains(out, " bind:0 ") {
		t.Errorf("the exec printed %q, %s, ended with %d", out, stderr, code)
	}
}

// Processors are those of an exec, never of the app.
func TestExecRunsOnItsProcessors(t *testing.T) {
	last := lastProcessor(t)
	p, st := running(t, func(s *specs.Spec) {
		s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: last}
	})
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", st.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if last != "0" && strings.Contains(string(b), "Cpus_allowed_list:\t"+last+"\n") {
		t.Error("the app itself was moved")
	}
	process := &specs.Process{
		Args: []string{"grep", "Cpus_allowed_list", "/proc/self/status"}, Env: []string{"PATH=/bin"}, Cwd: "/",
		ExecCPUAffinity: &specs.CPUAffinity{Initial: "0", Final: last},
	}
	out, stderr, _ := execGiven(t, p, st, process)
	if out != "Cpus_allowed_list:\t"+last+"\n" {
		t.Errorf("the exec printed %q, %s", out, stderr)
	}
	process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "8191"}
	if _, stderr, _ := execGiven(t, p, st, process); !strings.Contains(stderr, "process.execCPUAffinity.initial: run on processors 8191") {
		t.Errorf("a processor that is not there: %q", stderr)
	}
}

func lastProcessor(t *testing.T) string {
	t.Helper()
	set := unix.NewCPUSet(8192)
	if err := unix.SchedGetaffinityDynamic(0, set); err != nil {
		t.Fatal(err)
	}
	last := 0
	for n := range 8192 {
		if set.IsSet(n) {
			last = n
		}
	}
	return fmt.Sprint(last)
}

func TestAttributesAreRefusedByFieldName(t *testing.T) {
	scheduler := func(s specs.Scheduler) func(*specs.Spec) {
		return func(spec *specs.Spec) { spec.Process.Scheduler = &s }
	}
	memory := func(m specs.LinuxMemoryPolicy) func(*specs.Spec) {
		return func(spec *specs.Spec) { spec.Linux.MemoryPolicy = &m }
	}
	deadline := &specs.Hooks{StartContainer: []specs.Hook{{Path: "/x"}}}
	for want, edit := range map[string]func(*specs.Spec){
		`process.scheduler.policy: "" is not a policy`:                                        scheduler(specs.Scheduler{}),
		`process.scheduler.policy: SCHED_ISO is reserved, no kernel has it`:                   scheduler(specs.Scheduler{Policy: specs.SchedISO}),
		`process.scheduler.nice: 20 is not from -20 to 19`:                                    scheduler(specs.Scheduler{Policy: specs.SchedOther, Nice: 20}),
		`process.scheduler.priority: 0 is not from 1 to 99, which SCHED_FIFO needs`:           scheduler(specs.Scheduler{Policy: specs.SchedFIFO}),
		`process.scheduler.priority: is for SCHED_FIFO and SCHED_RR, not for SCHED_BATCH`:     scheduler(specs.Scheduler{Policy: specs.SchedBatch, Priority: 1}),
		`process.scheduler: runtime, deadline and period are for SCHED_DEADLINE, not for`:     scheduler(specs.Scheduler{Policy: specs.SchedRR, Priority: 1, Period: 5}),
		`process.scheduler: SCHED_DEADLINE needs 0 < runtime <= deadline <= period, not 3, 2`: scheduler(specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 3, Deadline: 2}),
		`process.scheduler.flags[1]: "X" is not a flag`: scheduler(specs.Scheduler{
			Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagKeepPolicy, "X"},
		}),
		`so hooks.startContainer needs SCHED_FLAG_RESET_ON_FORK`: func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 1, Deadline: 2}
			s.Hooks = deadline
		},
		`process.ioPriority.class: "" is not a class`: func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{} },
		`process.ioPriority.priority: 8 is not from 0 to 7`: func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_RT, Priority: 8}
		},
		`process.execCPUAffinity.initial: "3-1" in "0,3-1" is`: func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0,3-1"} },
		`process.execCPUAffinity.final: "8192" in "8192" is`:   func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "8192"} },
		`linux.memoryPolicy.mode: "" is not a mode`:            memory(specs.LinuxMemoryPolicy{}),
		`linux.memoryPolicy.nodes: "x" in "x" is not a number`: memory(specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "x"}),
		`linux.memoryPolicy.nodes: MPOL_LOCAL takes no nodes`:  memory(specs.LinuxMemoryPolicy{Mode: specs.MpolLocal, Nodes: "0"}),
		`linux.memoryPolicy.nodes: MPOL_BIND needs at least`:   memory(specs.LinuxMemoryPolicy{Mode: specs.MpolBind}),
		`linux.memoryPolicy.flags[0]: "X" is not a flag`:       memory(specs.LinuxMemoryPolicy{Mode: specs.MpolDefault, Flags: []specs.MemoryPolicyFlagType{"X"}}),
		`linux.memoryPolicy.flags: say how nodes are counted`: memory(specs.LinuxMemoryPolicy{
			Mode: specs.MpolPreferred, Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes},
		}),
		`MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other`: memory(specs.LinuxMemoryPolicy{
			Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes, specs.MpolFRelativeNodes},
		}),
		`MPOL_F_NUMA_BALANCING is for MPOL_BIND and MPOL_PREFERRED_MANY, not for MPOL_INTERLEAVE`: memory(specs.LinuxMemoryPolicy{
			Mode: specs.MpolInterleave, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFNumaBalancing},
		}),
		`linux.intelRdt.closID: "a/b" is not the name of a class`:         func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "a/b"} },
		`linux.intelRdt.closID: "mon_groups" is not the name of a class`:  func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "mon_groups"} },
		`linux.intelRdt.l3CacheSchema: contains a newline`:                func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=1\nMB:0=1"} },
		`linux.intelRdt.memBwSchema: "L3:0=1" does not begin with MB:`:    func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{MemBwSchema: "L3:0=1"} },
		`linux.intelRdt.schemata[1]: contains a newline`:                  func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{Schemata: []string{"L2:0=1", "\n"}} },
		`linux.netDevices[a].name: "b c" is not the name of an interface`: func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"a": {Name: "b c"}} },
		`linux.netDevices[b].name: x is the name of linux.netDevices[a]`: func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"a": {Name: "x"}, "b": {Name: "x"}}
		},
		`linux.personality.flags: "X" is none`: func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"X"}}
		},
	} {
		refused(t, want, edit)
	}
}
