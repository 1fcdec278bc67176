// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/tests/ability"
)

// tries is how often a busy machine may take longer for an app than gantry
// waits before it becomes gantry-stage1.
const tries = 20

// brisk skips what is about these 20 ms on a processor that takes them to start
// a shell, as an emulated one does. Package supervise tests the rest there.
func brisk(t *testing.T) {
	t.Helper()
	ability.Require(t, ability.Root, ability.Tool("busybox"))
	best := time.Hour
	for range 10 {
		began := time.Now()
		if err := exec.Command("busybox", "sh", "-c", "exit 0").Run(); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(began))
	}
	if best > 5*time.Millisecond {
		t.Skipf("ability missing: a brisk processor: a shell takes %v", best)
	}
}

// briefly runs an app that gantry itself must see the end of: where it looks
// for gantry-stage1 there is none. command makes what launches the pod.
func briefly(t *testing.T, newPod func() *pod, command func(*pod) *exec.Cmd) (*pod, *os.ProcessState) {
	t.Helper()
	brisk(t)
	for range tries {
		p := newPod()
		p.request.Libexec = t.TempDir()
		if err := os.Symlink(filepath.Join(libexec, "gantry-init"), filepath.Join(p.request.Libexec, "gantry-init")); err != nil {
			t.Fatal(err)
		}
		cmd := command(p)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		_ = cmd.Run()
		if cmd.ProcessState == nil {
			t.Fatal("not started")
		}
		if !strings.Contains(stderr.String(), "gantry-stage1: no such file") {
			t.Log(stderr.String())
			return p, cmd.ProcessState
		}
	}
	t.Fatalf("in %d tries the app did not end before gantry-stage1 was wanted", tries)
	return nil, nil
}

// amongTheHosts gives a pod the host's pid namespace: its app is not process 1,
// which no signal of its own ends and whose end is everybody's.
func amongTheHosts(p *pod) *pod {
	p.request.Spec.Linux.Namespaces = slices.DeleteFunc(p.request.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.PIDNamespace
	})
	return p
}

// over checks what is left of a pod that gantry saw the end of.
func over(t *testing.T, p *pod, want stage1.Exit) {
	t.Helper()
	if st := p.status("exited"); st.Exit == nil || *st.Exit != want || st.Finished == 0 {
		t.Errorf("status is %+v, want %+v", st.Exit, want)
	}
	if _, err := os.Lstat(p.request.PidFile); p.request.PidFile != "" && err == nil {
		t.Error("the pid file is left")
	}
	for _, dir := range cgroupsOf(t, p.request.ID) {
		t.Errorf("left: %s", dir)
	}
}

// cgroupsOf are the control groups with id in their name.
func cgroupsOf(t *testing.T, id string) []string {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(name string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), id) {
			dirs = append(dirs, name)
		}
		return nil // what vanishes meanwhile is not this pod's
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

func TestAppThatDiesAtOnceTakesGantryAlongByItsSignal(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL, unix.SIGSEGV, unix.SIGINT, unix.SIGUSR1} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			p, state := briefly(t, func() *pod {
				p := amongTheHosts(newPod(t, "sh", "-c", fmt.Sprintf("kill -%d $$", sig)))
				p.request.PidFile = filepath.Join(t.TempDir(), "pid")
				return p
			}, (*pod).command)
			status, ok := state.Sys().(syscall.WaitStatus)
			if !ok || !status.Signaled() || status.Signal() != sig || status.CoreDump() {
				t.Errorf("gantry ended with %v", state)
			}
			over(t, p, stage1.Exit{Code: 128 + int(sig), Signal: int(sig)})
		})
	}
}

// As process 1 of a pid namespace no signal ends it: it exits like a shell.
func TestAppThatDiesAtOnceUnderAGantryThatIsProcess1(t *testing.T) {
	ability.Require(t, ability.Root, ability.Tool("unshare"))
	p, state := briefly(t, func() *pod {
		return amongTheHosts(newPod(t, "sh", "-c", "kill -TERM $$"))
	}, func(p *pod) *exec.Cmd { return apart(t, p.command(), "") })
	if state.ExitCode() != 128+int(unix.SIGTERM) {
		t.Errorf("gantry ended with %v", state)
	}
	over(t, p, stage1.Exit{Code: 128 + int(unix.SIGTERM), Signal: int(unix.SIGTERM)})
}

// apart runs a command as process 1 of a pid namespace with a procfs, after a
// line of shell. What it mounts is its own.
func apart(t *testing.T, cmd *exec.Cmd, before string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-euc", before+"\nexec \"$@\"", "sh", self)
	out.Env = cmd.Env
	return out
}

func TestAppThatExitsAtOnce(t *testing.T) {
	p, state := briefly(t, func() *pod { return newPod(t, "sh", "-c", "exit 7") }, (*pod).command)
	if state.ExitCode() != 7 {
		t.Errorf("gantry ended with %v", state)
	}
	over(t, p, stage1.Exit{Code: 7})
}

// What the app leaves behind where it is not everybody's process 1 is killed,
// also if it holds our standard output open.
func TestAppThatExitsAtOnceLeavesNoChildren(t *testing.T) {
	p, state := briefly(t, func() *pod {
		return amongTheHosts(newPod(t, "sh", "-c", "setsid sleep 1000 & exit 3"))
	}, func(p *pod) *exec.Cmd {
		cmd := p.command()
		cmd.Stdout = &strings.Builder{} // a pipe: Run waits until nobody has it
		cmd.WaitDelay = 10 * time.Second
		return cmd
	})
	if state.ExitCode() != 3 {
		t.Errorf("gantry ended with %v", state)
	}
	over(t, p, stage1.Exit{Code: 3})
}

func TestExecThatIsOverAtOnce(t *testing.T) {
	p, st := running(t, nil)
	for _, c := range []struct {
		command string
		code    int
		signal  unix.Signal
	}{{"exit 7", 7, 0}, {"kill -TERM $$", -1, unix.SIGTERM}} {
		pidFile := filepath.Join(t.TempDir(), "pid")
		_, state := briefly(t, func() *pod { q := *p; return &q }, func(q *pod) *exec.Cmd {
			r := execRequest(t, q, st, &specs.Process{Args: []string{"sh", "-c", c.command}, Env: []string{"PATH=/bin"}, Cwd: "/"})
			r.Libexec, r.PidFile = q.request.Libexec, pidFile
			return helperCommand(t, helperRequest{Exec: r})
		})
		if status, ok := state.Sys().(syscall.WaitStatus); !ok || state.ExitCode() != c.code || status.Signaled() && status.Signal() != c.signal {
			t.Errorf("%s: gantry ended with %v", c.command, state)
		}
		if _, err := os.Lstat(pidFile); err == nil {
			t.Error("the pid file is left")
		}
	}
	if _, err := ask(p, stage1.Request{Version: 1, Op: stage1.OpHello}); err != nil {
		t.Errorf("the pod ended with the command: %v", err)
	}
}

// early launches an app and signals gantry as soon as the app says that it
// runs, until that was three times before gantry had become gantry-stage1.
func early(t *testing.T, script string, sig unix.Signal, then func(p *pod, cmd *exec.Cmd)) {
	t.Helper()
	brisk(t)
	came := 0
	for range tries {
		p := newPod(t, "sh", "-c", script)
		cmd := p.command()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if comm(cmd.Process.Pid) != "gantry-stage1" {
			came++
		}
		if line != "ready\n" {
			t.Errorf("the app said %q, %v", line, err)
		}
		ended := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		then(p, cmd)
		ended.Stop()
		if came == 3 || t.Failed() {
			return
		}
	}
	t.Errorf("of %d signals only %d came before the supervisor", tries, came)
}

// A signal that comes while gantry itself still waits is the app's, as it is
// later.
func TestSignalBeforeThereIsASupervisorReachesTheApp(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGPWR, 37} { // SIGRTMIN+3
		script := fmt.Sprintf(`trap "exit 7" %d; echo ready; while :; do sleep 1000 & wait; done`, int(sig))
		early(t, script, sig, func(p *pod, cmd *exec.Cmd) {
			_ = cmd.Wait()
			if cmd.ProcessState.ExitCode() != 7 {
				t.Errorf("signal %v: gantry ended with %v", sig, cmd.ProcessState)
			}
			over(t, p, stage1.Exit{Code: 7})
		})
	}
}

// ^Z stops the app and then gantry, for the shell to see; fg goes on with both.
func TestStopBeforeThereIsASupervisorStopsTheApp(t *testing.T) {
	const script = `trap "exit 7" TERM; echo ready; while :; do sleep 1000 & wait; done`
	early(t, script, unix.SIGTSTP, func(p *pod, cmd *exec.Cmd) {
		var status unix.WaitStatus
		_, err := unix.Wait4(cmd.Process.Pid, &status, unix.WUNTRACED, nil)
		if err != nil || !status.Stopped() {
			t.Fatalf("gantry is not stopped: %#x, %v", status, err)
		}
		app := p.status("run").Pid
		soon(t, "the app is stopped", func() bool { return statusField(t, app, "State") == "T (stopped)" })
		for _, sig := range []unix.Signal{unix.SIGCONT, unix.SIGTERM} {
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Wait()
		if cmd.ProcessState.ExitCode() != 7 {
			t.Errorf("gantry ended with %v", cmd.ProcessState)
		}
	})
}

func TestKillBeforeThereIsASupervisorTakesTheAppAlong(t *testing.T) {
	early(t, "echo ready; sleep 1000", unix.SIGKILL, func(p *pod, cmd *exec.Cmd) {
		_ = cmd.Wait()
		soon(t, "the app is gone", func() bool {
			return !slices.ContainsFunc(cgroupsOf(t, p.request.ID), func(dir string) bool {
				b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
				return len(b) > 0
			})
		})
		lock, err := flock.OpenDir(p.request.PodDir)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		if err := flock.TryExclusive(lock); err != nil {
			t.Errorf("the pod is still locked: %v", err)
		}
	})
}

// soon waits for what the kernel does a moment after a signal was sent.
func soon(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); _, _ = unix.Poll(nil, 1) {
		if time.Now().After(deadline) {
			t.Errorf("not within ten seconds: %s", what)
			return
		}
	}
}

func comm(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// gantry does not stay for an app that does: it is many times the size.
func TestLongRunningAppHasASupervisorOfItsOwn(t *testing.T) {
	p, _ := running(t, nil)
	b, err := os.ReadFile(filepath.Join(p.request.PodDir, stage1.RuntimeFile))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, rest, ok := strings.Cut(string(b), `"supervisor":`); ok {
		_, err = fmt.Sscan(rest, &pid)
	}
	if err != nil || pid <= 1 {
		t.Fatalf("no supervisor in %s: %v", b, err)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || filepath.Base(exe) != "gantry-stage1" || comm(pid) != "gantry-stage1" {
		t.Errorf("process %d, which supervises, is %s, %s, %v", pid, exe, comm(pid), err)
	}
}

// The end of the app takes along whoever is on the way into it, and that is
// what the user is told.
func TestAppThatEndsDuringAnExec(t *testing.T) {
	p, st := running(t, nil)
	cat, err := os.ReadFile("/bin/cat") // a gantry-init that never gets there
	if err != nil {
		t.Skip("ability missing: cat")
	}
	r := execRequest(t, p, st, &specs.Process{Args: []string{"true"}, Env: []string{"PATH=/bin"}, Cwd: "/"})
	r.Libexec, r.Stdin = t.TempDir(), true
	if err := os.WriteFile(filepath.Join(r.Libexec, "gantry-init"), cat, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := helperCommand(t, helperRequest{Exec: r})
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	soon(t, "gantry-init is in the app's group", func() bool {
		return slices.ContainsFunc(r.Cgroups, func(dir string) bool {
			b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			return strings.Count(string(b), "\n") > 1
		})
	})
	if err := unix.Kill(st.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	ended.Stop()
	if code := cmd.ProcessState.ExitCode(); code != 125 || stderr.String() != "launch: app is not running\n" {
		t.Errorf("exit status %d: %s", code, stderr.String())
	}
}
