// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/seccomp"
	"github.com/gantryrun/gantry/tests/agent"
)

// compiler puts gantry-seccomp beside the others; it needs cgo and
// libseccomp.
func compiler(t *testing.T) {
	t.Helper()
	file := filepath.Join(libexec, seccomp.Compiler)
	if _, err := os.Stat(file); err == nil {
		return
	}
	cmd := exec.Command("go", "build", "-tags", "libseccomp", "-o", file, "../../cmd/"+seccomp.Compiler)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("ability missing: libseccomp to build %s: %s", seccomp.Compiler, out)
	}
}

// The filter is in force for the app whether it is loaded before the
// capabilities go or, with no_new_privs, as the last thing.
func TestSeccompFilterIsInForce(t *testing.T) {
	for _, noNewPrivs := range []bool{true, false} {
		for _, uid := range []uint32{0, 1000} {
			p := newPod(t, "sh", "-c", "grep -E 'Seccomp:|NoNewPrivs|CapEff' /proc/self/status; mkdir -p /tmp/x; mount -t tmpfs x /tmp/x")
			compiler(t)
			filter, err := seccomp.Default(p.request.Spec.Process.Capabilities.Bounding)
			if err != nil {
				t.Fatal(err)
			}
			p.request.Spec.Linux.Seccomp = filter
			p.request.Spec.Process.NoNewPrivileges = noNewPrivs
			p.request.Spec.Process.User.UID = uid
			out, stderr, code := p.run()
			if code == 125 || !strings.Contains(out, "Seccomp:\t2") {
				t.Errorf("no_new_privs %v, user %d: exit status %d\n%s%s", noNewPrivs, uid, code, out, stderr)
			}
			if strings.Contains(out, "NoNewPrivs:\t1") != noNewPrivs {
				t.Errorf("no_new_privs %v: %s", noNewPrivs, out)
			}
		}
	}
}

// What gantry-init does after a filter was loaded is what filters allowed
// before close_range(2) was known, as that of runtime-tools.
func TestSeccompFilterNeedNotKnowCloseRange(t *testing.T) {
	compiler(t)
	for _, noNewPrivs := range []bool{true, false} {
		p := newPod(t, "grep", "Seccomp:", "/proc/self/status")
		filter, err := seccomp.Default(p.request.Spec.Process.Capabilities.Bounding)
		if err != nil {
			t.Fatal(err)
		}
		known := 0
		for i := range filter.Syscalls {
			known += len(filter.Syscalls[i].Names)
			filter.Syscalls[i].Names = slices.DeleteFunc(filter.Syscalls[i].Names, func(name string) bool { return name == "close_range" })
			known -= len(filter.Syscalls[i].Names)
		}
		filter.Syscalls = slices.DeleteFunc(filter.Syscalls, func(s specs.LinuxSyscall) bool { return len(s.Names) == 0 })
		p.request.Spec.Linux.Seccomp, p.request.Spec.Process.NoNewPrivileges = filter, noNewPrivs
		out, stderr, code := p.run()
		if known == 0 || code != 0 || !strings.Contains(out, "Seccomp:\t2") {
			t.Errorf("no_new_privs %v: exit status %d, %d rules taken out\n%s%s", noNewPrivs, code, known, out, stderr)
		}
	}
}

// An exec joins and clones what the app's filter would refuse, and has it in
// force all the same.
func TestExecWithAFilter(t *testing.T) {
	compiler(t)
	for _, noNewPrivs := range []bool{true, false} {
		p, st := running(t, func(s *specs.Spec) {
			filter, err := seccomp.Default(s.Process.Capabilities.Bounding)
			if err != nil {
				t.Fatal(err)
			}
			s.Linux.Seccomp, s.Process.NoNewPrivileges = filter, noNewPrivs
		})
		for _, uid := range []uint32{0, 1000} {
			out, stderr, code := execIn(t, p, st, &specs.Process{
				Args: []string{"grep", "Seccomp:", "/proc/self/status"}, Env: []string{"PATH=/bin"}, Cwd: "/",
				User: specs.User{UID: uid},
			})
			if code != 0 || !strings.Contains(out, "Seccomp:\t2") {
				t.Errorf("no_new_privs %v, user %d: exit status %d\n%s%s", noNewPrivs, uid, code, out, stderr)
			}
		}
	}
}

func TestMemoryKillIsRecorded(t *testing.T) {
	p := newPod(t, "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
	limit := int64(16 << 20)
	p.request.Spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	_, stderr, code := p.run()
	if code == 0 || code == 125 {
		t.Skipf("ability missing: memory limits (exit status %d %s)", code, stderr)
	}
	if st := p.status("exited"); st.Exit == nil || !st.Exit.OOM || st.Exit.Signal != 9 {
		t.Errorf("exit record %+v", st.Exit)
	}
}

// A pod's filter may have an agent too, also with gantry-init as process 1, and
// so have its execs.
func TestPodHasASeccompAgent(t *testing.T) {
	compiler(t)
	a := agent.Start(t, agent.Errno(unix.ENOTTY))
	filter := func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: a.Path,
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
		}
	}
	p, st := running(t, filter)
	_, stderr, code := execIn(t, p, st, &specs.Process{Args: []string{"mkdir", "/tmp/x"}, Env: []string{"PATH=/bin"}, Cwd: "/"})
	states := a.States()
	if code != 1 || len(states) != 2 || states[0].State.ID != p.request.ID || states[0].State.Pid != st.Pid || states[1].Pid == st.Pid {
		t.Errorf("exit status %d %s, the agent got %+v", code, stderr, states)
	}
	p = newPod(t, "mkdir", "/tmp/x")
	filter(p.request.Spec)
	p.request.Init = true
	if out, stderr, code := p.run(); code != 1 || len(a.States()) != 3 {
		t.Errorf("with an init: exit status %d %s%s", code, out, stderr)
	}
}
