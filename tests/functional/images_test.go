// SPDX-License-Identifier: Apache-2.0

// Package functional runs real programs from real packages in gantry, and
// gantry under a real init system.
package functional

import (
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/gantry"
	"github.com/gantryrun/gantry/tests/imagetest"
)

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("odd address %v", l.Addr())
	}
	return strconv.Itoa(address.Port)
}

// TestUnit: in a systemd unit the app lives below the unit's cgroup, the unit's
// own limits hold for it, its exit status is the unit's, and stopping the unit
// leaves nothing.
func TestUnit(t *testing.T) {
	ability.Require(t, ability.Root, ability.Systemd, ability.Cgroup2, ability.Tool("busybox"))
	h := gantry.New(t)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	image, err := imagetest.Busybox(busybox, h.Program("inspect"))
	if err != nil {
		t.Fatal(err)
	}
	ref := h.Signed("box", image)
	unit := func(name string, properties []string, args ...string) (string, int) {
		all := []string{"--quiet", "--wait", "--pipe", "--collect", "--unit=" + name}
		for _, e := range h.Env {
			all = append(all, "--setenv="+e)
		}
		for _, p := range properties {
			all = append(all, "--property="+p)
		}
		all = append(all, filepath.Join(filepath.Dir(filepath.Dir(h.Program("x"))), "gantry"), "run", "--rm")
		cmd := exec.Command("systemd-run", append(append(all, ref), args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, status := unit("gantry-test-status", []string{"Delegate=yes"}, "sh", "-c", "exit 42"); status != 42 {
		t.Errorf("the unit's status is %d: %s", status, out)
	}
	if out, status := unit("gantry-test-limit", []string{"Delegate=yes", "MemoryMax=64M", "MemorySwapMax=0"}, "inspect", "hog", "256"); status == 0 {
		t.Errorf("the unit's MemoryMax does not hold for the app: %s", out)
	}
	if out, status := unit("gantry-test-tasks", []string{"Delegate=yes", "TasksMax=60"}, "inspect", "fork", "200"); status != 0 || !strings.Contains(out, "EAGAIN") {
		t.Errorf("the unit's TasksMax does not hold for the app: %d %s", status, out)
	}
	if out, status := unit("gantry-test-plain", nil, "true"); status != 0 {
		t.Errorf("a unit without Delegate: %d %s", status, out)
	}
	left, err := exec.Command("find", "/sys/fs/cgroup/system.slice", "-path", "*gantry-test*").Output()
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %s %v", left, err)
	}
}
