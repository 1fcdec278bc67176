// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/agent"
)

// notified gives a bundle a filter that asks an agent about system calls and
// allows all others.
func (b *box) notified(path string, calls ...string) *specs.LinuxSeccomp {
	b.t.Helper()
	ability.Require(b.t, ability.Seccomp)
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: path, ListenerMetadata: "made=by;a=test",
		Syscalls: []specs.LinuxSyscall{{Names: calls, Action: specs.ActNotify}},
	}
	return b.spec.Linux.Seccomp
}

// A bundle with SCMP_ACT_NOTIFY: the agent gets the listener and the Container
// Process State of config-linux.md, and decides; of the process of the
// container, of each exec, and with no_new_privs and without.
func TestSeccompAgentAnswersForAContainer(t *testing.T) {
	// Without no_new_privs it takes privileges to load a filter. In an exec
	// gantry-init does that, and its pid is the one told.
	for _, noNewPrivs := range []bool{true, false} {
		t.Run(fmt.Sprintf("no_new_privs=%v", noNewPrivs), func(t *testing.T) {
			a := agent.Start(t, agent.Errno(unix.ENOTTY))
			b := newBox(t, "sh", "-c", "mkdir /tmp/x; sleep 1000")
			b.spec.Process.NoNewPrivileges = noNewPrivs
			b.spec.Annotations = map[string]string{"key": "value"}
			b.notified(a.Path, "mkdir", "mkdirat")
			st := b.started("c")
			eventually(t, "the container makes a directory", func() bool { return a.Asked(unix.SYS_MKDIR)+a.Asked(unix.SYS_MKDIRAT) == 1 })
			want := specs.ContainerProcessState{
				Version: specs.Version, Fds: []string{"seccompFd"}, Pid: st.Pid, Metadata: "made=by;a=test",
				State: specs.State{Version: specs.Version, ID: "c", Status: "created", Pid: st.Pid, Bundle: b.bundle, Annotations: b.spec.Annotations},
			}
			if got := a.States(); len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
				t.Errorf("the agent got\n%+v, want\n%+v", got, want)
			}
			for i, detach := range []bool{false, true} {
				args := []string{"exec", "c", "mkdir", "/tmp/y"}
				if detach {
					args = slices.Insert(args, 1, "--detach", "--pid-file", filepath.Join(b.root, "..", "pid"))
				}
				r := b.oci(args...)
				if !detach && (r.code != 1 || !strings.Contains(r.stderr, "Inappropriate ioctl")) || detach && r.code != 0 {
					t.Errorf("exec: %d %s", r.code, r.stderr)
				}
				// One answers, the other has just begun.
				eventually(t, "exec makes a directory", func() bool { return a.Asked(unix.SYS_MKDIR)+a.Asked(unix.SYS_MKDIRAT) == i+2 })
				got := a.States()
				last := got[len(got)-1]
				if last.State.Pid != st.Pid || last.Pid == st.Pid || last.State.Status != "running" || last.State.ID != "c" {
					t.Errorf("exec: the agent got %+v", last)
				}
				if detach && noNewPrivs && fmt.Sprint(last.Pid) != read(t, filepath.Join(b.root, "..", "pid")) {
					t.Errorf("exec: the agent got process %d, not that of the pid file", last.Pid)
				}
			}
			if got := len(a.States()); got != 3 {
				t.Errorf("%d states came, want 3", got)
			}
		})
	}
}

// What gantry-init does after the filter is loaded may be subject to it: the
// agent has the listener by then, and answers for gantry-init too. A filter that
// refuses what messages are usually sent by is no obstacle.
func TestSeccompAgentHasTheListenerBeforeAnythingElse(t *testing.T) {
	for _, noNewPrivs := range []bool{true, false} {
		a := agent.Start(t, agent.Continue)
		b := newBox(t, "sh", "-c", "echo done")
		b.spec.Process.NoNewPrivileges = noNewPrivs
		s := b.notified(a.Path, "execve", "close", "read", "setresuid", "setgroups", "capset", "prctl", "newfstatat", "faccessat")
		one := uint(unix.ENOSYS)
		s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{"sendmsg", "sendto", "sendmmsg"}, Action: specs.ActErrno, ErrnoRet: &one})
		s.Flags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}
		if got := b.output(); got != "done\n" {
			t.Errorf("no_new_privs %v: %q", noNewPrivs, got)
		}
		if a.Asked(unix.SYS_EXECVE) == 0 {
			t.Error("the agent was not asked about the execve")
		}
		// A failure is still told, and with the status of a shell.
		b.spec.Process.Args = []string{"/bin/sh/x"}
		if r := b.run("d"); r.code != 127 || !strings.Contains(r.stderr, "execute /bin/sh/x") {
			t.Errorf("no_new_privs %v: a command that is missing: %d %s", noNewPrivs, r.code, r.stderr)
		}
	}
}

// Hooks of the kind startContainer are in the same filter, and there is one
// listener for all.
func TestSeccompAgentAnswersForHooks(t *testing.T) {
	a := agent.Start(t, agent.Continue)
	b := newBox(t, "true")
	b.notified(a.Path, "mkdir", "mkdirat")
	b.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/mkdir", Args: []string{"mkdir", "/tmp/hook"}}}}
	b.output()
	if got := len(a.States()); got != 1 || a.Asked(unix.SYS_MKDIR)+a.Asked(unix.SYS_MKDIRAT) != 1 {
		t.Errorf("%d listeners, asked %d times", got, len(a.States()))
	}
	if _, err := os.Stat(filepath.Join(b.rootfs, "tmp/hook")); err != nil {
		t.Error(err)
	}
}

// Without an agent nothing is started, and what waits to be started stays.
func TestSeccompAgentIsMissing(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	path := filepath.Join(t.TempDir(), "none")
	b.notified(path, "mkdir")
	b.refused("linux.seccomp.listenerPath: reach the agent at " + path)
	b.save()
	if r := b.oci("create", "--bundle", b.bundle, "c"); r.code != 0 {
		t.Fatal(r)
	}
	if r := b.oci("start", "c"); r.code != 1 || !strings.Contains(r.stderr, "no such file") {
		t.Errorf("start: %+v", r)
	}
	if st := b.state("c"); st.Status != specs.StateCreated {
		t.Errorf("the container is %s", st.Status)
	}
}

// An agent that takes the listener and says nothing does not keep gantry-oci,
// and what waits for it ends.
func TestSeccompAgentIsSilent(t *testing.T) {
	t.Parallel() // it is a long wait
	a := agent.Start(t, nil)
	b := newBox(t, "sleep", "1000")
	b.notified(a.Path, "execve")
	b.save()
	if r := b.oci("create", "--bundle", b.bundle, "c"); r.code != 0 {
		t.Fatal(r)
	}
	began := time.Now()
	r := b.oci("start", "c")
	if r.code != 1 || !strings.Contains(r.stderr, "it has not let the app begin") {
		t.Errorf("start: %+v", r)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	eventually(t, "the process ends", func() bool { return b.state("c").Status == specs.StateStopped })
}

// What a section may not say, by the name of the field.
func TestSeccompSectionsThatAreRefused(t *testing.T) {
	b := newBox(t, "true")
	notify := specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.ActNotify}
	for says, s := range map[string]specs.LinuxSeccomp{
		"linux.seccomp.defaultAction: cannot be SCMP_ACT_NOTIFY":  {DefaultAction: specs.ActNotify, ListenerPath: "/x"},
		"linux.seccomp.syscalls[0].action: SCMP_ACT_NOTIFY needs": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{notify}},
		"linux.seccomp.syscalls[0].names: write cannot": {
			DefaultAction: specs.ActAllow, ListenerPath: "/x",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "write"}, Action: specs.ActNotify}},
		},
		"linux.seccomp.listenerMetadata: needs": {DefaultAction: specs.ActAllow, ListenerMetadata: "x"},
		"linux.seccomp.flags[1]: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs": {
			DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"},
		},
		`linux.seccomp.flags[0]: "SECCOMP_FILTER_FLAG_X" is unknown`: {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_X"}},
	} {
		b.spec.Linux.Seccomp = &s
		b.refused(says)
	}
}
