// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, plan stage1.Plan) {
	t.Helper()
	got, err := json.MarshalIndent(plan, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("plan differs from %s:\n%s", file, got)
	}
}

func TestPlans(t *testing.T) {
	tree := launch.RootPlan{Tree: true, Upper: "/pod/upper", Work: "/pod/work"}
	unified := launch.CgroupLayout{Unified: true}
	for _, c := range []struct {
		name string
		o    launch.PlanOptions
		edit func(*specs.Spec)
	}{
		{"default", launch.PlanOptions{Root: tree, Cgroups: unified}, func(*specs.Spec) {}},
		{"hybrid-directory", launch.PlanOptions{
			Root: launch.RootPlan{Dir: "/rootfs"}, Bundle: "/bundle",
			Cgroups: launch.CgroupLayout{V1: []string{"cpu,cpuacct", "memory", "name=systemd"}, Unified: true},
		}, func(*specs.Spec) {}},
		{"host-cgroup-namespace", launch.PlanOptions{
			Root: launch.RootPlan{Dir: "/rootfs"}, Bundle: "/bundle",
			Cgroups: launch.CgroupLayout{V1: []string{"memory"}},
		}, func(s *specs.Spec) {
			s.Linux.Namespaces = s.Linux.Namespaces[:5]
			s.Linux.CgroupsPath = "/engine/id"
			s.Mounts = s.Mounts[len(s.Mounts)-1:]
			s.Mounts[0].Options = nil
		}},
		{"readonly-terminal-init", launch.PlanOptions{Root: launch.RootPlan{Tree: true}, Cgroups: unified, Terminal: true, Init: true, Rows: 24, Columns: 80}, func(s *specs.Spec) {
			s.Root.Readonly = true
		}},
		{"held", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Cgroups: unified, Outlive: true, Hold: true}, func(*specs.Spec) {}},
		{"preserved", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Bundle: "/bundle", Cgroups: unified, Outlive: true, Preserve: 2, Keyring: true}, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: "data", Options: []string{"bind"}})
		}},
		{"hooks", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Cgroups: unified, Outlive: true, Hold: true, Bundle: "/bundle", Container: "id"}, func(s *specs.Spec) {
			timeout := 3
			s.Annotations = map[string]string{"a": "b"}
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
			s.Hooks = &specs.Hooks{
				CreateRuntime:   []specs.Hook{{Path: "/runtime"}},
				CreateContainer: []specs.Hook{{Path: "/create"}, {Path: "/second", Args: []string{"zero", "one"}, Env: []string{"A=b"}, Timeout: &timeout}},
				StartContainer:  []specs.Hook{{Path: "/start"}},
				Poststop:        []specs.Hook{{Path: "/stop"}},
			}
		}},
		{"attributes", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Cgroups: unified}, func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{
				Policy: specs.SchedDeadline, Runtime: 1, Deadline: 2, Period: 3, Nice: -1,
				Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagReclaim, specs.SchedFlagDLOverrun},
			}
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE, Priority: 7}
			s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "1"} // of an exec
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{
				Mode: specs.MpolInterleave, Nodes: "0-1,3", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes},
			}
		}},
		{"everything", launch.PlanOptions{Root: tree, Cgroups: unified, Bundle: "/bundle", Outlive: true}, func(s *specs.Spec) {
			adj, uid := 100, uint32(7)
			s.Process.NoNewPrivileges = false
			s.Process.Cwd = "/srv"
			s.Process.OOMScoreAdj = &adj
			s.Process.ApparmorProfile = "profile"
			s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 5}}
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 4096}}
			s.Mounts = append(s.Mounts,
				specs.Mount{Destination: "/data", Type: "bind", Source: "data", Options: []string{"rbind", "rro", "nosuid", "rslave"}},
				specs.Mount{Destination: "/cache", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=1m", "noatime"}})
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "1"}
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, UID: &uid}}
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}}
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
			s.Linux.Namespaces[4].Path = "/run/netns/x"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := baseSpec("app", "arg")
			c.edit(spec)
			plan, err := launch.Plan(spec, c.o)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, plan)
		})
	}
	t.Run("exec-attributes", func(t *testing.T) {
		process := &specs.Process{
			Args: []string{"sh"}, Cwd: "/",
			Scheduler:       &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 9, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}},
			ExecCPUAffinity: &specs.CPUAffinity{Initial: "0", Final: "0-2, 65"},
		}
		plan, err := launch.ExecPlan(baseSpec("app"), process, launch.PlanOptions{Given: true})
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "exec-attributes", plan)
	})
	t.Run("exec", func(t *testing.T) {
		plan, err := launch.ExecPlan(baseSpec("app"), &specs.Process{Args: []string{"sh"}, Cwd: "/"}, launch.PlanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "exec", plan)
	})
}

func TestPlanRefusesByFieldName(t *testing.T) {
	for says, edit := range map[string]func(*specs.Spec){
		"process.args":                   func(s *specs.Spec) { s.Process.Args = nil },
		"process.env[1]: contains a NUL": func(s *specs.Spec) { s.Process.Env = []string{"A=b", "C=\x00"} },
		"process.cwd":                    func(s *specs.Spec) { s.Process.Cwd = "relative" },
		"linux.namespaces[6].type: user": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		},
		"linux.namespaces: the path of a pid": func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/1/ns/pid" },
		"linux.uidMappings":                   func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} },
		"hooks":                               func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/x"}}} },
		"linux.sysctl[kernel.core_pattern]":   func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.core_pattern": "|/x"} },
		"unknown capability \"CAP_NOT\"":      func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CAP_NOT"} },
		"process.rlimits[0].type":             func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOT"}} },
		"mounts[7] (/): nothing":              func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/", Type: "tmpfs"}) },
		"exclude each other":                  func(s *specs.Spec) { s.Process.ApparmorProfile, s.Process.SelinuxLabel = "a", "b" },
		"linux.devices[0] (/dev/x): type":     func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "q"}} },
	} {
		spec := baseSpec("app")
		edit(spec)
		if _, err := launch.Plan(spec, launch.PlanOptions{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q, got %v", says, err)
		}
	}
}

func TestHooksAreRefusedByFieldName(t *testing.T) {
	zero := 0
	for says, hooks := range map[string]*specs.Hooks{
		`hooks.createRuntime[0].path: "bin/x" is not absolute`:  {CreateRuntime: []specs.Hook{{Path: "bin/x"}}},
		"hooks.poststop[1].timeout: 0 is not greater than zero": {Poststop: []specs.Hook{{Path: "/x"}, {Path: "/x", Timeout: &zero}}},
		"hooks.startContainer[0].args[1]: contains a NUL byte":  {StartContainer: []specs.Hook{{Path: "/x", Args: []string{"x", "\x00"}}}},
		`hooks.createContainer[0].path: "" is not absolute`:     {CreateContainer: []specs.Hook{{}}},
	} {
		spec := baseSpec("app")
		spec.Hooks = hooks
		if _, err := launch.Plan(spec, launch.PlanOptions{Container: "id"}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q, got %v", says, err)
		}
	}
}

// CVE-2022-0811: a sysctl value smuggled a second setting in.
func TestCVE_2022_0811_SysctlsOfTheHostAreRefused(t *testing.T) {
	for key, value := range map[string]string{
		"kernel.shm_rmid_forced":     "1+kernel.core_pattern=|/evil\n",
		"kernel/core_pattern":        "x",
		"net.ipv4../../kernel":       "x",
		"net.//.kernel.core_pattern": "|/x",
		"net/../kernel/core_pattern": "|/x",
		"net.ipv4.\n":                "x",
	} {
		spec := baseSpec("app")
		spec.Linux.Sysctl = map[string]string{key: value}
		if _, err := launch.Plan(spec, launch.PlanOptions{}); err == nil {
			t.Errorf("%s=%q was accepted", key, value)
		}
	}
	spec := baseSpec("app")
	spec.Linux.Namespaces = spec.Linux.Namespaces[:4] // no network namespace
	spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	if _, err := launch.Plan(spec, launch.PlanOptions{}); err == nil {
		t.Error("a sysctl of the host's network was accepted (CVE-2022-0532)")
	}
}

func FuzzPlan(f *testing.F) {
	b, err := json.Marshal(baseSpec("app"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var spec specs.Spec
		if json.Unmarshal(b, &spec) != nil {
			return
		}
		_, _ = launch.Plan(&spec, launch.PlanOptions{Root: launch.RootPlan{Dir: "/r"}})
	})
}

// refused checks that a plan is, with a message that contains want.
func refused(t *testing.T, want string, edit func(*specs.Spec)) {
	t.Helper()
	spec := baseSpec("app")
	edit(spec)
	o := launch.PlanOptions{Container: "id"}
	if _, err := launch.Plan(spec, o); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("want %q, got %v", want, err)
	}
}
