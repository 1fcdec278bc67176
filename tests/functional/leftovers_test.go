// SPDX-License-Identifier: Apache-2.0

package functional

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/gantry"
	"github.com/gantryrun/gantry/tests/imagetest"
)

// box is an installation with a signed image of busybox and inspect.
func box(t *testing.T) (h *gantry.Host, ref string) {
	t.Helper()
	ability.Require(t, ability.Root, ability.Tool("busybox"))
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	h = gantry.New(t)
	image, err := imagetest.Busybox(busybox, h.Program("inspect"))
	if err != nil {
		t.Fatal(err)
	}
	return h, h.Signed("box", image)
}

// mark is a variable that the processes of a test have and no others.
func mark(h *gantry.Host) string { return "GANTRY_TEST_MARK=" + h.Dir }

// left is what the kernel has of an installation's pods: processes that bear
// its mark, control groups of the pods, mounts, loop devices.
func left(t *testing.T, h *gantry.Host, pods ...string) []string {
	t.Helper()
	var found []string
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range environs {
		// What cannot be read ended meanwhile.
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), mark(h)+"\x00") {
			found = append(found, "process "+name)
		}
	}
	// A directory that vanishes during the walk is somebody else's.
	_ = filepath.WalkDir("/sys/fs/cgroup", func(name string, d os.DirEntry, err error) error {
		for _, pod := range pods {
			if err == nil && d.IsDir() && strings.Contains(d.Name(), pod) {
				found = append(found, "control group "+name)
			}
		}
		return nil
	})
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, h.Dir) || strings.Contains(line, " erofs ") {
			found = append(found, "mount "+line)
		}
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range backing {
		if b, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(b), h.Dir) {
			found = append(found, fmt.Sprintf("loop device %s: %s", name, b))
		}
	}
	return found
}

// nothingLeft waits until nothing is: the kernel tears mounts and loop devices
// down in its own time.
func nothingLeft(t *testing.T, h *gantry.Host, pods ...string) {
	t.Helper()
	var found []string
	eventually(t, "nothing is left on the host", func() bool {
		found = left(t, h, pods...)
		if len(found) > 0 {
			t.Logf("%d left, the first is %s", len(found), found[0])
		}
		return len(found) == 0
	})
}

// A hundred apps that are over at once, as a script starts them.
func TestAHundredLaunchesLeaveNothing(t *testing.T) {
	h, ref := box(t)
	file := filepath.Join(h.Dir, "uuid")
	launches := 100
	if testing.Short() { // an emulated processor takes a second and a half for each
		launches = 20
	}
	var pods []string
	for range launches {
		h.Must("run", "--rm", "-e", mark(h), "--uuid-file", file, ref, "true")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, strings.TrimSpace(string(b)))
	}
	nothingLeft(t, h, pods...)
	for _, dir := range []string{"lib/pods/*/*", "run/names/*"} {
		if names, _ := filepath.Glob(filepath.Join(h.Dir, dir)); len(names) > 0 {
			t.Errorf("left: %v", names)
		}
	}
}

// The donated descriptors of so many volumes go beyond those a process has by
// default; each arrives where it belongs, and none stays.
func TestEightyVolumes(t *testing.T) {
	h, ref := box(t)
	const volumes = 80
	args := []string{"run", "--rm", "-e", mark(h)}
	var want strings.Builder
	for n := range volumes {
		dir := filepath.Join(h.Dir, "volumes", fmt.Sprint(n))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("volume %d\n", n)
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		want.WriteString(text)
		args = append(args, "-v", fmt.Sprintf("%s:/v/%d:ro", dir, n))
	}
	args = append(args, ref, "sh", "-c", fmt.Sprintf("for n in $(seq 0 %d); do cat /v/$n/f; done; ls /proc/self/fd", volumes-1))
	// 3 is the listing's own.
	if got := h.Must(args...); got != want.String()+"0\n1\n2\n3" {
		t.Errorf("the app sees\n%s", got)
	}
	nothingLeft(t, h)
}

// An app that clears the signal its parent's death sends, or changes its user,
// which does that too, outlives a supervisor that is killed: in its control
// group, by which the next gantry finds it.
func TestWhatOutlivesAKilledSupervisorIsSwept(t *testing.T) {
	for _, c := range []struct {
		name  string
		run   []string
		app   []string
		sweep []string
		kept  bool // the pod, as exited
	}{
		{"gc", nil, []string{"inspect", "stubborn"}, []string{"gc"}, true},
		{"gc of a pod to be removed", []string{"--rm"}, []string{"inspect", "stubborn"}, []string{"gc"}, false},
		{"the next run", nil, []string{"inspect", "stubborn"}, []string{"run", "--rm", "REF", "true"}, true},
		{"list", nil, []string{"inspect", "stubborn"}, []string{"list", "--all"}, true},
		{"rm", nil, []string{"inspect", "stubborn"}, []string{"rm", "tough"}, false},
		{"gc after a change of user", nil, []string{"busybox", "su", "web", "-s", "/bin/sh", "-c", "echo ready; exec sleep 1000"}, []string{"gc"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, ref := box(t)
			pidFile := filepath.Join(h.Dir, "pid")
			pod := h.Must(append(append([]string{"run", "-d", "-e", mark(h), "--name", "tough", "--pidfile", pidFile}, append(c.run, ref)...), c.app...)...)
			logged(t, h, "tough", "ready")
			app := open(t, pidFile)
			killSupervisor(t, h, pod)
			if !app.runs(100) {
				t.Fatal("the app died with its supervisor: say so in SECURITY.md")
			}
			for i, a := range c.sweep {
				if a == "REF" {
					c.sweep[i] = ref
				}
			}
			h.Must(c.sweep...)
			if app.runs(10_000) {
				t.Errorf("the app outlived gantry %s", c.sweep[0])
			}
			nothingLeft(t, h, pod)
			if got := h.Must("list", "--all", "--quiet", "--no-trunc"); (got == pod) != c.kept {
				t.Errorf("gantry list says %q", got)
			}
		})
	}
}

// process is held by a pidfd.
type process struct{ fd int }

// open opens the process whose number a file has.
func open(t *testing.T, pidFile string) process {
	t.Helper()
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return process{fd}
}

// runs tells whether it still does after so many milliseconds. A signal of the
// Go runtime interrupts a wait, and says nothing about the process.
func (p process) runs(wait int) bool {
	polls := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	for until := time.Now().Add(time.Duration(wait) * time.Millisecond); ; {
		n, err := unix.Poll(polls, int(max(time.Until(until).Milliseconds()+1, 0)))
		if err != unix.EINTR {
			return err == nil && n == 0
		}
	}
}

// killSupervisor kills the process that holds a pod and waits for its end.
func killSupervisor(t *testing.T, h *gantry.Host, pod string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.Dir, "lib/pods/run", pod, "runtime.json"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), `"supervisor":`)
	var pid int
	if _, err := fmt.Sscan(rest, &pid); !ok || err != nil {
		t.Fatalf("no supervisor in %s: %v", b, err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if (process{fd}).runs(10_000) {
		t.Fatal("the supervisor survives SIGKILL")
	}
}
