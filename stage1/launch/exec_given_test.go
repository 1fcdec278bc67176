// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

func execGiven(t *testing.T, p *pod, st stage1.Status, process *specs.Process) (string, string, int) {
	t.Helper()
	r := execRequest(t, p, st, process)
	r.Given = true
	cmd := helperCommand(t, helperRequest{Exec: r})
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	_ = cmd.Run()
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// An engine decides what the command may; the filter is the container's.
func TestAGivenExecHasWhatItsProcessSaysAndTheFilter(t *testing.T) {
	p, st := running(t, func(s *specs.Spec) {
		compiler(t)
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}}
		s.Process.NoNewPrivileges = true
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"chroot"}, Action: specs.ActErrno}},
		}
	})
	caps := []string{"CAP_CHOWN", "CAP_SYS_CHROOT"}
	out, stderr, code := execGiven(t, p, st, &specs.Process{
		Args:         []string{"sh", "-c", "cat /proc/self/status; ulimit -n; busybox chroot / true; kill -TERM $$"},
		Env:          []string{"PATH=/bin"},
		Cwd:          "/",
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 55, Hard: 55}},
	})
	if code != 128+15 {
		t.Errorf("exit status %d, want that of shells for a signal", code)
	}
	for _, line := range []string{
		"CapEff:\t0000000000040001", "CapBnd:\t0000000000040001", "NoNewPrivs:\t0", "Seccomp:\t2", "55",
	} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("no line %q in\n%s", line, out)
		}
	}
	if !strings.Contains(stderr, "not permitted") {
		t.Errorf("the filter let chroot through: %q", stderr)
	}
}

// The working directory or the command of an exec may not lead through a
// descriptor that gantry-init still has.
func TestCVE_2024_21626_ExecThroughADescriptor(t *testing.T) {
	p, st := running(t, nil)
	up := strings.Repeat("/..", 20)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for fd := 3; fd < 12; fd++ {
		dir := fmt.Sprintf("/proc/self/fd/%d", fd)
		for _, process := range []*specs.Process{
			{Args: []string{"true"}, Env: []string{"PATH=/bin"}, Cwd: dir},
			{Args: []string{dir + up + exe, "-test.list=^$"}, Cwd: "/"},
			{Args: []string{filepath.Base(exe), "-test.list=^$"}, Env: []string{"PATH=" + dir + up + filepath.Dir(exe)}, Cwd: "/"},
		} {
			if out, stderr, code := execGiven(t, p, st, process); code < 125 || code > 127 {
				t.Errorf("%v in %s: exit status %d %s%s", process.Args, process.Cwd, code, out, stderr)
			}
		}
	}
}

func TestAGivenExecPlan(t *testing.T) {
	process := &specs.Process{
		Args: []string{"sh"}, Cwd: "/", ApparmorProfile: "other",
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}},
	}
	plan, err := launch.ExecPlan(baseSpec("app"), process, launch.PlanOptions{Given: true, Outlive: true, Terminal: true})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "exec-given", plan)
}
