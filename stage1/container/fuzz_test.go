// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/wire"
	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// bundles are what engines write: podman, containerd (ctr), and runc spec with
// and without --rootless; and our own example.
func bundles(f *testing.F) [][]byte {
	f.Helper()
	files, err := filepath.Glob("testdata/bundles/*.json")
	if err != nil {
		f.Fatal(err)
	}
	own, err := json.Marshal(Example())
	if err != nil {
		f.Fatal(err)
	}
	out := [][]byte{own}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// edited are the bundles once more, with what engines leave out.
func edited(f *testing.F, all [][]byte) [][]byte {
	f.Helper()
	out := all
	for i, edit := range []func(*specs.Spec){
		func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/a"}}, StartContainer: []specs.Hook{{Path: "/b", Args: []string{"b"}}}}
		},
		func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "net/../kernel/x": "1"}
		},
		func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/../../x", Type: "c", Major: 1, Minor: 3}}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "../../x", Type: "bind", Source: "y", Options: []string{"rbind", "rro", "idmap"}})
		},
		func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"}, specs.LinuxNamespace{Type: "time"})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
		},
		func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_ALLOW", ListenerPath: "/x", Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: "SCMP_ACT_NOTIFY"}}}
			s.Process.Cwd, s.Linux.MaskedPaths = "/a/../../b", []string{"../x", "/proc/../../y", ""}
		},
	} {
		var s specs.Spec
		if err := json.Unmarshal(all[i%len(all)], &s); err != nil {
			f.Fatal(err)
		}
		edit(&s)
		b, err := json.Marshal(&s)
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// FuzzBundle: a config.json is refused, or becomes a plan in which no path
// leads out of the root, and that gantry-init reads as it was written.
func FuzzBundle(f *testing.F) {
	for _, b := range edited(f, bundles(f)) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		spec, err := decodeBundle(b)
		if err != nil {
			return
		}
		_ = unapplied(spec, false)
		_ = cgroupPath(spec)
		announce(spec.Process, 1)
		for _, o := range []launch.PlanOptions{
			{Root: launch.RootPlan{Dir: "/rootfs"}, Bundle: "/bundle", Hold: true, Container: "id", Cgroups: launch.CgroupLayout{V1: []string{"memory", "name=systemd"}, Unified: true}},
			{Root: launch.RootPlan{Tree: true, Upper: "/u", Work: "/w"}, Terminal: true, Init: true, Preserve: 2},
		} {
			if plan, err := launch.Plan(spec, o); err == nil {
				checkPlan(t, plan)
			}
		}
	})
}

// FuzzProcess: the same of the document of exec --process.
func FuzzProcess(f *testing.F) {
	for _, b := range bundles(f) {
		var s specs.Spec
		if err := json.Unmarshal(b, &s); err != nil {
			f.Fatal(err)
		}
		p, err := json.Marshal(s.Process)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Add([]byte(`{"args":["x"],"cwd":"/","user":{"uid":4294967295,"gid":1,"additionalGids":[1,2]},"terminal":true,"rlimits":[{"type":"RLIMIT_X"}]}`))
	f.Add([]byte(`{"args":["x"],"cwd":"/..","env":["A"],"capabilities":{"bounding":["CAP_X"]},"scheduler":{"policy":"SCHED_RR","priority":1},"execCPUAffinity":{"initial":"0-1"}}`))
	own := Example()
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodeProcess(b, own.Process)
		if err != nil {
			return
		}
		plan, err := launch.ExecPlan(own, p, launch.PlanOptions{Given: true, Terminal: p.Terminal})
		if err != nil {
			return
		}
		checkPlan(t, plan)
		for _, s := range plan.Steps {
			if s.User != nil && (s.User.UID != p.User.UID || s.User.UID == 1<<32-1 || s.User.GID == 1<<32-1) {
				t.Errorf("user %+v becomes %+v", p.User, s.User)
			}
		}
	})
}

// checkPlan: each step is one thing, each path is absolute and clean, and what
// is encoded is decoded as it was.
func checkPlan(t *testing.T, plan stage1.Plan) {
	t.Helper()
	for i, step := range plan.Steps {
		v, set := reflect.ValueOf(step), 0
		for n := range v.NumField() {
			if !v.Field(n).IsNil() {
				set++
			}
		}
		if set != 1 {
			t.Errorf("step %d is %d things", i, set)
		}
		for _, name := range paths(step) {
			if !path.IsAbs(name) || path.Clean(name) != name {
				t.Errorf("step %d names %q", i, name)
			}
		}
		if step.Sysctl != nil {
			if key := "/" + step.Sysctl.Key; path.Clean(key) != key || strings.ContainsAny(step.Sysctl.Value, "\x00\n") {
				t.Errorf("step %d sets %q to %q", i, step.Sysctl.Key, step.Sysctl.Value)
			}
		}
		for _, fd := range descriptors(step) {
			if fd < 0 || fd >= len(plan.Sources) {
				t.Errorf("step %d uses source %d of %d", i, fd, len(plan.Sources))
			}
		}
	}
	encoded := wire.Encode(nil, &plan)
	var decoded stage1.Plan
	rest, err := wire.Decode(append(bytes.Clone(encoded), "filter"...), &decoded)
	if err != nil || string(rest) != "filter" {
		t.Fatalf("plan does not decode: %v, %d bytes left", err, len(rest))
	}
	if !bytes.Equal(wire.Encode(nil, &decoded), encoded) {
		t.Error("plan is another when decoded")
	}
}

func paths(s stage1.Step) []string {
	switch {
	case s.Mount != nil:
		return []string{s.Mount.Target}
	case s.Bind != nil:
		return []string{s.Bind.Target}
	case s.Mkdir != nil:
		return []string{s.Mkdir.Path}
	case s.Symlink != nil:
		return []string{s.Symlink.Path}
	case s.Device != nil:
		return []string{s.Device.Path}
	case s.ReadOnly != nil:
		return []string{s.ReadOnly.Path}
	case s.Mask != nil:
		return []string{s.Mask.Path}
	case s.Remount != nil:
		return []string{s.Remount.Path}
	case s.Cwd != nil:
		return []string{s.Cwd.Path}
	}
	return nil
}

func descriptors(s stage1.Step) []int {
	switch {
	case s.Join != nil:
		return []int{s.Join.FD}
	case s.Root != nil:
		return []int{s.Root.FD}
	case s.Bind != nil:
		return []int{s.Bind.FD}
	case s.Hold != nil:
		return []int{s.Hold.FD}
	case s.Mount != nil && s.Mount.Else > 0:
		return []int{s.Mount.Else - 1}
	}
	return nil
}

// FuzzState: whatever a state.json says, no process is taken for the
// container's by its number alone, and reading it ends.
func FuzzState(f *testing.F) {
	for _, seed := range []string{
		`{"version":1,"bundle":"/b","created":"2026-01-02T03:04:05.6Z","owner":0,"cgroups":["/sys/fs/cgroup/x"],"pid":1,"start":2,"boot":"3"}`,
		`{"version":2}`, `{"pid":-1}`, `{"pid":99999999999999999999}`, `{"pid":1,"start":0,"boot":""}`, `{`, `null`, `[]`, `{"created":"x"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		c := &Container{ID: "id", record: r}
		p, err := c.process()
		if err == nil && p != nil {
			t.Errorf("%s: is process %d", b, r.Pid)
		}
		again, err := json.Marshal(r)
		if err != nil {
			return // a time that JSON cannot have
		}
		if _, err := decodeRecord(again); err != nil {
			t.Errorf("%s: is written as %s, which is not read: %v", b, again, err)
		}
	})
}

// FuzzSignal: what is read as a signal is one, or 0, which only asks.
func FuzzSignal(f *testing.F) {
	for _, seed := range []string{"TERM", "sigkill", "9", "0", "-1", "65", "SIGRTMIN+30", "RTMIN+99999999", "RTMIN+-40", "RTMAX-1", "", "SIG", "9x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if sig, err := ParseSignal(name); err == nil && (sig < 0 || sig > 64) {
			t.Errorf("%q is read as signal %d", name, sig)
		}
	})
}

// FuzzID: no id names anything but one entry of the directory.
func FuzzID(f *testing.F) {
	for _, seed := range []string{"a", "..", "a/b", "a\x00", "-", "A_+-.9", strings.Repeat("x", 201), "ä"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if checkID(id) != nil {
			return
		}
		if p := (Root{Dir: "/r"}).path(id); path.Dir(p) != "/r" || path.Base(p) != id {
			t.Errorf("id %q is %s", id, p)
		}
	})
}
