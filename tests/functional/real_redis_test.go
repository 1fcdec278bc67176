// SPDX-License-Identifier: Apache-2.0

package functional

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/tests/gantry"
)

// server is one redis on the host's network with its data in a directory of
// the host.
type server struct {
	t    *testing.T
	h    *gantry.Host
	ref  string
	data string
	port string
}

func testRedis(t *testing.T, h *gantry.Host, ref string) {
	s := server{t: t, h: h, ref: ref, data: t.TempDir(), port: freePort(t)}
	// The image's redis user owns /data; the host's directory must be its too.
	if err := os.Chown(s.data, s.number("-u"), s.number("-g")); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.benchmark()
	s.cli("set", "kept", "one")
	s.stop("SIGTERM")

	// The root is read-only, the volume is not.
	s.start("--read-only", "--stop-signal", "INT")
	s.want("one", "get", "kept")
	s.want("OK", "set", "kept", "two")
	if r := h.Run("exec", "redis", "touch", "/etc/x"); r.Status != 1 || !strings.Contains(r.Stderr, "Read-only") {
		t.Errorf("wrote into a read-only root: %d %s", r.Status, r.Stderr)
	}
	s.stop("SIGINT")

	// Nothing was asked to end: the append-only file is what is left.
	s.start("--memory", "256m")
	s.want("OK", "set", "kept", "three")
	s.crash()
	s.start()
	s.want("three", "get", "kept")
	s.stop("SIGTERM")
	testAnonymousVolume(t, h, ref)
}

func (s server) number(flag string) int {
	s.t.Helper()
	out := s.h.Must("run", "--rm", "--entrypoint", "id", s.ref, flag)
	n, err := strconv.Atoi(out)
	if err != nil || n == 0 {
		s.t.Fatalf("the image's user is %q: %v", out, err)
	}
	return n
}

// start runs the server and waits until it answers inside.
func (s server) start(flags ...string) {
	s.t.Helper()
	args := append([]string{"run", "-d", "--name", "redis", "--net=host", "-v", s.data + ":/data:rw"}, flags...)
	s.h.Must(append(args, s.ref, "--port", s.port, "--bind", "127.0.0.1", "--dir", "/data", "--appendonly", "yes")...)
	eventually(s.t, "redis answers", func() bool { return s.h.Run("exec", "redis", "redis-cli", "-p", s.port, "ping").Stdout == "PONG\n" })
}

// stop asks it to end and wants it gone by its own will, after that signal.
func (s server) stop(signal string) {
	s.t.Helper()
	s.h.Must("stop", "redis")
	if log := s.h.Must("logs", "redis"); !strings.Contains(log, "Received "+signal) || !strings.Contains(log, "bye bye") {
		s.t.Errorf("no graceful end after %s:\n%s", signal, log)
	}
	if e := s.status().Exit; e == nil || !e.Known || e.Code != 0 {
		s.t.Errorf("its end is recorded as %+v", e)
	}
	s.h.Must("rm", "redis")
}

type status struct {
	State      string
	PID        int
	Supervisor int
	Exit       *struct {
		Known bool
		Code  int
	}
}

func (s server) status() status {
	s.t.Helper()
	var st status
	if err := json.Unmarshal([]byte(s.h.Must("inspect", "redis")), &st); err != nil {
		s.t.Fatal(err)
	}
	return st
}

// crash kills the supervisor, and wants the next command to see what happened
// and gc to take away what is left.
func (s server) crash() {
	s.t.Helper()
	st := s.status()
	app, err := unix.PidfdOpen(st.PID, 0) // the number may soon be somebody else's
	if err != nil {
		s.t.Fatal(err)
	}
	defer unix.Close(app)
	if err := syscall.Kill(st.Supervisor, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	if (process{app}).runs(60_000) {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", st.PID))
		stack, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stack", st.PID))
		s.t.Fatalf("the app does not follow its supervisor within a minute:\n%s\n%s", status, stack)
	}
	if after := s.status(); after.State != "exited" || after.Exit != nil && after.Exit.Known {
		s.t.Errorf("after kill -9 it is %+v", after)
	}
	if r := s.h.Run("exec", "redis", "true"); r.Status != 125 || !strings.Contains(r.Stderr, "not running") {
		s.t.Errorf("exec in what is gone: %d %s", r.Status, r.Stderr)
	}
	if log := s.h.Must("logs", "redis"); !strings.Contains(log, "Ready to accept connections") {
		s.t.Errorf("its log is lost: %q", log)
	}
	s.h.Must("gc", "--grace-period", "0s")
	if left := s.h.Must("list", "--all", "--quiet"); left != "" {
		s.t.Errorf("gc left %s", left)
	}
}

// cli asks from the host where it has the tools, else from inside: both see
// one network.
func (s server) cli(args ...string) string {
	s.t.Helper()
	args = append([]string{"-p", s.port}, args...)
	tool, err := exec.LookPath("redis-cli")
	if err != nil {
		return s.h.Must(append([]string{"exec", "redis", "redis-cli"}, args...)...)
	}
	out, err := exec.Command(tool, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("redis-cli %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s server) want(want string, args ...string) {
	s.t.Helper()
	if got := s.cli(args...); got != want {
		s.t.Errorf("redis %s: %q, want %q", strings.Join(args, " "), got, want)
	}
}

// benchmark loads it from another process of the pod.
func (s server) benchmark() {
	s.t.Helper()
	out := s.h.Must("exec", "redis", "redis-benchmark", "-p", s.port, "--csv", "-n", "5000", "-t", "set,get,incr,lpush")
	for _, test := range []string{`"SET"`, `"GET"`, `"INCR"`, `"LPUSH"`} {
		if !strings.Contains(out, test) {
			s.t.Errorf("no figure for %s: %s", test, out)
		}
	}
	s.t.Log(out)
}

// testAnonymousVolume: the image's own volume begins with what the image has
// there, its owner too, and goes with the pod.
func testAnonymousVolume(t *testing.T, h *gantry.Host, ref string) {
	out := h.Must("run", "--rm", "--entrypoint", "sh", ref, "-c", "touch x && stat -c %U . x && grep -c ' /data ' /proc/self/mountinfo")
	if out != "redis\nredis\n1" {
		t.Errorf("in the image's volume: %q", out)
	}
	left, err := filepath.Glob(filepath.Join(h.Dir, "lib", "pods", "*", "*", "volumes", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %s %v", left, err)
	}
}
