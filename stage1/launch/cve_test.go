// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// refused runs a pod that must not start.
func (p *pod) refused(says string) {
	p.t.Helper()
	out, stderr, code := p.run()
	if code != 125 || !strings.Contains(stderr, says) {
		p.t.Errorf("exit status %d, want 125 and %q; got %q %q", code, says, out, stderr)
	}
}

// runc leaked a descriptor of the host; with it as working directory the
// container saw the host's tree.
func TestCVE_2024_21626_WorkingDirectoryThroughADescriptor(t *testing.T) {
	p := newPod(t, "ls", "/proc/self/fd")
	if got := strings.Fields(p.output()); strings.Join(got, " ") != "0 1 2 3" {
		t.Errorf("descriptors are %v; 3 is the listing's own", got)
	}
	for fd := 3; fd < 20; fd++ {
		p := newPod(t, "ls")
		p.request.Spec.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", fd)
		_, stderr, code := p.run()
		if code != 125 {
			t.Errorf("cwd %s: exit status %d %s", p.request.Spec.Process.Cwd, code, stderr)
		}
	}
}

// The same with the command, the interpreter of a script, or PATH: execve looks
// them up before it closes descriptors, and ran the host's programs, which
// /proc/self/exe then opened for writing.
func TestCVE_2024_21626_CommandThroughADescriptor(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "busybox")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(victim, b, 0o755); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("/..", 20)
	for fd := 3; fd < 20; fd++ {
		host := fmt.Sprintf("/proc/self/fd/%d%s%s", fd, up, victim)
		for _, args := range [][]string{{host, "-test.list=^$"}, {fmt.Sprintf("/proc/self/fd/%d", fd)}} {
			p := newPod(t, args...)
			p.overlay()
			if _, stderr, code := p.run(); code != 126 && code != 127 {
				t.Errorf("%s: exit status %d %s", args[0], code, stderr)
			}
		}
		p := newPod(t, "busybox", "-test.list=^$")
		p.overlay()
		p.request.Spec.Process.Env = []string{"PATH=" + filepath.Dir(host)}
		if _, stderr, code := p.run(); code != 126 && code != 127 {
			t.Errorf("PATH %s: exit status %d %s", filepath.Dir(host), code, stderr)
		}
	}
}

// Containers overwrote the runtime through /proc/self/exe: open it, wait
// until it no longer runs, and open the descriptor again for writing.
func TestCVE_2019_5736_OurProgramCannotBeWrittenFromInside(t *testing.T) {
	p := newPod(t, "sleep", "100")
	p.request.Init = true // our own program stays as process 1
	cmd := p.command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	st := waitRunning(t, p)
	exe, err := os.Open(fmt.Sprintf("/proc/%d/exe", st.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for range 1000 { // until nothing executes it any more
		_, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), os.O_WRONLY, 0)
		if !errors.Is(err, unix.ETXTBSY) {
			break
		}
		_, _ = unix.Poll(nil, 1)
	}
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("opening gantry-init for writing: %v, want read-only file system", err)
	}
}

// Images with a volume on /proc faked the files that labels are written to.
func TestCVE_2019_16884_NothingIsMountedOverProc(t *testing.T) {
	fake := t.TempDir()
	for _, target := range []string{"/proc/self", "/proc/1/attr", "/proc/sys", "/proc/./sys/kernel"} {
		p := newPod(t, "true")
		p.request.Spec.Mounts = append(p.request.Spec.Mounts, specs.Mount{Destination: target, Type: "bind", Source: fake, Options: []string{"bind"}})
		p.refused("cannot be mounted over")
	}
	p := newPod(t, "true")
	if err := os.Symlink("/proc/sys", filepath.Join(p.request.Root.Dir, "innocent")); err != nil {
		t.Fatal(err)
	}
	p.request.Spec.Mounts = append(p.request.Spec.Mounts, specs.Mount{Destination: "/innocent", Type: "bind", Source: fake, Options: []string{"bind"}})
	p.refused("lies on procfs")
}

func TestCVE_2023_27561_28642_2019_19921_ProcAndSysAreNoLinks(t *testing.T) {
	for _, name := range []string{"proc", "sys"} {
		p := newPod(t, "true")
		if err := os.Symlink("tmp", filepath.Join(p.request.Root.Dir, name)); err != nil {
			t.Fatal(err)
		}
		p.refused("is a symbolic link in the image")
	}
}

func TestCVE_2026_41579_DevIsNoLink(t *testing.T) {
	outside := t.TempDir()
	p := newPod(t, "true")
	if err := os.Symlink(outside, filepath.Join(p.request.Root.Dir, "dev")); err != nil {
		t.Fatal(err)
	}
	p.refused("is a symbolic link in the image")
	if names, _ := os.ReadDir(outside); len(names) > 0 {
		t.Errorf("made on the host: %v", names)
	}
}

// podman made the working directory of an image through the image's links, on
// the host.
func TestCVE_2026_55686_WorkingDirectoryThroughALink(t *testing.T) {
	outside := t.TempDir()
	for _, link := range []string{outside, "/../../../../../../../.." + outside, "../../../../../../../.." + outside} {
		p := newPod(t, "pwd")
		if err := os.Symlink(link, filepath.Join(p.request.Root.Dir, "srv")); err != nil {
			t.Fatal(err)
		}
		p.request.Spec.Process.Cwd = "/srv/app"
		if out, stderr, code := p.run(); code != 125 && !(code == 0 && strings.HasSuffix(strings.TrimSpace(out), "/app")) {
			t.Errorf("%s: exit status %d, %q %q", link, code, out, stderr)
		}
		if names, _ := os.ReadDir(outside); len(names) > 0 {
			t.Errorf("made on the host: %v", names)
		}
	}
}

// What hides files of /proc must be the null device itself, whatever the
// image has in /dev.
func TestCVE_2025_31133_MaskIsTheNullDevice(t *testing.T) {
	var hidden []string
	for _, name := range baseSpec().Linux.MaskedPaths {
		if info, err := os.Stat(name); err == nil && !info.IsDir() {
			hidden = append(hidden, name)
		}
	}
	p := newPod(t, append([]string{"stat", "-c", "%t:%T %F"}, hidden...)...)
	dev := filepath.Join(p.request.Root.Dir, "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(dev, "null")); err != nil {
		t.Fatal(err)
	}
	if got, want := p.output(), strings.Repeat("1:3 character special file\n", len(hidden)); got != want || want == "" {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCVE_2022_29162_InheritableAndAmbientAreEmpty(t *testing.T) {
	for _, user := range []uint32{0, 1000} {
		p := newPod(t, "grep", "Cap", "/proc/self/status")
		p.request.Spec.Process.User.UID = user
		got := p.output()
		for _, want := range []string{"CapInh:\t0000000000000000\n", "CapAmb:\t0000000000000000\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("user %d: lacks %q:\n%s", user, want, got)
			}
		}
		if effective := "CapEff:\t0000000000000000\n"; strings.Contains(got, effective) != (user != 0) {
			t.Errorf("user %d has\n%s", user, got)
		}
	}
}

func TestAmbientCapabilitiesReachAnotherUser(t *testing.T) {
	p := newPod(t, "grep", "CapEff", "/proc/self/status")
	caps := []string{"CAP_NET_BIND_SERVICE"}
	p.request.Spec.Process.User.UID = 1000
	p.request.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps, Ambient: caps}
	if got := p.output(); got != "CapEff:\t0000000000000400\n" {
		t.Errorf("got %q", got)
	}
}

// TIOCSTI pushes keys into the terminal of a process of the same session.
func TestCVE_2017_5226_AppHasItsOwnSession(t *testing.T) {
	p := newPod(t, "cat", "/proc/self/stat")
	fields := strings.Fields(p.output())
	if session, tty := fields[5], fields[6]; session != "1" || tty != "0" {
		t.Errorf("session %s, terminal %s", session, tty)
	}
}

func TestCVE_2022_2989_GroupsAreExactlyThoseAsked(t *testing.T) {
	p := newPod(t, "id", "-G")
	p.request.Spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 7}}
	if got := p.output(); got != "1000 7\n" {
		t.Errorf("groups %q", got)
	}
	p = newPod(t, "grep", "Groups", "/proc/self/status")
	p.request.Spec.Process.User = specs.User{UID: 1000, GID: 1000}
	if got := strings.TrimSpace(p.output()); got != "Groups:" {
		t.Errorf("without additional groups: %q", got)
	}
}

// swap exchanges a directory and a link out of the root as fast as it can
// until the returned function is called.
func swap(t *testing.T, dir, link string) (stop func()) {
	t.Helper()
	var done sync.WaitGroup
	quit := make(chan struct{})
	done.Add(1)
	go func() {
		defer done.Done()
		runtime.LockOSThread()
		for {
			select {
			case <-quit:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	return func() { close(quit); done.Wait() }
}

// runc followed a mount target that was exchanged for a link between check
// and mount; and made directories and files where such a link led.
func TestCVE_2021_30465_2024_45310_MountTargetIsSwapped(t *testing.T) {
	outside := t.TempDir()
	for range 15 {
		p := newPod(t, "true")
		base := filepath.Join(p.request.Root.Dir, "a")
		for _, err := range []error{
			os.MkdirAll(filepath.Join(base, "target"), 0o755),
			os.Symlink("../../../../../../../../../.."+outside, filepath.Join(base, "link")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		p.request.Spec.Mounts = append(p.request.Spec.Mounts,
			specs.Mount{Destination: "/a/target/x/y", Type: "tmpfs", Source: "tmpfs"},
			specs.Mount{Destination: "/a/target/z/file", Type: "bind", Source: "/etc/hostname", Options: []string{"bind"}})
		stop := swap(t, filepath.Join(base, "target"), filepath.Join(base, "link"))
		_, _, _ = p.run() // it may fail; it may not reach outside
		stop()
		if names, _ := os.ReadDir(outside); len(names) > 0 {
			t.Fatalf("made on the host: %v", names)
		}
	}
}

// A signal during the start either ends the launch cleanly or is the app's:
// never is a supervisor killed that has an app.
func TestNoSignalKillsTheSupervisorHalfWay(t *testing.T) {
	for i := range 24 {
		p := newPod(t, "sh", "-c", "exit 5") // process 1 without a handler: SIGTERM is ignored
		cmd := p.command()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		// Spread over the start: the poll is a clock here, not a condition.
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pidfd)}}, 5+i)
		for range 4 {
			_ = cmd.Process.Signal(unix.SIGTERM)
		}
		_ = unix.Close(pidfd)
		_ = cmd.Wait()
		status := filepath.Join(p.request.PodDir, "apps/app", stage1.StatusFile)
		if _, err := os.Stat(status); err == nil && cmd.ProcessState.ExitCode() != 125 {
			t.Errorf("the supervisor of a running app ended with %v", cmd.ProcessState)
		}
	}
}

// The keys of the caller's session are not the app's, whatever its filter
// allows, unless it was asked for.
func TestSessionKeyringStaysOutside(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with its keyring
	if _, err := unix.KeyctlJoinSessionKeyring("gantry-test"); err != nil {
		t.Skipf("ability missing: keyrings: %v", err)
	}
	const session = -3 // KEY_SPEC_SESSION_KEYRING
	if _, err := unix.AddKey("user", "gantry-secret", []byte("x"), session); err != nil {
		t.Skipf("ability missing: keyrings: %v", err)
	}
	b, err := os.ReadFile("/proc/thread-self/root/proc/keys")
	if err != nil || !strings.Contains(string(b), "gantry-secret") {
		t.Skip("ability missing: /proc/keys")
	}
	for _, keep := range []bool{false, true} {
		p := newPod(t, "cat", "/proc/keys") // tells what the reader possesses
		p.request.Spec.Process.User.UID = 1000
		p.request.Spec.Linux.MaskedPaths = nil
		p.request.Keyring = keep
		if got := p.output(); strings.Contains(got, "gantry-secret") != keep {
			t.Errorf("keyring kept: %v, but the app has these keys:\n%s", keep, got)
		}
	}
}

// Kubernetes: what a volume's subpath names was looked up on the host, where a
// link in the volume led anywhere; and between the look and the mount it could
// be swapped for one (again in CVE-2021-25741).
func TestCVE_2017_1002101_2021_25741_SubpathStaysInTheVolume(t *testing.T) {
	outside, volume := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.WriteFile(filepath.Join(outside, "f"), []byte("of the host"), 0o644),
		os.MkdirAll(filepath.Join(volume, "a/sub"), 0o755),
		os.WriteFile(filepath.Join(volume, "a/sub/f"), []byte("of the volume"), 0o644),
		os.Symlink(outside, filepath.Join(volume, "absolute")),
		os.Symlink("../../../../../../../../../.."+outside, filepath.Join(volume, "a/link")),
		os.Symlink("/a/sub", filepath.Join(volume, "within")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	show := func(sub string) (string, string, int) {
		p := newPod(t, "cat", "/part/f", "/part")
		p.request.Spec.Mounts = append(p.request.Spec.Mounts, specs.Mount{Destination: "/part", Type: "bind", Source: "/nowhere", Options: []string{"rbind", "nodev"}})
		p.parts = map[string]part{"/part": {volume, sub}}
		return p.run()
	}
	for sub, want := range map[string]string{"a/sub": "of the volume", "within": "of the volume", "a/sub/f": "of the volume"} {
		if out, errOut, _ := show(sub); out != want {
			t.Errorf("%s: %q %s", sub, out, errOut)
		}
	}
	for _, sub := range []string{"absolute", "a/link", "none", "a/../../../.." + outside} {
		if out, errOut, code := show(sub); out != "" || code != 125 || !strings.Contains(errOut, "open subpath "+sub+" for /part") {
			t.Errorf("%s: status %d, %q %s", sub, code, out, errOut)
		}
	}
	stop := swap(t, filepath.Join(volume, "a/sub"), filepath.Join(volume, "a/link"))
	defer stop()
	for range 15 {
		if out, _, _ := show("a/sub"); out != "" && out != "of the volume" {
			t.Fatalf("shows %q", out)
		}
	}
}
