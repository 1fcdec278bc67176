// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// newGroup makes a group of this test's own and removes it at the end.
func newGroup(t testing.TB, r *specs.LinuxResources, strict ...string) *Group {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("ability missing: root")
	}
	s, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	if !s.Writable {
		t.Skip("ability missing: a writable cgroup hierarchy")
	}
	asked := map[string]bool{}
	for _, name := range strict {
		asked[name] = true
	}
	g, err := Create(Options{Name: uniqueName(), Resources: r, Strict: asked, Note: func(s string) { t.Log("note:", s) }})
	var le *LimitError
	if errors.As(err, &le) {
		t.Skipf("ability missing: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dirs := g.Dirs()
		if err := g.Delete(); err != nil {
			t.Errorf("delete: %v", err)
		}
		for _, dir := range dirs {
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", dir, err)
			}
		}
	})
	return g
}

func uniqueName() string { return "gantry-test-" + strings.ToLower(rand.Text()) }

// start runs a shell script born in the group and returns it; it is killed at
// the end, at the latest with the group.
func start(t testing.TB, g *Group, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdin, cmd.Stderr = nil, os.Stderr
	startCmd(t, g, cmd)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
	})
	return cmd
}

func startCmd(t testing.TB, g *Group, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if fd := g.CloneFD(); fd != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(fd.Fd())
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	back, err := g.Enter()
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Start()
	if err := back(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The app is in every one of the group's directories from its first
// instruction on, and we are in none of them.
func TestAppIsBornInItsGroup(t *testing.T) {
	g := newGroup(t, nil)
	cmd := start(t, g, "exec sleep 1000")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range g.Dirs() {
		pids, err := readPids(filepath.Join(dir, "cgroup.procs"))
		if err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
			t.Errorf("%s holds %v, %v; want only %d; it is in\n%s", dir, pids, err, cmd.Process.Pid, b)
		}
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(self), filepath.Base(g.Dirs()[0])) {
		t.Errorf("we stayed in the group:\n%s", self)
	}
}

func TestAdd(t *testing.T) {
	g := newGroup(t, nil)
	cmd := exec.Command("/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	for _, dir := range g.Dirs() {
		if pids, err := readPids(filepath.Join(dir, "cgroup.procs")); err != nil || !slices.Contains(pids, cmd.Process.Pid) {
			t.Errorf("%s holds %v, %v; want %d", dir, pids, err, cmd.Process.Pid)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// What was asked for is what the kernel says, wherever the controller is.
func TestLimitsAreReadBack(t *testing.T) {
	for _, tt := range []struct {
		name   string
		strict string
		res    specs.LinuxResources
		want   map[string]string // v1 file and v2 file to content, any one that exists
	}{
		{
			"memory", "memory",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}},
			map[string]string{"memory.limit_in_bytes": "67108864", "memory.max": "67108864"},
		},
		{
			"swap", "memory",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20))}},
			map[string]string{"memory.memsw.limit_in_bytes": "100663296", "memory.swap.max": "33554432"},
		},
		{
			"reservation", "memory",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Reservation: ptr(int64(32 << 20))}},
			map[string]string{"memory.soft_limit_in_bytes": "33554432", "memory.low": "33554432"},
		},
		{
			"pids", "pids",
			specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(7))}},
			map[string]string{"pids.max": "7"},
		},
		{
			"cpu quota", "cpu",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(50000))}},
			map[string]string{"cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000"},
		},
		{
			"cpu shares", "cpu",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(512))}},
			map[string]string{"cpu.shares": "512", "cpu.weight": "59"},
		},
		{
			"cpuset", "cpuset",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}},
			map[string]string{"cpuset.cpus": "0"},
		},
		{
			"blkio weight", "blkio",
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(300))}},
			map[string]string{"blkio.weight": "300", "blkio.bfq.weight": "300", "io.bfq.weight": "default 300", "io.weight": "default 2930"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGroup(t, &tt.res, tt.strict)
			if err := g.Settle(); err != nil {
				t.Fatal(err)
			}
			found := false
			for _, dir := range g.Dirs() {
				for file, want := range tt.want {
					b, err := os.ReadFile(filepath.Join(dir, file))
					if err != nil {
						continue
					}
					got, _, _ := strings.Cut(string(b), "\n")
					found = found || got == want
					if got != want {
						t.Logf("%s/%s = %q", dir, file, got)
					}
				}
			}
			if !found {
				t.Errorf("none of %v", tt.want)
			}
		})
	}
}

// The device rules hold although the process has every capability.
func TestDevicesAreConfined(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{})
	if !g.Confined() {
		t.Skip("ability missing: device control")
	}
	node := filepath.Join(t.TempDir(), "kmsg")
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 11))); err != nil {
		t.Skipf("ability missing: CAP_MKNOD: %v", err)
	}
	if err := exec.Command("/bin/sh", "-c", "exec 3<"+node).Run(); err != nil {
		t.Skipf("ability missing: /dev/kmsg: %v", err)
	}
	cmd := exec.Command("/bin/sh", "-c", "echo x >/dev/null && ! (exec 3<"+node+") 2>/dev/null && mknod "+node+"2 c 1 11")
	startCmd(t, g, cmd)
	if err := cmd.Wait(); err != nil {
		t.Errorf("inside: %v; want /dev/null open, kmsg refused, mknod allowed", err)
	}
}

// The eBPF program of unified hosts, tried wherever a unified hierarchy is:
// here on groups of hybrid hosts as well.
func TestDeviceFilterInTheKernel(t *testing.T) {
	g := newGroup(t, nil)
	fd := g.CloneFD()
	if fd == nil {
		t.Skip("ability missing: a unified hierarchy")
	}
	dir := t.TempDir()
	zero := filepath.Join(dir, "zero")
	if err := unix.Mknod(zero, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))); err != nil {
		t.Skipf("ability missing: CAP_MKNOD: %v", err)
	}
	rule := func(minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: &minor, Access: access}
	}
	if err := exec.Command("/bin/sh", "-c", "exec 3<"+zero).Run(); err != nil {
		t.Skipf("ability missing: devices in %s (nodev?): %v", dir, err)
	}
	rules := []specs.LinuxDeviceCgroup{{Type: "a", Access: "rwm"}, rule(3, "r"), rule(3, "w"), rule(5, "r")}
	if err := attachDeviceFilter(fd, rules); err != nil {
		t.Skipf("ability missing: BPF_PROG_TYPE_CGROUP_DEVICE: %v", err)
	}
	for script, want := range map[string]bool{
		"exec 3</dev/null":           true,
		"exec 3<>/dev/null":          true,
		"exec 3<" + zero:             true,
		"exec 3>" + zero:             false,
		"exec 3<>" + zero:            false, // a read-only rule is not half of O_RDWR
		"exec 3</dev/urandom":        false,
		"mknod " + dir + "/x c 1 3":  false,
		"mkfifo " + dir + "/f && :":  true,
		"mknod " + dir + "/y b 7 99": false,
	} {
		cmd := exec.Command("/bin/sh", "-c", "("+script+") 2>/dev/null")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
		if err := cmd.Run(); (err == nil) != want {
			t.Errorf("%s: %v, want success %v", script, err, want)
		}
	}
}

// Grandchildren in new sessions, forks on the way, a frozen group and a group
// the app made below its own all go.
func TestKillAllAndRemoveAll(t *testing.T) {
	g := newGroup(t, nil)
	ready := filepath.Join(t.TempDir(), "ready")
	if err := unix.Mkfifo(ready, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := start(t, g, `trap '' TERM HUP INT
		for i in 1 2 3 4 5 6 7 8; do setsid sh -c 'trap "" TERM; sleep 1000 & wait' & done
		echo >`+ready+`
		while :; do sh -c : ; done`)
	if _, err := os.ReadFile(ready); err != nil {
		t.Fatal(err)
	}
	dirs := g.Dirs()
	for _, dir := range dirs {
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		if isUnified(dir) {
			if err := writeFile(dir, "cgroup.freeze", "1"); err != nil {
				t.Log(err)
			}
		}
	}
	if err := KillAll(dirs); err != nil {
		t.Fatal(err)
	}
	state, err := cmd.Process.Wait()
	if err != nil || state.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("app ended as %v, %v; want SIGKILL", state, err)
	}
	if err := RemoveAll(dirs); err != nil {
		t.Fatal(err)
	}
	if err := RemoveAll(dirs); err != nil {
		t.Errorf("second time: %v", err)
	}
	if err := KillAll(dirs); err != nil {
		t.Errorf("kill what is gone: %v", err)
	}
}

// Directories come from a file. Whatever it says, only groups are killed and
// removed, and never the top of a hierarchy.
func TestKillAndRemoveOnlyGroups(t *testing.T) {
	h, err := thisHost()
	if err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	bad := []string{"", ".", "/", "/proc", empty, filepath.Dir(empty) + "/./empty"}
	for _, v1 := range h.v1 {
		bad = append(bad, v1.mount, v1.mount+"/../"+filepath.Base(v1.mount))
	}
	if h.v2 != nil {
		bad = append(bad, h.v2.mount)
	}
	for _, dir := range bad {
		// Find alone first: were it to let one through, KillAll would
		// take the machine with it.
		if _, err := Find([]string{dir}); err == nil {
			t.Fatalf("%q is taken for a group", dir)
		}
		if err := KillAll([]string{dir}); err == nil {
			t.Errorf("KillAll(%q) does not mind", dir)
		}
		if err := RemoveAll([]string{dir}); err == nil {
			t.Errorf("RemoveAll(%q) does not mind", dir)
		}
	}
	if _, err := os.Stat(empty); err != nil {
		t.Error(err)
	}
}

// Before Linux 5.14 and on plain v1 there is no cgroup.kill; the slow way has
// to do the same.
func TestKillSlowly(t *testing.T) {
	g := newGroup(t, nil)
	start(t, g, "for i in 1 2 3 4 5 6 7 8; do setsid sleep 1000 & done; while :; do sh -c : ; done")
	for _, dir := range g.Dirs() {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		if err := killSlowly(dir); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// startAndSettle starts a command that reads a line before it does anything,
// as an app is started: with room for more tasks than it will have.
func startAndSettle(t *testing.T, g *Group, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	startCmd(t, g, cmd)
	if err := g.Settle(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	return cmd
}

// A process limit stops a fork bomb, and the pod is found guilty of its OOM.
func TestLimitsHold(t *testing.T) {
	t.Run("pids", func(t *testing.T) {
		g := newGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(4))}}, "pids")
		cmd := exec.Command("/bin/sh", "-c", "read line; for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; wait")
		if err := startAndSettle(t, g, cmd).Wait(); err == nil {
			t.Error("eight sleeps ran under a limit of four processes")
		}
	})
	t.Run("one process", func(t *testing.T) {
		g := newGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(1))}}, "pids")
		cmd := exec.Command("/bin/sh", "-c", "read line; (:) 2>/dev/null && exit 1; exit 0")
		if err := startAndSettle(t, g, cmd).Wait(); err != nil && cmd.ProcessState.ExitCode() == 1 {
			t.Error("a process limited to itself could fork")
		}
	})
	t.Run("room for a launch", func(t *testing.T) {
		limit := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(2))}}
		g := newGroup(t, limit, "pids")
		most := func() (most uint64) {
			for _, dir := range g.Dirs() {
				if n, ok := number(dir, "pids.max"); ok {
					most = n
				}
			}
			return most
		}
		if n := most(); n != launchTasks {
			t.Errorf("a launch has room for %d tasks, not %d", n, launchTasks)
		}
		if err := Settle(g.Dirs(), limit); err != nil || most() != 2 {
			t.Errorf("settled at %d tasks, %v", most(), err)
		}
	})
	t.Run("memory", func(t *testing.T) {
		g := newGroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20))}}, "memory")
		if OOMKilled(g.Dirs()) {
			t.Error("out of memory before anything ran")
		}
		cmd := exec.Command("/bin/sh", "-c", "head -c 100m /dev/zero | tail -c 90m >/dev/null; exit 3")
		startCmd(t, g, cmd)
		_ = cmd.Wait()
		if !OOMKilled(g.Dirs()) {
			t.Errorf("no OOM seen; %v", cmd.ProcessState)
		}
		f := Stats(g.Dirs())
		if f.MemoryLimit == nil || *f.MemoryLimit != 16<<20 || f.Memory == nil || f.CPU == nil {
			t.Errorf("figures = %+v", f)
		}
	})
}

func TestPids(t *testing.T) {
	g := newGroup(t, nil)
	cmd := start(t, g, "exec sleep 1000")
	got, err := Pids(g.Dirs())
	if err != nil || !slices.Equal(got, []int{cmd.Process.Pid}) {
		t.Errorf("Pids = %v, %v; want [%d]", got, err, cmd.Process.Pid)
	}
	if got, err := Pids([]string{"/sys/fs/cgroup/nothing/here"}); err != nil || got != nil {
		t.Errorf("Pids of nothing = %v, %v", got, err)
	}
}

// A limit the kernel refuses is named, and nothing is left.
func TestRefusedLimitIsNamed(t *testing.T) {
	newGroup(t, nil)
	for _, strict := range []bool{true, false} {
		var notes []string
		name := uniqueName()
		g, err := Create(Options{
			Name:      name,
			Resources: &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000-4001"}},
			Strict:    map[string]bool{"cpuset-cpus": strict},
			Note:      func(s string) { notes = append(notes, s) },
		})
		if strict {
			var le *LimitError
			if !errors.As(err, &le) || le.Limit != "cpuset-cpus" || le.Reason == "" {
				t.Errorf("Create = %v, want a *LimitError about cpuset-cpus", err)
			}
			left, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
			deeper, _ := filepath.Glob("/sys/fs/cgroup/*/*/" + name)
			if left = append(left, deeper...); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
		if len(notes) != 1 || !strings.Contains(notes[0], "cpuset-cpus") {
			t.Errorf("notes = %q, want one about cpuset-cpus", notes)
		}
	}
}

// CVE-2022-0492: a v1 release_agent runs as root on the host when a group
// with notify_on_release empties. Our groups never ask for that, even below
// one that does.
func TestCVE_2022_0492_NoReleaseAgent(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}})
	for _, dir := range g.Dirs() {
		b, err := os.ReadFile(filepath.Join(dir, "notify_on_release"))
		if err == nil && strings.TrimSpace(string(b)) != "0" {
			t.Errorf("%s: notify_on_release = %s", dir, b)
		}
		if _, err := os.Stat(filepath.Join(dir, "release_agent")); err == nil {
			t.Errorf("%s has a release_agent: it is the top of a hierarchy", dir)
		}
	}
}

func BenchmarkCreateDelete(b *testing.B) {
	newGroup(b, nil)
	r := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(2048))}}
	for b.Loop() {
		g, err := Create(Options{Name: uniqueName(), Resources: r})
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Delete(); err != nil {
			b.Fatal(err)
		}
	}
}

// A host with v1 alone, played by looking away from the unified hierarchy:
// the freezer makes the kill safe, and the processes themselves are waited
// for.
func TestPlainV1(t *testing.T) {
	newGroup(t, nil)
	h, err := thisHost()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := h.v1["freezer"]; !ok {
		t.Skip("ability missing: cgroup v1 with a freezer")
	}
	h.v2 = nil
	g, err := create(h, Options{Name: uniqueName(), Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(64))}}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Delete()
	dirs := g.Dirs()
	if g.CloneFD() != nil || !g.Confined() || !strings.Contains(standing(dirs).holder(), "freezer") {
		t.Errorf("dirs %v, confined %v", dirs, g.Confined())
	}
	if limits, err := limitsOf(&specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}); err != nil {
		t.Fatal(err)
	} else if err := (&builder{host: h, group: g}).applyOne(limits[0]); err == nil || !strings.Contains(err.Error(), "cgroup v1 here") {
		t.Errorf("a v2 file on v1: %v", err)
	}
	cmd := start(t, g, "for i in 1 2 3 4; do setsid sleep 1000 & done; while :; do sh -c : ; done")
	if err := KillAll(dirs); err != nil {
		t.Fatal(err)
	}
	if state, err := cmd.Process.Wait(); err != nil || state.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("app ended as %v, %v; want SIGKILL", state, err)
	}
	if err := RemoveAll(dirs); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// Launches do not get into each other's way: the shared group is made and
// removed by whoever comes and goes.
func TestManyAtOnce(t *testing.T) {
	newGroup(t, nil)
	errs := make(chan error)
	const n = 8
	for range n {
		go func() {
			var err error
			for range 5 {
				var g *Group
				if g, err = Create(Options{Name: uniqueName(), Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(64))}}, Strict: map[string]bool{"pids": true}}); err != nil {
					break
				}
				if err = g.Delete(); err != nil {
					break
				}
			}
			errs <- err
		}()
	}
	for range n {
		var le *LimitError
		if err := <-errs; err != nil && !errors.As(err, &le) {
			t.Error(err)
		} else if err != nil && place(mustHost(t)).enable {
			t.Error(err)
		}
	}
}

func mustHost(t *testing.T) *host {
	t.Helper()
	h, err := thisHost()
	if err != nil {
		t.Fatal(err)
	}
	if h.v2 == nil {
		h.v2 = &hierarchy{own: "/"}
	}
	return h
}
