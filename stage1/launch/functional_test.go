// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// pod is one launch under test.
type pod struct {
	t       *testing.T
	dir     string // of pods/
	request launch.Request
	stdin   string
	parts   map[string]part
}

// newPod makes a pod whose root is a directory with busybox.
func newPod(t *testing.T, args ...string) *pod {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("ability missing: root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("ability missing: busybox")
	}
	root := filepath.Join(t.TempDir(), "root")
	for _, dir := range []string{"bin", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, applet := range strings.Fields("sh cat ls id true false sleep kill mount stat echo readlink grep hostname ulimit touch dd test ps nproc tty stty head printf mkdir ln setsid") {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "pods")
	id := rand.Text()
	podDir := filepath.Join(dir, "run", id)
	if err := os.MkdirAll(filepath.Join(podDir, "apps/app"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sweep(t, podDir) })
	return &pod{t: t, dir: dir, request: launch.Request{
		ID: id, Spec: baseSpec(args...), Root: launch.Root{Dir: root},
		PodDir: podDir, App: "app", Libexec: libexec, RunDir: t.TempDir(), Stdin: true,
		Log: stage1.Log{Driver: stage1.LogPassthrough},
	}}
}

func baseSpec(args ...string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"}
	return &specs.Spec{
		Version: "1.3.0",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Hostname: "inside",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=64m"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.CgroupNamespace},
			},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// sweep does what the next gantry does after a supervisor was killed.
func sweep(t *testing.T, podDir string) {
	b, err := os.ReadFile(filepath.Join(podDir, stage1.RuntimeFile))
	if err != nil {
		return // it ended well and moved
	}
	var record stage1.Runtime
	if err := json.Unmarshal(b, &record); err != nil {
		t.Error(err)
	}
	if err := cgroups.KillAll(record.Cgroups); err != nil {
		t.Error(err)
	}
	if err := cgroups.RemoveAll(record.Cgroups); err != nil {
		t.Error(err)
	}
}

// command prepares the helper process that launches the pod.
func (p *pod) command() *exec.Cmd {
	p.t.Helper()
	return helperCommand(p.t, helperRequest{Launch: p.request, Parts: p.parts})
}

func helperCommand(t *testing.T, r helperRequest) *exec.Cmd {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "request.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+file)
	return cmd
}

// run launches the pod and waits for its end.
func (p *pod) run() (stdout, stderr string, code int) {
	p.t.Helper()
	var out, errOut bytes.Buffer
	cmd := p.command()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(p.stdin), &out, &errOut
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	code = cmd.ProcessState.ExitCode()
	if status := cmd.ProcessState.Sys().(interface{ Signaled() bool }); status.Signaled() {
		code = -1
	}
	return out.String(), errOut.String(), code
}

// output runs the pod, which must exit with 0, and returns what it wrote.
func (p *pod) output() string {
	p.t.Helper()
	out, errOut, code := p.run()
	if code != 0 {
		p.t.Fatalf("exit status %d\n%s%s", code, out, errOut)
	}
	return out
}

func (p *pod) status(phase string) stage1.Status {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, phase, p.request.ID, "apps/app", stage1.StatusFile))
	if err != nil {
		p.t.Fatal(err)
	}
	var st stage1.Status
	if err := json.Unmarshal(b, &st); err != nil {
		p.t.Fatal(err)
	}
	return st
}

func TestAppRunsInItsNamespaces(t *testing.T) {
	p := newPod(t, "sh", "-c", "echo $$; hostname; cat /proc/1/comm; ls /dev; readlink /dev/ptmx; ls -d /etc /nonexistent 2>/dev/null; grep -c . /proc/net/dev")
	got := p.output()
	for _, want := range []string{"1\ninside\nsh\n", "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n", "pts/ptmx\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("output lacks %q:\n%s", want, got)
		}
	}
	st := p.status("exited")
	if st.Exit == nil || st.Exit.Code != 0 || st.Finished == 0 {
		t.Errorf("status is %+v", st)
	}
}

func TestExitStatusIsTheApps(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"true"}, 0, ""},
		{[]string{"sh", "-c", "exit 42"}, 42, ""},
		{[]string{"nosuchcommand"}, 127, "nosuchcommand: executable file not found in $PATH"},
		{[]string{"/bin/nosuchfile"}, 127, "/bin/nosuchfile: no such file"},
		{[]string{"/etc"}, 126, "/etc: permission denied"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			_, stderr, code := newPod(t, c.args...).run()
			if code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("exit status %d, want %d; stderr %q", code, c.code, stderr)
			}
		})
	}
}

func TestSupervisorDiesByTheAppsSignal(t *testing.T) {
	p := newPod(t, "sleep", "100")
	cmd := p.command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	st := waitRunning(t, p)
	if err := unix.Kill(st.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if status := cmd.ProcessState.Sys(); status.(interface{ Signal() unix.Signal }).Signal() != unix.SIGKILL {
		t.Errorf("supervisor ended with %v", cmd.ProcessState)
	}
}

// waitRunning waits until the status of the app is written and its execve is
// over, by watching the pod's control socket answer.
func waitRunning(t *testing.T, p *pod) stage1.Status {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		reply, err := ask(p, stage1.Request{Version: 1, Op: stage1.OpStatus})
		if err == nil {
			return reply.Apps["app"]
		}
	}
	t.Fatal("pod does not answer")
	return stage1.Status{}
}

// ask sends one request to the pod's supervisor.
func ask(p *pod, r stage1.Request) (stage1.Reply, error) {
	var reply stage1.Reply
	dir, err := os.Open(p.request.PodDir)
	if err != nil {
		return reply, err
	}
	defer dir.Close()
	c, err := launch.Dial(dir)
	if err != nil {
		return reply, err
	}
	defer c.Close()
	return c.Ask(r)
}
