// SPDX-License-Identifier: Apache-2.0

package supervise_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch/supervise"
)

// helperEnv makes the test binary a gantry that has just started a shell with
// the script in it.
const helperEnv = "GANTRY_TEST_BRIEF"

func init() { //nolint:gochecknoinits // only here is the main thread sure to be the caller
	if os.Getenv(helperEnv) != "" {
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	if script := os.Getenv(helperEnv); script != "" {
		os.Exit(helper(script))
	}
	os.Exit(m.Run())
}

// returned is the exit status of a helper whose Brief returned.
const returned = 99

func helper(script string) int {
	fd := -1
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{
		Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{PidFD: &fd},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c := stage1.Contract{Pid: pid, Pidfd: fd, Pods: -1, Lock: -1, Control: -1, Pty: -1, Stdin: -1, Stdout: -1, Stderr: -1, LogFile: -1}
	c.PidFile = os.Getenv("PIDFILE")
	patience, err := time.ParseDuration(os.Getenv("PATIENCE"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if os.Getenv("LOGGED") != "" {
		c.Stdout = 0
	}
	supervise.Brief(c, patience)
	_ = unix.Kill(pid, unix.SIGKILL)
	return returned
}

// brief runs the helper and tells how it ended and whether it left the pid file.
func brief(t *testing.T, script, patience string, env ...string) (*os.ProcessState, bool) {
	t.Helper()
	pidFile := filepath.Join(t.TempDir(), "pid")
	if err := os.WriteFile(pidFile, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), helperEnv+"="+script, "PATIENCE="+patience, "PIDFILE="+pidFile), env...)
	cmd.Dir = t.TempDir() // for a core file
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); cmd.ProcessState == nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, err := os.Lstat(pidFile)
	return cmd.ProcessState, err == nil
}

func TestEndOfTheAppIsTheEndOfGantry(t *testing.T) {
	for _, sig := range []unix.Signal{0, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGSEGV, unix.SIGABRT, unix.SIGKILL, unix.SIGTERM, unix.SIGALRM, unix.SIGPIPE, 34, 64} {
		if signal.Ignored(sig) {
			continue // under nohup: what is ignored stays so
		}
		t.Run(strconv.Itoa(int(sig)), func(t *testing.T) {
			script := "exit 7"
			if sig != 0 {
				script = fmt.Sprintf("ulimit -c 0; kill -%d $$", sig)
			}
			state, left := brief(t, script, "1m")
			status, ok := state.Sys().(syscall.WaitStatus)
			switch {
			case !ok || left:
				t.Errorf("%v, pid file left: %v", state, left)
			case sig == 0 && state.ExitCode() != 7, sig != 0 && (!status.Signaled() || status.Signal() != sig || status.CoreDump()):
				t.Errorf("gantry ended with %v", state)
			}
		})
	}
}

// An app that stays, or whose output somebody has to copy, gets a supervisor.
func TestGantryDoesNotWaitForLong(t *testing.T) {
	for _, c := range []struct {
		name, patience string
		env            []string
	}{{"it stays", "20ms", nil}, {"it is logged", "1m", []string{"LOGGED=1"}}} {
		began := time.Now()
		state, left := brief(t, "exec sleep 1000", c.patience, c.env...)
		if took := time.Since(began); state.ExitCode() != returned || !left || took > 30*time.Second {
			t.Errorf("%s: %v after %v, pid file left: %v", c.name, state, took, left)
		}
	}
}

// The interruptions the Go runtime makes for itself are no end of the app.
func TestSignalsOfTheRuntimeDoNotEndTheWait(t *testing.T) {
	script := "for n in 1 2 3 4 5 6 7 8 9 10; do kill -URG $PPID; done; exit 7"
	if state, _ := brief(t, script, "1m"); state.ExitCode() != 7 {
		t.Errorf("gantry ended with %v", strings.TrimSpace(state.String()))
	}
}
