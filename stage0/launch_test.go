// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/built"
	"github.com/gantryrun/gantry/tests/testkey"
)

// host is a gantry of a test's own, with one signed and trusted image.
type host struct {
	t   testing.TB
	env Env
	ref string
	dir string
}

func newHost(t testing.TB, mkimage ...string) *host {
	t.Helper()
	ability.Require(t, ability.Root, ability.Overlay)
	dir, bin := t.TempDir(), built.Dir(t)
	h := &host{t: t, dir: dir, ref: "oci:" + filepath.Join(dir, "oci") + ":box", env: Env{
		Dir: filepath.Join(dir, "lib"), RunDir: filepath.Join(dir, "run"), Libexec: bin,
		ConfigPath: []string{filepath.Join(dir, "etc")},
	}}
	h.ok(exec.Command(filepath.Join(bin, "tests", "mkimage"), append(mkimage, "busybox", h.ref)...))
	key := filepath.Join(dir, "key")
	if err := testkey.Write(key); err != nil {
		t.Fatal(err)
	}
	// Without the default network, which would change that of the host.
	if err := os.MkdirAll(filepath.Join(dir, "etc", "net.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc", "net.d", "default.conflist"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h.gantry("sign", "--key", key+".key", h.ref)
	h.gantry("trust", "add", "--prefix", "oci:"+filepath.Join(dir, "oci"), key+".pub")
	t.Cleanup(func() { // before the directory goes, whatever the test left
		rs, _ := List(h.env, ListOptions{All: true})
		for _, r := range rs {
			_ = Kill(h.env, r.UUID, "KILL") // most test payloads ignore TERM
			_ = Remove(context.Background(), h.env, r.UUID, RemoveOptions{Force: true})
		}
	})
	return h
}

func (h *host) cmd(args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(h.env.Libexec, "gantry"), append(h.env.Args(), args...)...)
	c.Env = append(os.Environ(), "COSIGN_PASSWORD=")
	return c
}

func (h *host) ok(c *exec.Cmd) string {
	h.t.Helper()
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		h.t.Fatalf("%v: %v\n%s%s", c.Args, err, out, errs.String())
	}
	return strings.TrimSpace(string(out))
}

func (h *host) gantry(args ...string) string { h.t.Helper(); return h.ok(h.cmd(args...)) }

// refuse runs a command that must fail for gantry's own reasons.
func (h *host) refuse(want string, args ...string) {
	h.t.Helper()
	out, err := h.cmd(args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 125 || !strings.Contains(string(out), want) {
		h.t.Errorf("%v: %v, %q; want status 125 and %q", args, err, out, want)
	}
}

// run is prepare and run-prepared in one: both make the same bundle.
func TestRunIsPrepareAndRunPrepared(t *testing.T) {
	h := newHost(t, "-user", "web", "-volumes", "/data", "-env", "A=1")
	flags := []string{"--memory", "64m", "--read-only", "-e", "B=2", "--ulimit", "core=0", "--tmpfs", "/x"}
	config := func(uuid string) string {
		t.Helper()
		b, err := json.Marshal(must(Inspect(h.env, uuid))(t).Config)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.ReplaceAll(string(b), uuid, "UUID"), pod.Short(uuid), "SHORT")
	}
	prepared := h.gantry(append(append([]string{"prepare"}, flags...), h.ref, "true")...)
	h.gantry("run-prepared", prepared)
	file := filepath.Join(h.dir, "uuid")
	h.gantry(append(append([]string{"run", "--uuid-file", file}, flags...), h.ref, "true")...)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	detached := h.gantry(append(append([]string{"run", "-d"}, flags...), h.ref, "true")...)
	want := config(prepared)
	for _, uuid := range []string{strings.TrimSpace(string(b)), detached} {
		if got := config(uuid); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// A process that outlives its supervisor has the ids of its pod: they were given
// to the next pod while it still ran, as that pod's root.
func TestIDsAreFreeWhenTheirProcessesAreGone(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(h.dir, "pid")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(file, 0o666), os.Chmod(h.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	uuid := h.gantry("run", "-d", "--userns=auto", "--pid=host", "-v", file+":/pid", h.ref, "sh", "-c", "sleep 1000 & echo $! > /pid; wait")
	var pid int
	for end := time.Now().Add(10 * time.Second); pid == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(file)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	if pid == 0 {
		t.Fatal("it did not start")
	}
	if err := syscall.Kill(must(Status(h.env, uuid))(t).Supervisor, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p := must(h.env.pods().Find(uuid))(t)
	defer p.Close()
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	runs := func() bool { // a zombie has no command line
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return len(b) > 0
	}
	if !runs() {
		t.Fatal("nothing outlived the supervisor")
	}
	if left := h.env.sweepIDs(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	if runs() {
		t.Error("its ids are free while it runs")
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Whatever is altered in a prepared pod, it does not start.
func TestAlteredPodDoesNotStart(t *testing.T) {
	h := newHost(t)
	for name, alter := range map[string][2]string{
		"apps/app/config.json": {`"noNewPrivileges":true`, `"noNewPrivileges":false`},
		"apps/app/launch.json": {`"stopTimeout":10`, `"stopTimeout":11`},
		"pod.json":             {`"network":"none"`, `"network":"host"`},
	} {
		uuid := h.gantry("prepare", "--security-opt", "no-new-privileges", h.ref, "true")
		file := filepath.Join(h.env.Dir, "pods", "prepared", uuid, name)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		altered := bytes.Replace(b, []byte(alter[0]), []byte(alter[1]), 1)
		if bytes.Equal(altered, b) {
			altered = append(b, ' ')
		}
		if err := os.WriteFile(file, altered, 0o600); err != nil {
			t.Fatal(err)
		}
		h.refuse(ErrSeal.Error(), "run-prepared", uuid)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		h.gantry("run-prepared", uuid)
	}
}

// Nor does it when its writable layer was filled, or its files lead elsewhere.
func TestPreparedPodIsNotPoisoned(t *testing.T) {
	h := newHost(t)
	for what, poison := range map[string]func(dir string) error{
		"program over the image's": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "upper/evil"), []byte("#!/bin/sh"), 0o755)
		},
		"another directory's tree": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "upper")), os.Symlink("/etc", filepath.Join(dir, "upper")))
		},
		"link to a file of the host": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "hosts")), os.Symlink("/etc/shadow", filepath.Join(dir, "hosts")))
		},
		"name server": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver 192.0.2.1\n"), 0o644)
		},
		"content in a volume": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "volumes/0/evil"), nil, 0o644)
		},
	} {
		uuid := h.gantry("prepare", "-v", "/data", h.ref, "true")
		if err := poison(filepath.Join(h.env.Dir, "pods", "prepared", uuid)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		h.refuse("", "run-prepared", uuid)
	}
}

// Two run-prepared of one pod: one runs it, the other says so at once, while
// the first still runs.
func TestTwoRunPrepared(t *testing.T) {
	h := newHost(t)
	uuid := h.gantry("prepare", h.ref, "sleep", "1000")
	type result struct {
		out string
		err error
	}
	results := make(chan result, 2)
	for range 2 {
		go func() {
			out, err := h.cmd("run-prepared", "-d", uuid).CombinedOutput()
			results <- result{string(out), err}
		}()
	}
	a, b := <-results, <-results
	if (a.err == nil) == (b.err == nil) {
		t.Fatalf("one said %q (%v), the other %q (%v)", a.out, a.err, b.out, b.err)
	}
	if loser := a.out + b.out; !strings.Contains(loser, ErrBusy.Error()) && !strings.Contains(loser, "it is in phase run") {
		t.Errorf("the loser said %q", loser)
	}
	if r := must(Status(h.env, uuid))(t); r.State != "running" {
		t.Errorf("it is %s", r.State)
	}
}

// gc again and again beside launches: it never takes a pod from under one.
func TestGCBesideRun(t *testing.T) {
	h := newHost(t)
	h.gantry("run", "--rm", h.ref, "true")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if _, err := GC(context.Background(), h.env, GCOptions{}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 10 {
		h.gantry("run", "--rm", h.ref, "true")
		h.gantry("run-prepared", h.gantry("prepare", "--rm", h.ref, "true"))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if rs := must(List(h.env, ListOptions{All: true}))(t); len(rs) != 0 {
		t.Errorf("left: %+v", rs)
	}
}

// kill -9 of the supervisor: whoever asks is told that it was killed, the one
// who waits is woken, the control groups are gone, and the name can be had.
func TestKilledSupervisor(t *testing.T) {
	h := newHost(t)
	uuid := h.gantry("run", "-d", "--name", "web", h.ref, "sleep", "1000")
	in := must(Inspect(h.env, uuid))(t)
	if in.State != "running" || in.PID == 0 || in.Supervisor == 0 {
		t.Fatalf("it is %+v", in.Record)
	}
	woken := make(chan Record, 1)
	go func() {
		r, err := Wait(context.Background(), h.env, "web")
		if err != nil {
			t.Error(err)
		}
		woken <- r
	}()
	p, err := os.FindProcess(in.Supervisor)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if r := <-woken; r.State != "exited" || r.Exit == nil || r.Exit.Known || r.Exit.Text() != "killed" {
		t.Errorf("the one who waited was told %+v, %+v", r, r.Exit)
	}
	for _, dir := range in.Cgroups {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
	h.refuse("in use by pod "+pod.Short(uuid), "run", "--name", "web", h.ref, "true")
	h.gantry("run", "--replace", "--name", "web", h.ref, "true")
	if _, err := Status(h.env, uuid); !errors.Is(err, pod.ErrNotFound) {
		t.Errorf("the replaced one: %v", err)
	}
}

// A pod that was to be removed at its end and lost its supervisor stands in
// nobody's way.
func TestKilledSupervisorOfRemovedPod(t *testing.T) {
	h := newHost(t)
	for range 2 {
		h.gantry("run", "-d", "--rm", "--name", "web", h.ref, "sleep", "1000")
		in := must(Inspect(h.env, "web"))(t)
		p, err := os.FindProcess(in.Supervisor)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		// The kernel says when it is gone; then nobody has swept it yet.
		q := must(h.env.pods().Find(in.UUID))(t)
		if err := q.Wait(); err != nil {
			t.Fatal(err)
		}
		_ = q.Close()
	}
	h.gantry("run", "--rm", "--name", "web", h.ref, "true")
	if rs := must(List(h.env, ListOptions{All: true}))(t); len(rs) != 0 {
		t.Errorf("left: %+v", rs)
	}
}

func TestWaitAndExit(t *testing.T) {
	h := newHost(t)
	h.gantry("run", "-d", "--name", "w", h.ref, "sh", "-c", "read x < /dev/null; exit 3")
	r := must(Wait(context.Background(), h.env, "w"))(t)
	if r.State != "exited" || r.Exit == nil || r.Exit.Text() != "3" || r.Started.IsZero() || r.Exited.Before(r.Started) {
		t.Errorf("%+v %+v", r, r.Exit)
	}
	h.gantry("run", "-d", "--name", "k", h.ref, "sleep", "1000")
	if err := Kill(h.env, "k", "KILL"); err != nil {
		t.Fatal(err)
	}
	if r := must(Wait(context.Background(), h.env, "k"))(t); r.Exit.Text() != "137 (SIGKILL)" {
		t.Errorf("%+v", r.Exit)
	}
	if err := Kill(h.env, "k", "KILL"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a signal to the dead: %v", err)
	}
}

// A pod that is removed at its end leaves nothing to read: who waits hears from
// its supervisor how the app ended.
func TestWaitForRemoved(t *testing.T) {
	h := newHost(t)
	for n, want := range map[string]string{"7": "7", "9": "137 (SIGKILL)"} {
		h.gantry("run", "-d", "--rm", "--name", "w", h.ref, "sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done")
		// Process 1 of a pid namespace is not ended by a signal it does not expect yet.
		for until := time.Now().Add(time.Minute); h.gantry("logs", "w") != "ready"; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("the app is not ready within a minute")
			}
		}
		p := must(h.env.pods().Find("w"))(t)
		heard := make(chan Record, 1)
		go func() {
			r, err := Wait(context.Background(), h.env, "w")
			if err != nil {
				t.Error(err)
			}
			heard <- r
		}()
		awaitWaiter(t, p)
		_ = p.Close()
		if err := Kill(h.env, "w", map[string]string{"7": "USR1", "9": "KILL"}[n]); err != nil {
			t.Fatal(err)
		}
		r := <-heard
		if r.State != "removed" || r.Name != "w" || r.Image == "" || r.Exit == nil || r.Exit.Text() != want || r.Exited.Before(r.Started) {
			t.Errorf("want %s: %+v %+v", want, r, r.Exit)
		}
	}
}

// awaitWaiter returns when somebody sleeps until the pod's lock is free. Before
// that he has connected to its supervisor.
func awaitWaiter(t *testing.T, p *pod.Pod) {
	t.Helper()
	st := must(p.File().Stat())(t).Sys().(*syscall.Stat_t)
	lock := fmt.Sprintf(":%d ", st.Ino)
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		for line := range strings.Lines(string(must(os.ReadFile("/proc/locks"))(t))) {
			if strings.Contains(line, "-> FLOCK") && strings.Contains(line, lock) {
				return
			}
		}
	}
	t.Fatal("nobody waits")
}

// Whoever has a pod for a moment, to sweep it or to look at it, does not make
// a removal fail; one who keeps it does.
func TestRemoveOutwaits(t *testing.T) {
	dir := t.TempDir()
	e := Env{Dir: dir, RunDir: filepath.Join(dir, "run")}
	exited := func() string {
		p := must(e.pods().Create())(t)
		defer p.Close()
		for _, to := range []pod.Phase{pod.Run, pod.Exited} {
			if err := p.Move(to); err != nil {
				t.Fatal(err)
			}
		}
		return p.UUID
	}
	other := func(uuid string) *pod.Pod {
		p := must(e.pods().Find(uuid))(t)
		if err := p.TryLock(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	uuid := exited()
	p := other(uuid)
	go func() {
		time.Sleep(50 * time.Millisecond)
		_ = p.Close()
	}()
	if err := Remove(context.Background(), e, uuid, RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := Status(e, uuid); !errors.Is(err, pod.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	uuid = exited()
	p = other(uuid)
	defer p.Close()
	if err := Remove(context.Background(), e, uuid, RemoveOptions{}); !errors.Is(err, ErrBusy) {
		t.Errorf("another keeps it: %v", err)
	}
}

// A reader that saw a pod run and finds it moved takes no lock: it would tell
// who removes the pod that another has it.
func TestReaderOfEndedPodTakesNoLock(t *testing.T) {
	dir := t.TempDir()
	e := Env{Dir: dir, RunDir: filepath.Join(dir, "run")}
	owner := must(e.pods().Create())(t)
	if err := owner.Move(pod.Run); err != nil {
		t.Fatal(err)
	}
	reader := must(e.pods().Find(owner.UUID))(t)
	defer reader.Close()
	if err := owner.Move(pod.Exited); err != nil {
		t.Fatal(err)
	}
	_ = owner.Close()
	remover := must(e.pods().Find(owner.UUID))(t)
	defer remover.Close()
	if err := remover.TryLock(); err != nil {
		t.Fatal(err)
	}
	if done, err := e.sweepCrashed(reader); done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	if reader.Phase() != pod.Exited {
		t.Errorf("it was not looked at: it stands in %s", reader.Phase())
	}
}

// A stop that has to kill, beside others who wait, ends and removes at once.
func TestStopKills(t *testing.T) {
	h := newHost(t)
	h.gantry("run", "-d", "--name", "deaf", h.ref, "sh", "-c", "trap '' TERM; while :; do sleep 1000; done")
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() { _, _ = Wait(context.Background(), h.env, "deaf") })
	}
	soon := 100 * time.Millisecond
	if err := Stop(context.Background(), h.env, "deaf", StopOptions{Timeout: &soon}); err != nil {
		t.Fatal(err)
	}
	if r := must(Status(h.env, "deaf"))(t); r.Exit == nil || r.Exit.Code != 137 {
		t.Errorf("%+v", r)
	}
	if err := Remove(context.Background(), h.env, "deaf", RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if err := Stop(context.Background(), h.env, "deaf", StopOptions{}); !errors.Is(err, pod.ErrNotFound) {
		t.Error(err)
	}
	waiting.Wait()
}

// What failed to start leaves no pod, no name and no control group.
func TestFailedLaunchLeavesNothing(t *testing.T) {
	h := newHost(t)
	for _, args := range [][]string{
		{"run", "--name", "x", h.ref, "/no/such"},
		{"run", "-d", "--name", "x", h.ref, "/no/such"},
		{"run", "--name", "x", "-v", "/no/such:/x", h.ref, "true"},
		{"run", "--name", "x", "--seccomp", "/no/such", h.ref, "true"},
		{"prepare", "--name", "x", "-u", "nobody-there", h.ref, "true"},
	} {
		if out, err := h.cmd(args...).CombinedOutput(); err == nil {
			t.Errorf("%v: %s", args, out)
		}
	}
	left, err := filepath.Glob(filepath.Join(h.env.Dir, "pods", "*", "*"))
	names, err2 := filepath.Glob(filepath.Join(h.env.RunDir, "names", "*"))
	if err != nil || err2 != nil || len(left)+len(names) != 0 {
		t.Errorf("left: %v %v", left, names)
	}
}
