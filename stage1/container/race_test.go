// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/undo"
)

// Between the making of a directory and its lock a delete may come, and a second
// create. The first one leaves the second's alone, on its way out too.
func TestACreationThatLostItsDirectoryLeavesTheOthers(t *testing.T) {
	r := Root{Dir: t.TempDir()}
	if err := os.Chmod(r.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.path("c"), 0o700); err != nil {
		t.Fatal(err)
	}
	others := filepath.Join(r.path("c"), stateFile)
	if err := os.WriteFile(others, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.claim("c"); !errors.Is(err, ErrExists) {
		t.Errorf("claim of another's directory: %v", err)
	}
	var u undo.Stack
	if _, err := r.take("c", &u); !errors.Is(err, ErrExists) {
		t.Errorf("take of another's directory: %v", err)
	}
	u.Run()
	if _, err := os.Stat(others); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(r.path("c")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.claim("c"); err == nil {
		t.Error("a directory that is gone was claimed")
	}
}

// A number that was read from a group is another process's by the time it is
// signalled: that one is spared.
func TestSignalsDoNotReachAReusedPid(t *testing.T) {
	start := func() *exec.Cmd {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	reused, member := start(), start()
	pids := []int{reused.Process.Pid, member.Process.Pid, 1<<22 - 1}
	err := signalAll(unix.SIGTERM, pids, func() ([]int, error) { return []int{member.Process.Pid}, nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := member.Wait(); err == nil {
		t.Error("a member of the group got no signal")
	}
	if err := reused.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("a process outside the group is gone: %v", err)
	}
	var status unix.WaitStatus
	if pid, _ := unix.Wait4(reused.Process.Pid, &status, unix.WNOHANG, nil); pid != 0 {
		t.Errorf("a process outside the group ended: %v", status)
	}
}
