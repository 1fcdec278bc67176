// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
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
		{"userns", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Cgroups: unified, Outlive: true, Hold: true}, func(s *specs.Spec) {
			adj := -500
			mapAll(s)
			add(s, specs.UserNamespace, "")
			s.Process.OOMScoreAdj = &adj
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Soft: 10, Hard: 20}}
			s.Mounts = []specs.Mount{
				{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "gid=70000"}},
				{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
			}
		}},
		{"userns-host-network", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Cgroups: unified}, func(s *specs.Spec) {
			mapAll(s)
			add(s, specs.UserNamespace, "")
			add(s, specs.NetworkNamespace, "/run/netns/x")
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
			s.Mounts = []specs.Mount{
				{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
				{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"},
			}
		}},
		{"idmapped", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Cgroups: unified}, func(s *specs.Spec) {
			mapAll(s)
			add(s, specs.UserNamespace, "")
			one := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5, Size: 1}}
			s.Mounts = []specs.Mount{
				{Destination: "/containers", Type: "bind", Source: "/a", Options: []string{"bind", "idmap"}},
				{Destination: "/below", Type: "bind", Source: "/b", Options: []string{"rbind", "ridmap"}},
				{Destination: "/own", Type: "bind", Source: "/c", Options: []string{"rbind"}, UIDMappings: one, GIDMappings: one},
				{Destination: "/as-it-is", Type: "bind", Source: "/d", Options: []string{"bind"}},
			}
		}},
		{"no-namespaces", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Cgroups: unified}, func(s *specs.Spec) {
			s.Linux.Namespaces, s.Hostname, s.Linux.Sysctl = nil, "", nil
			s.Root.Readonly = true
		}},
		{"namespaces-joined", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Cgroups: unified}, func(s *specs.Spec) {
			for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.UserNamespace, specs.TimeNamespace, specs.IPCNamespace} {
				add(s, kind, "/ns/"+string(kind))
			}
		}},
		{"userns-devices", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Cgroups: unified, Container: "id"}, func(s *specs.Spec) {
			mapAll(s)
			add(s, specs.UserNamespace, "")
			s.Mounts = nil
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"lan0": {Name: "eth%d"}}
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/runtime"}}}
		}},
		{"selinux", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Bundle: "/bundle", Cgroups: launch.CgroupLayout{V1: []string{"pids"}}, SELinux: true}, func(s *specs.Spec) {
			s.Process.SelinuxLabel, s.Linux.MountLabel = "u:r:container_t:s0:c1,c2", "u:r:container_file_t:s0:c1,c2"
			s.Mounts = append(s.Mounts,
				specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue"},
				specs.Mount{Destination: "/data", Type: "bind", Source: "data", Options: []string{"bind"}},
				specs.Mount{Destination: "/shared", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m", `fscontext=u:r:shared_t:s0`}},
			)
		}},
		{"userns-mapped", launch.PlanOptions{Root: launch.RootPlan{Tree: true, Upper: "/pod/upper", Work: "/pod/work", Mapped: true, Volatile: true}, Cgroups: unified}, func(s *specs.Spec) {
			add(s, specs.UserNamespace, "")
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
			s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: 200000, Size: 65536}}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/srv", Type: "bind", Source: "/pod/volumes/0", Options: []string{"rbind", "copyup", "idmap"}})
		}},
		{"time", launch.PlanOptions{Root: launch.RootPlan{Dir: "/rootfs"}, Cgroups: unified}, func(s *specs.Spec) {
			add(s, specs.TimeNamespace, "")
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: -3, Nanosecs: 7}, "boottime": {Secs: 1000}}
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
	t.Run("exec-userns", func(t *testing.T) {
		spec := baseSpec("app")
		mapAll(spec)
		add(spec, specs.UserNamespace, "")
		add(spec, specs.TimeNamespace, "")
		plan, err := launch.ExecPlan(spec, &specs.Process{Args: []string{"sh"}, Cwd: "/"}, launch.PlanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "exec-userns", plan)
	})
	t.Run("exec-shared-mounts", func(t *testing.T) {
		spec := baseSpec("app")
		spec.Linux.Namespaces, spec.Hostname = []specs.LinuxNamespace{{Type: specs.PIDNamespace}}, ""
		plan, err := launch.ExecPlan(spec, &specs.Process{Args: []string{"sh"}, Cwd: "/"}, launch.PlanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "exec-shared-mounts", plan)
	})
}

// mapAll gives a bundle the mappings that a user namespace needs.
func mapAll(s *specs.Spec) {
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
}

// add puts a namespace into a bundle, in place of one of its kind.
func add(s *specs.Spec, kind specs.LinuxNamespaceType, path string) {
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == kind {
			s.Linux.Namespaces[i].Path = path
			return
		}
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
}

// What the kernel answers with EINVAL, or with nothing at all, is told by name
// before anything is made.
func TestNamespacesAreRefusedByFieldName(t *testing.T) {
	userns := func(edit func(l *specs.Linux), mounts ...specs.Mount) func(*specs.Spec) {
		return func(s *specs.Spec) {
			if len(mounts) > 0 {
				s.Mounts = mounts
			}
			mapAll(s)
			add(s, specs.UserNamespace, "")
			edit(s.Linux)
		}
	}
	times := func(o map[string]specs.LinuxTimeOffset) func(*specs.Spec) {
		return func(s *specs.Spec) {
			add(s, specs.TimeNamespace, "")
			s.Linux.TimeOffsets = o
		}
	}
	many := make([]specs.LinuxIDMapping, 341)
	for i := range many {
		many[i] = specs.LinuxIDMapping{ContainerID: uint32(i), HostID: uint32(i), Size: 1}
	}
	for says, edit := range map[string]func(*specs.Spec){
		`linux.namespaces[6].type: pid is there already, in linux.namespaces[0]`: func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace})
		},
		`linux.namespaces[0].path: "x" is not absolute`:                func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "x" },
		`linux.namespaces[6].type: "moon" is not a kind`:               func(s *specs.Spec) { add(s, "moon", "") },
		"linux.uidMappings: is empty":                                  userns(func(l *specs.Linux) { l.UIDMappings = nil }),
		"linux.gidMappings: is empty":                                  userns(func(l *specs.Linux) { l.GIDMappings = nil }),
		"linux.uidMappings: need a user namespace":                     mapAll,
		"linux.gidMappings: need a user namespace":                     func(s *specs.Spec) { mapAll(s); s.Linux.UIDMappings = nil },
		"linux.uidMappings: has 341 entries, and the kernel takes 340": userns(func(l *specs.Linux) { l.UIDMappings = many }),
		"linux.gidMappings[0].size: is 0":                              userns(func(l *specs.Linux) { l.GIDMappings[0].Size = 0 }),
		"linux.uidMappings[0].size: 65536 ids from hostID 4294967290":  userns(func(l *specs.Linux) { l.UIDMappings[0].HostID = 4294967290 }),
		"linux.uidMappings: containerID 0 is not mapped":               userns(func(l *specs.Linux) { l.UIDMappings[0].ContainerID = 1 }),
		"linux.uidMappings[1].containerID: overlaps with linux.uidMappings[0]": userns(func(l *specs.Linux) {
			l.UIDMappings = append(l.UIDMappings, specs.LinuxIDMapping{ContainerID: 65535, HostID: 1, Size: 1})
		}),
		"linux.gidMappings[1].hostID: overlaps with linux.gidMappings[0]": userns(func(l *specs.Linux) {
			l.GIDMappings = append(l.GIDMappings, specs.LinuxIDMapping{ContainerID: 65536, HostID: 199999, Size: 2})
		}),
		"process.user.uid: 65536 is not mapped": func(s *specs.Spec) {
			userns(func(*specs.Linux) {})(s)
			s.Process.User.UID = 65536
		},
		"process.user.additionalGids[1]: 70000 is not mapped": func(s *specs.Spec) {
			userns(func(*specs.Linux) {})(s)
			s.Process.User.AdditionalGids = []uint32{1, 70000}
		},
		"mounts[0] (/x): option idmap: there are neither mappings for it nor a user namespace": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/x", Type: "bind", Source: "/", Options: []string{"bind", "idmap"}}}
		},
		"mounts[0] (/x): only a bind mount can be id-mapped": userns(func(*specs.Linux) {}, specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"ridmap"}}),
		"mounts[0] (/x): gidMappings: are missing": userns(func(*specs.Linux) {}, specs.Mount{
			Destination: "/x", Type: "bind", Source: "/", UIDMappings: many[:1],
		}),
		"mounts[0] (/x): gidMappings[0].size: is 0": userns(func(*specs.Linux) {}, specs.Mount{
			Destination: "/x", Type: "bind", Source: "/", UIDMappings: many[:1], GIDMappings: []specs.LinuxIDMapping{{}},
		}),
		`mounts[0] (/x): option "idmap=uids=0-1-1" is not supported`: userns(func(*specs.Linux) {}, specs.Mount{
			Destination: "/x", Type: "bind", Source: "/", Options: []string{"idmap=uids=0-1-1"},
		}),
		"linux.namespaces: a new user namespace needs a new mount namespace": userns(func(l *specs.Linux) {
			l.Namespaces = []specs.LinuxNamespace{{Type: specs.UserNamespace}, {Type: specs.UTSNamespace}}
		}),
		"mqueue cannot be mounted by a new user namespace": func(s *specs.Spec) {
			userns(func(*specs.Linux) {})(s)
			add(s, specs.IPCNamespace, "/ns/ipc")
			s.Mounts = []specs.Mount{{Destination: "/dev/mqueue", Type: "mqueue"}}
		},
		"linux.timeOffsets: need a time namespace": func(s *specs.Spec) {
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {}}
		},
		"linux.timeOffsets: cannot be set in the time namespace of /ns/time": func(s *specs.Spec) {
			add(s, specs.TimeNamespace, "/ns/time")
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {}}
		},
		`linux.timeOffsets["realtime"]: is not a clock`:                          times(map[string]specs.LinuxTimeOffset{"realtime": {}}),
		`linux.timeOffsets["boottime"].nanosecs: 1000000000 is a second or more`: times(map[string]specs.LinuxTimeOffset{"boottime": {Nanosecs: 1e9}}),
	} {
		spec := baseSpec("app")
		edit(spec)
		if _, err := launch.Plan(spec, launch.PlanOptions{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q, got %v", says, err)
		}
	}
}

func TestPlanRefusesByFieldName(t *testing.T) {
	for says, edit := range map[string]func(*specs.Spec){
		"process.args":                      func(s *specs.Spec) { s.Process.Args = nil },
		"process.env[1]: contains a NUL":    func(s *specs.Spec) { s.Process.Env = []string{"A=b", "C=\x00"} },
		"process.cwd":                       func(s *specs.Spec) { s.Process.Cwd = "relative" },
		"hooks":                             func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/x"}}} },
		"linux.sysctl[kernel.core_pattern]": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.core_pattern": "|/x"} },
		"unknown capability \"CAP_NOT\"":    func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CAP_NOT"} },
		"process.rlimits[0].type":           func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOT"}} },
		"mounts[7] (/): nothing":            func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/", Type: "tmpfs"}) },
		"annotations[run.oci.mount_context_type]": func(s *specs.Spec) {
			s.Linux.MountLabel, s.Annotations = "l", map[string]string{"run.oci.mount_context_type": "exec"}
		},
		"exclude each other":              func(s *specs.Spec) { s.Process.ApparmorProfile, s.Process.SelinuxLabel = "a", "b" },
		"linux.devices[0] (/dev/x): type": func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "q"}} },
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
	mapped := baseSpec("app")
	mapAll(mapped)
	add(mapped, specs.UserNamespace, "")
	add(mapped, specs.TimeNamespace, "/ns/time")
	mapped.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}}
	if b, err = json.Marshal(mapped); err != nil {
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
