// SPDX-License-Identifier: Apache-2.0

// Package functional runs real programs from real packages in gantry, and
// gantry under a real init system.
package functional

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/gantry"
	"github.com/gantryrun/gantry/tests/imagetest"
)

// debian returns an image made of Debian packages by tests/setup/images.sh, in
// three layers.
func debian(t *testing.T, name string) imagetest.Image {
	t.Helper()
	dir := os.Getenv("GANTRY_TEST_IMAGES")
	f, err := os.Open(filepath.Join(dir, name+".tar"))
	if err != nil {
		t.Skipf("ability missing: image of Debian's %s: %v", name, err)
	}
	defer f.Close()
	layers, err := imagetest.FromTar(f, "usr/lib/", "usr/bin/")
	if err != nil {
		t.Fatal(err)
	}
	image := imagetest.Image{Layers: layers}
	image.Layers[1].Compression = "zstd"
	image.Config.Config.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
	return image
}

// TestPython: an interpreter with thousands of files forks a thousand children.
func TestPython(t *testing.T) {
	ability.Require(t, ability.Root)
	h := gantry.New(t)
	ref := h.Signed("python", debian(t, "python3"))
	const program = `
import os, sys, json, ssl, sqlite3
done = 0
for i in range(1000):
    pid = os.fork()
    if pid == 0:
        os._exit(i % 7)
    _, status = os.waitpid(pid, 0)
    done += os.waitstatus_to_exitcode(status) == i % 7
print(json.dumps({"children": done, "python": sys.version_info[0]}))
`
	out := h.Must("run", "--rm", ref, "python3", "-c", program)
	if !strings.Contains(out, `"children": 1000`) {
		t.Errorf("got %s", out)
	}
	r := h.Run("run", "--rm", "--user", "65534", ref, "python3", "-c", "import os; open('/x', 'w')")
	if r.Status != 1 || !strings.Contains(r.Stderr, "PermissionError") {
		t.Errorf("nobody wrote into the root: %d %s", r.Status, r.Stderr)
	}
}

// TestRedis: a server on the host's network is measured by its own benchmark,
// and what it saved on a volume is there after it was removed.
func TestRedis(t *testing.T) {
	ability.Require(t, ability.Root)
	h := gantry.New(t)
	ref := h.Signed("redis", debian(t, "redis"))
	data := t.TempDir()
	port := freePort(t)
	start := func() {
		h.Must("run", "-d", "--name", "redis", "--net=host", "--memory", "256m", "-v", data+":/data",
			ref, "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", "/data", "--appendonly", "yes", "--daemonize", "no")
		// redis-cli waits for the server by itself when asked to repeat.
		h.Must("exec", "redis", "sh", "-c", "i=0; until redis-cli -p "+port+" ping | grep -q PONG; do i=$((i+1)); [ $i -lt 600 ] || exit 1; sleep 0.1; done")
	}
	start()
	out := h.Must("exec", "redis", "redis-benchmark", "-p", port, "-q", "-n", "2000", "-t", "set,get,incr")
	if !strings.Contains(out, "requests per second") {
		t.Errorf("redis-benchmark said %s", out)
	}
	t.Log(out)
	h.Must("exec", "redis", "redis-cli", "-p", port, "set", "kept", "yes")
	h.Must("stop", "redis")
	h.Must("rm", "redis")
	start()
	if got := h.Must("exec", "redis", "redis-cli", "-p", port, "get", "kept"); got != "yes" {
		t.Errorf("the volume forgot: %q", got)
	}
	h.Must("stop", "redis")
}

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
