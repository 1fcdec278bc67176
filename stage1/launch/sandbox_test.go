// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
	"github.com/gantryrun/gantry/tests/ability"
)

// overlay gives the pod a writable overlay above its root.
func (p *pod) overlay() {
	p.t.Helper()
	p.request.Root.Upper = filepath.Join(p.request.PodDir, "upper")
	p.request.Root.Work = filepath.Join(p.request.PodDir, "work")
	for _, dir := range []string{p.request.Root.Upper, p.request.Root.Work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
}

func TestWritesGoToTheUpperDirectory(t *testing.T) {
	p := newPod(t, "sh", "-c", "echo x >/new; cat /new")
	p.overlay()
	if got := p.output(); got != "x\n" {
		t.Errorf("output %q", got)
	}
	if _, err := os.Stat(filepath.Join(p.request.Root.Dir, "new")); err == nil {
		t.Error("the lower directory was written")
	}
	if b, err := os.ReadFile(filepath.Join(p.dir, "exited", p.request.ID, "upper/new")); err != nil || string(b) != "x\n" {
		t.Errorf("upper has %q, %v", b, err)
	}
}

// A read-only root without mount points gets them in memory; the image's own
// files stay what they are.
func TestReadOnlyRootGetsItsMountPoints(t *testing.T) {
	p := newPod(t, "sh", "-c", "touch /x 2>&1; test -c /dev/null && readlink /proc/1/exe")
	p.request.Spec.Root.Readonly = true
	if got := p.output(); !strings.Contains(got, "Read-only file system") || !strings.HasSuffix(got, "/bin/busybox\n") {
		t.Errorf("output %q", got)
	}
	if _, err := os.Stat(filepath.Join(p.request.Root.Dir, "proc")); err == nil {
		t.Error("a mount point was made in the image's directory")
	}
}

func TestBindMountsAndTheirOptions(t *testing.T) {
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "f"), []byte("host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := newPod(t, "sh", "-c", "cat /data/deep/f /one; touch /data/deep/g 2>&1; grep ' /rw ' /proc/self/mountinfo; touch /rw/made")
	rw := t.TempDir()
	p.request.Spec.Mounts = append(p.request.Spec.Mounts,
		specs.Mount{Destination: "/data/deep", Type: "bind", Source: host, Options: []string{"rbind", "rro"}},
		specs.Mount{Destination: "/one", Type: "bind", Source: filepath.Join(host, "f"), Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "/rw", Type: "bind", Source: rw, Options: []string{"rbind", "nosuid", "nodev"}})
	got := p.output()
	if !strings.HasPrefix(got, "host\nhost\n") || !strings.Contains(got, "Read-only file system") || !strings.Contains(got, "rw,nosuid,nodev") {
		t.Errorf("output %q", got)
	}
	if strings.Contains(got, "shared:") || strings.Contains(got, "master:") {
		t.Errorf("the mount is still a peer of the host's: %s", got)
	}
	if _, err := os.Stat(filepath.Join(rw, "made")); err != nil {
		t.Error(err)
	}
}

func TestCopyUpFillsEmptyVolumes(t *testing.T) {
	p := newPod(t, "sh", "-c", "cat /seed/a /seed/sub/b; stat -c '%a %u %h' /seed/a /seed/sub; readlink /seed/l; cat /vol/a")
	seed := filepath.Join(p.request.Root.Dir, "seed")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(seed, "sub"), 0o750),
		os.WriteFile(filepath.Join(seed, "a"), []byte("A\n"), 0o640),
		os.WriteFile(filepath.Join(seed, "sub/b"), []byte("B\n"), 0o600),
		os.Link(filepath.Join(seed, "a"), filepath.Join(seed, "sub/also")),
		os.Symlink("a", filepath.Join(seed, "l")),
		os.Chown(filepath.Join(seed, "a"), 12, 34),
		os.Mkdir(filepath.Join(p.request.Root.Dir, "vol"), 0o755),
		os.WriteFile(filepath.Join(p.request.Root.Dir, "vol/a"), []byte("image\n"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "a"), []byte("kept\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.request.Spec.Mounts = append(p.request.Spec.Mounts,
		specs.Mount{Destination: "/seed", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}},
		specs.Mount{Destination: "/vol", Type: "bind", Source: full, Options: []string{"bind", "copyup"}})
	if got, want := p.output(), "A\nB\n640 12 2\n750 0 2\na\nkept\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestModeOfACopiedUpTmpfs: one that is asked for holds, else the image's
// directory has it, else it is that of any tmpfs.
func TestModeOfACopiedUpTmpfs(t *testing.T) {
	p := newPod(t, "stat", "-c", "%a", "/asked", "/images", "/new")
	for _, dir := range []string{"asked", "images"} {
		if err := os.Mkdir(filepath.Join(p.request.Root.Dir, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for dir, options := range map[string][]string{"/asked": {"tmpcopyup", "mode=0711"}, "/images": {"tmpcopyup"}, "/new": {"tmpcopyup"}} {
		p.request.Spec.Mounts = append(p.request.Spec.Mounts, specs.Mount{Destination: dir, Type: "tmpfs", Source: "tmpfs", Options: options})
	}
	if got, want := p.output(), "711\n750\n1777\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestOwnCgroupIsAllThatIsSeen: on cgroup v1 engines give a container no cgroup
// namespace, and look for its limits at the top of every hierarchy.
func TestOwnCgroupIsAllThatIsSeen(t *testing.T) {
	ability.Require(t, ability.Root, ability.Cgroup1, ability.CgroupWritable)
	const probe = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes; readlink /proc/self/ns/cgroup; mkdir /sys/fs/cgroup/memory/x"
	p := newPod(t, "sh", "-c", probe+" 2>/dev/null && rmdir /sys/fs/cgroup/memory/x && echo writable || true")
	limit := int64(64 << 20)
	p.request.Spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	p.request.Spec.Linux.Namespaces = p.request.Spec.Linux.Namespaces[:5]
	host, err := os.Readlink("/proc/self/ns/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.output(), "67108864\n"+host+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHostMountTableIsNeverTouched(t *testing.T) {
	mountinfo := func() string {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := mountinfo()
	p := newPod(t, "sleep", "100")
	p.overlay()
	cmd := p.command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitRunning(t, p)
	if during := mountinfo(); during != before {
		t.Errorf("changed while the app runs:\n%s", during)
	}
	if _, err := ask(p, stage1.Request{Version: 1, Op: stage1.OpSignal, Signal: int(unix.SIGKILL)}); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if after := mountinfo(); after != before {
		t.Errorf("changed afterwards:\n%s", after)
	}
}

// kill -9 of the supervisor: the app is gone with it, and all that is left is
// the directory of the pod, unlocked, and the recorded cgroups.
func TestKilledSupervisorTakesTheAppAlong(t *testing.T) {
	p := newPod(t, "sh", "-c", "sleep 1000 & sleep 1000")
	cmd := p.command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	st := waitRunning(t, p)
	fd, err := unix.PidfdOpen(st.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	polls := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(polls, 5000); err != nil || n != 1 {
		t.Fatalf("the app is still there: %v", err)
	}
	var record stage1.Runtime
	b, err := os.ReadFile(filepath.Join(p.request.PodDir, stage1.RuntimeFile))
	if err == nil {
		err = json.Unmarshal(b, &record)
	}
	if err != nil || len(record.Cgroups) == 0 {
		t.Fatalf("cgroups are not recorded: %v", err)
	}
	for _, dir := range record.Cgroups {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			t.Errorf("left in use: %v", err)
		}
	}
}

func TestRemoveTakesEverythingAway(t *testing.T) {
	p := newPod(t, "sh", "-c", "mkdir -p /a/b/c; ln -s / /a/b/root; touch /a/b/c/d")
	p.overlay()
	p.request.Remove = true
	p.request.NameLink = filepath.Join(t.TempDir(), "name")
	if err := os.Symlink(p.request.ID, p.request.NameLink); err != nil {
		t.Fatal(err)
	}
	p.output()
	for _, phase := range []string{"run", "exited", "garbage"} {
		if names, _ := filepath.Glob(filepath.Join(p.dir, phase, "*")); len(names) > 0 {
			t.Errorf("left: %v", names)
		}
	}
	if _, err := os.Lstat(p.request.NameLink); err == nil {
		t.Error("the name is left")
	}
}

func TestStopKillsAfterItsTime(t *testing.T) {
	p := newPod(t, "sleep", "100") // process 1 has no handler for SIGTERM
	cmd := p.command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitRunning(t, p)
	if _, err := ask(p, stage1.Request{Version: 1, Op: stage1.OpStop, Timeout: 1}); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if st := p.status("exited"); st.Exit == nil || st.Exit.Signal != int(unix.SIGKILL) || st.Exit.Code != 137 {
		t.Errorf("status %+v", st.Exit)
	}
}

// The supervisor's garbage collector and poller need descriptors nobody gave
// it; what gantry's caller left open must not reach it.
func TestBusySupervisorKeepsItsOwnDescriptorsOnly(t *testing.T) {
	p := newPod(t, "sleep", "100")
	stray, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer stray.Close()
	cmd := p.command()
	cmd.ExtraFiles = []*os.File{stray}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitRunning(t, p)
	for range 400 { // 64 KiB each: several collections
		if _, err := ask(p, stage1.Request{Version: 1, Op: stage1.OpHello}); err != nil {
			t.Fatal(err)
		}
	}
	fds := fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid)
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && to == stray.Name() {
			t.Errorf("descriptor %s is %s", e.Name(), to)
		}
	}
	if _, err := ask(p, stage1.Request{Version: 1, Op: stage1.OpStop, Timeout: 1}); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if st := p.status("exited"); st.Exit == nil || st.Exit.Code != 137 {
		t.Errorf("status %+v", st.Exit)
	}
}

func TestNewerRequestIsToldWhichVersionItNeeds(t *testing.T) {
	p := newPod(t, "sleep", "100")
	cmd := p.command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitRunning(t, p)
	reply, err := ask(p, stage1.Request{Version: 99, Op: "future"})
	if err == nil || reply.Needed != 99 || reply.Version != stage1.ControlVersion {
		t.Errorf("reply %+v, %v", reply, err)
	}
	_ = cmd.Process.Signal(unix.SIGKILL)
	_ = cmd.Wait()
}

func TestSignalsReachTheApp(t *testing.T) {
	p := newPod(t, "sh", "-c", "trap 'echo got term; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
	var out bytes.Buffer
	cmd := p.command()
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitRunning(t, p)
	waitOutput(t, p)
	_ = cmd.Process.Signal(unix.SIGTERM)
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != 7 || !strings.Contains(out.String(), "got term") {
		t.Errorf("%v, output %q", cmd.ProcessState, out.String())
	}
}

// waitOutput waits until the shell of the app has its trap: it catches
// SIGTERM then.
func waitOutput(t *testing.T, p *pod) {
	t.Helper()
	st := waitRunning(t, p)
	for range 100000 {
		if statusField(t, st.Pid, "SigCgt") != "0000000000000000" {
			return
		}
		runtime.Gosched()
	}
	t.Fatal("the app set no trap")
}

func statusField(t *testing.T, pid int, key string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

func TestFileLogKeepsPartialLines(t *testing.T) {
	p := newPod(t, "sh", "-c", "printf 'one\\ntw'; echo err >&2")
	p.request.Detached = true
	p.request.Log = stage1.Log{Driver: stage1.LogToFile, Path: filepath.Join(t.TempDir(), "log")}
	p.output()
	b, err := os.ReadFile(p.request.Log.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" stdout F one\n", " stdout P tw\n", " stderr F err\n"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("log lacks %q:\n%s", want, b)
		}
	}
}

func TestInitReapsAndForwards(t *testing.T) {
	p := newPod(t, "sh", "-c", "test $$ != 1 && cat /proc/1/comm; (sleep 0 & ) ; exit 3")
	p.request.Init = true
	out, stderr, code := p.run()
	if code != 3 || out != "gantry-init\n" {
		t.Errorf("exit status %d, output %q, %q", code, out, stderr)
	}
}

// What the supervisor costs per pod is reported, not asserted: budgets are
// for benchmarks.
func TestSupervisorMemoryIsReported(t *testing.T) {
	p := newPod(t, "sleep", "100")
	cmd := p.command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitRunning(t, p)
	b, err := os.ReadFile(filepath.Join("/proc", itoa(cmd.Process.Pid), "smaps_rollup"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "Private_Dirty") || strings.HasPrefix(line, "Rss") {
			t.Log(strings.Join(strings.Fields(line), " "))
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func execRequest(t *testing.T, p *pod, st stage1.Status, process *specs.Process) *launch.ExecRequest {
	t.Helper()
	var record stage1.Runtime
	b, err := os.ReadFile(filepath.Join(p.request.PodDir, stage1.RuntimeFile))
	if err == nil {
		err = json.Unmarshal(b, &record)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &launch.ExecRequest{
		ID: p.request.ID, Spec: p.request.Spec, Process: process, Status: st, Cgroups: record.Cgroups,
		Libexec: libexec, RunDir: p.request.RunDir,
	}
}

// execIn runs a command in the app of a running pod.
func execIn(t *testing.T, p *pod, st stage1.Status, process *specs.Process) (string, string, int) {
	t.Helper()
	cmd := helperCommand(t, helperRequest{Exec: execRequest(t, p, st, process)})
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	_ = cmd.Run()
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// rkt enter ran with all capabilities, without seccomp and outside the
// cgroup. What is exec'ed has exactly what the app has.
func TestCVE_2019_10144_10145_10147_ExecHasTheAppsSandbox(t *testing.T) {
	p := newPod(t, "sh", "-c", "cat /proc/self/status /proc/self/cgroup; ls -l /proc/self/ns; ulimit -n; sleep 100")
	p.request.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}}
	p.request.Spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 5}}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := p.command()
	cmd.Stdout = write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	st := waitRunning(t, p)
	out, stderr, code := execIn(t, p, st, &specs.Process{
		Args: []string{"sh", "-c", "cat /proc/self/status /proc/self/cgroup; ls -l /proc/self/ns; ulimit -n"},
		Env:  []string{"PATH=/bin"}, Cwd: "/", User: p.request.Spec.Process.User,
	})
	if code != 0 {
		t.Fatalf("exec: exit status %d: %s", code, stderr)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	b := make([]byte, 64<<10)
	n, _ := readAll(read, b)
	app, entered := facts(string(b[:n])), facts(out)
	if app != entered {
		t.Errorf("app has\n%s\nexec has\n%s", app, entered)
	}
	if !strings.Contains(app, "Groups:\t5 1000") || !strings.Contains(app, "\n77\n") {
		t.Errorf("app has\n%s", app)
	}
}

func readAll(f *os.File, b []byte) (int, error) {
	total := 0
	for {
		n, err := f.Read(b[total:])
		total += n
		if err != nil || n == 0 {
			return total, err
		}
	}
}

// facts keeps what must be the same for every process of an app.
func facts(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		key, _, _ := strings.Cut(line, ":")
		switch key {
		case "Pid", "PPid", "Tgid", "Ngid", "NSpid", "NStgid", "NSpgid", "NSsid", "VmPeak", "VmSize", "VmHWM", "VmRSS",
			"RssAnon", "RssFile", "RssShmem", "VmData", "VmStk", "VmExe", "VmLib", "VmPTE", "VmLck", "VmPin", "VmSwap",
			"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches", "SigQ", "HugetlbPages", "FDSize", "State", "SigPnd", "ShdPnd", "Kthread":
			continue
		}
		if i := strings.Index(line, " -> "); i >= 0 {
			line = line[i:]
		}
		kept.WriteString(line)
	}
	return kept.String()
}

func TestExecSaysWhatIsNotThere(t *testing.T) {
	p := newPod(t, "sleep", "100")
	cmd := p.command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	st := waitRunning(t, p)
	_, stderr, code := execIn(t, p, st, &specs.Process{Args: []string{"nosuch"}, Env: []string{"PATH=/bin"}, Cwd: "/"})
	if code != 127 || !strings.Contains(stderr, "not found") {
		t.Errorf("exit status %d, %q", code, stderr)
	}
	app, err := launch.OpenProcess(st.Pid, st.Start, st.Boot)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	// The app was told to die with it, and takes its time.
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(app.Fd()), Events: unix.POLLIN}}, 10_000); err != nil {
		t.Fatal(err)
	}
	if _, _, code := execIn(t, p, st, &specs.Process{Args: []string{"true"}, Cwd: "/"}); code != 125 {
		t.Errorf("exec into an ended app: exit status %d", code)
	}
}
