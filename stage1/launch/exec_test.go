// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// running starts a pod that does nothing until the test ends.
func running(t *testing.T, edit func(*specs.Spec)) (*pod, stage1.Status) {
	t.Helper()
	p := newPod(t, "sleep", "1000")
	if edit != nil {
		edit(p.request.Spec)
	}
	cmd := p.command()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return p, waitRunning(t, p)
}

// spy looks through a pod's own procfs at all that is born in its pid
// namespace, with more rights than anything inside has.
type spy struct {
	proc  string
	host  unix.Stat_t
	mount string
	allow uint64 // capabilities
	seen  map[string]bool
	found map[string]bool
}

func (s *spy) look() {
	entries, err := os.ReadDir(s.proc)
	if err != nil {
		return
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil && e.Name() != "1" {
			s.process(filepath.Join(s.proc, e.Name()))
		}
	}
}

func (s *spy) process(dir string) {
	comm, err := os.ReadFile(dir + "/comm")
	if err != nil {
		return
	}
	name := strings.TrimSpace(string(comm))
	s.seen[name] = true
	var st unix.Stat_t
	if unix.Stat(dir+"/root", &st) == nil && st.Dev == s.host.Dev && st.Ino == s.host.Ino {
		s.found[name+" has the host's root"] = true
	}
	if link, err := os.Readlink(dir + "/ns/mnt"); err == nil && link == s.mount {
		s.found[name+" is in the host's mount namespace"] = true
	}
	status, _ := os.ReadFile(dir + "/status")
	_, rest, _ := strings.Cut(string(status), "\nCapPrm:\t")
	value, _, _ := strings.Cut(rest, "\n")
	if caps, err := strconv.ParseUint(value, 16, 64); err == nil && caps&^s.allow != 0 {
		s.found[fmt.Sprintf("%s has capabilities %x", name, caps)] = true
	}
	fds, _ := os.ReadDir(dir + "/fd")
	for _, fd := range fds {
		link, err := os.Readlink(dir + "/fd/" + fd.Name())
		if n, _ := strconv.Atoi(fd.Name()); err == nil && n > 2 && strings.HasPrefix(link, "/") && name == "gantry-init" {
			s.found[name+" has "+link+" open"] = true
		}
	}
}

// An app with CAP_SYS_PTRACE could open the root directory and the memory of
// what entered its pid namespace, which was the host's until the execve
// (found in runc in 2016, and once in ours).
func TestCVE_2016_9962_ExecShowsNothingOfTheHost(t *testing.T) {
	p, st := running(t, nil)
	s := &spy{proc: fmt.Sprintf("/proc/%d/root/proc", st.Pid), seen: map[string]bool{}, found: map[string]bool{}}
	if err := unix.Stat("/", &s.host); err != nil {
		t.Fatal(err)
	}
	s.mount, _ = os.Readlink("/proc/self/ns/mnt")
	s.allow, _ = strconv.ParseUint(statusField(t, st.Pid, "CapBnd"), 16, 64)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				s.look()
			}
		}
	}()
	for i := range 20 {
		process := &specs.Process{Args: []string{"true"}, Env: []string{"PATH=/bin"}, Cwd: "/"}
		run := execIn
		if i%2 == 1 { // as gantry-oci does it
			run, process.Capabilities = execGiven, p.request.Spec.Process.Capabilities
		}
		if _, stderr, code := run(t, p, st, process); code != 0 {
			t.Errorf("exit status %d: %s", code, stderr)
		}
	}
	close(stop)
	<-stopped
	t.Log("seen:", s.seen)
	for what := range s.found {
		t.Error(what)
	}
}

func TestExecIsAChildOfItsSupervisorInASessionOfItsOwn(t *testing.T) {
	p, st := running(t, nil)
	out, stderr, code := execIn(t, p, st, &specs.Process{
		Args: []string{"sh", "-c", "cat /proc/self/stat; ulimit -Sn; kill -TERM $$"}, Env: []string{"PATH=/bin"}, Cwd: "/",
	})
	// pid (comm) state ppid pgrp session
	f := strings.Fields(out)
	if len(f) < 6 || f[4] != f[3] || f[5] != f[3] {
		t.Errorf("stat %q, %s", out, stderr)
	}
	if code != -1 {
		t.Errorf("exit status %d, want the signal", code)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", st.Pid))
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max open files "+f[len(f)-1]+" ") {
		t.Errorf("exec may open %s files, app:\n%s", f[len(f)-1], limits)
	}
}

func TestExecGetsATerminal(t *testing.T) {
	p, st := running(t, nil)
	r := execRequest(t, p, st, &specs.Process{
		Args: []string{"sh", "-c", "tty; stty size; echo x >/dev/tty"}, Env: []string{"PATH=/bin"}, Cwd: "/",
	})
	r.Terminal, r.Stdin = true, true
	cmd := helperCommand(t, helperRequest{Exec: r})
	master, slave := openPty(t)
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 31, Col: 71}); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err := cmd.Run()
	slave.Close()
	b := make([]byte, 8<<10)
	n, _ := readAll(master, b)
	got := strings.ReplaceAll(string(b[:n]), "\r\n", "\n")
	if err != nil || !strings.Contains(got, "/dev/pts/0\n31 71\nx\n") {
		t.Errorf("%v, terminal showed %q", err, got)
	}
}

// waitCloned waits until a launch has written down its process.
func waitCloned(t *testing.T, p *pod) stage1.Status {
	t.Helper()
	file := filepath.Join(p.request.PodDir, stage1.AppsDir, "app", stage1.StatusFile)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if _, err := os.Stat(file); err == nil {
			return p.status("run")
		}
	}
	t.Fatal("nothing was cloned")
	return stage1.Status{}
}

// A launch that hangs ends by the signals that end programs.
func TestInterruptEndsALaunchThatHangs(t *testing.T) {
	p := newPod(t, "true")
	cat, err := os.ReadFile("/bin/cat") // a gantry-init that waits for ever
	if err != nil {
		t.Skip("ability missing: cat")
	}
	p.request.Libexec = t.TempDir()
	if err := os.WriteFile(filepath.Join(p.request.Libexec, "gantry-init"), cat, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := p.command()
	var text strings.Builder
	cmd.Stderr = &text
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	st := waitCloned(t, p)
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	ended := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	if !ended.Stop() || !strings.Contains(text.String(), launch.ErrInterrupted.Error()) {
		t.Errorf("%v, %q", cmd.ProcessState, text.String())
	}
	if err := unix.Kill(st.Pid, 0); err != unix.ESRCH {
		t.Errorf("process %d is left: %v", st.Pid, err)
	}
}

// Where the mount of gantry-init cannot be cloned, a copy in memory is run.
func TestInitRunsFromMemory(t *testing.T) {
	p := newPod(t, "readlink", "/proc/1/exe")
	p.request.Init = true
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("ability missing: unshare")
	}
	from, dir := libexec, t.TempDir()
	p.request.Libexec = dir
	helper := p.command()
	cmd := exec.Command(unshare, "-m", "sh", "-c",
		`mount -t tmpfs tmpfs "$1" && cp "$2"/gantry-init "$2"/gantry-stage1 "$1" && mount --make-unbindable "$1" && exec "$3"`,
		"sh", dir, from, mustExe(t))
	cmd.Env = helper.Env
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "memfd:gantry-init") {
		t.Errorf("%v: %s", err, out)
	}
}

func mustExe(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func TestCopyUpKeepsExtendedAttributes(t *testing.T) {
	p := newPod(t, "true")
	seed := filepath.Join(p.request.Root.Dir, "seed")
	if err := os.Mkdir(seed, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(seed, "a")
	if err := os.WriteFile(file, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	// cap_net_raw=ep, as setcap writes it
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	want := map[string]string{"user.gantry": "kept", "security.capability": capability}
	for name, value := range want {
		if err := unix.Setxattr(file, name, []byte(value), 0); err != nil {
			t.Skipf("ability missing: %s: %v", name, err)
		}
	}
	if err := os.Chown(file, 12, 34); err != nil { // takes the capability away
		t.Fatal(err)
	}
	if err := unix.Setxattr(file, "security.capability", []byte(capability), 0); err != nil {
		t.Fatal(err)
	}
	volume := t.TempDir()
	p.request.Spec.Mounts = append(p.request.Spec.Mounts,
		specs.Mount{Destination: "/seed", Type: "bind", Source: volume, Options: []string{"bind", "copyup"}})
	p.output()
	for name, value := range want {
		b := make([]byte, 64)
		n, err := unix.Getxattr(filepath.Join(volume, "a"), name, b)
		if err != nil || string(b[:n]) != value {
			t.Errorf("%s is %q, %v", name, b[:max(n, 0)], err)
		}
	}
}
