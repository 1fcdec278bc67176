// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/fetch/worker"
)

// attempt is one thing a worker must not be able to do, tried from inside it.
type attempt struct {
	name string
	try  func() error
}

func attempts(victim int, address string) []attempt {
	open := func(path string, flags int) func() error {
		return func() error {
			fd, err := unix.Open(path, flags, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
	}
	raw := func(nr uintptr, args ...uintptr) func() error {
		return func() error {
			var a [6]uintptr
			copy(a[:], args)
			_, _, e := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
			if e != 0 {
				return e
			}
			return nil
		}
	}
	return []attempt{
		{"read /etc/shadow", open("/etc/shadow", unix.O_RDONLY)},
		{"read /etc/passwd", open("/etc/passwd", unix.O_RDONLY)},
		{"read /proc/self/status", open("/proc/self/status", unix.O_RDONLY)},
		{"climb out", open("../../../../../etc/shadow", unix.O_RDONLY)},
		{"create a file", open("/made", unix.O_CREAT|unix.O_WRONLY)},
		{"make a directory", func() error { return unix.Mkdir("/made", 0o755) }},
		{"change root again", func() error { return unix.Chroot("/") }},
		{"become root", func() error { return syscall.Setresuid(0, 0, 0) }},
		{"fork", raw(unix.SYS_CLONE, uintptr(unix.SIGCHLD))},
		{"vfork by clone3", raw(unix.SYS_CLONE3, 0, 0)},
		{"signal the parent", func() error { return unix.Kill(victim, 0) }},
		{"signal the parent's thread", func() error { return unix.Tgkill(victim, victim, 0) }},
		{"open a pidfd", func() error { _, err := unix.PidfdOpen(victim, 0); return err }},
		{"unix socket", func() error { _, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }},
		{"netlink socket", func() error { _, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0); return err }},
		{"raw packets", func() error { _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); return err }},
		{"make memory executable", func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
			return err
		}},
		{"memfd", func() error { _, err := unix.MemfdCreate("x", 0); return err }},
		{"raise a limit", func() error {
			return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20})
		}},
		{"become dumpable", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }},
		{"forget the parent", func() error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) }},
		{"terminal injection", raw(unix.SYS_IOCTL, 2, unix.TIOCSTI, uintptr(unsafe.Pointer(new(byte))))},
		{"listen", func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			return unix.Listen(fd, 1)
		}},
		{"connect", func() error {
			c, err := net.DialTimeout("tcp", address, time.Second)
			if err == nil {
				c.Close()
			}
			return err
		}},
	}
}

// probe is a worker that tries everything and reports.
func probe(args []string) error {
	c, _, err := worker.Enter(args)
	if err != nil {
		return err
	}
	m, _, err := c.Recv(true)
	if err != nil {
		return err
	}
	var ask struct {
		Victim  int
		Address string
		Deadly  string
	}
	if err := m.Decode(&ask); err != nil {
		return err
	}
	switch ask.Deadly {
	case "ptrace":
		unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_ATTACH, uintptr(ask.Victim), 0, 0, 0, 0)
	case "execve":
		return unix.Exec("/bin/sh", []string{"sh"}, nil)
	case "mount":
		return unix.Mount("none", "/", "tmpfs", 0, "")
	case "x32":
		unix.RawSyscall(0x40000000|unix.SYS_GETPID, 0, 0, 0)
	}
	got := map[string]string{}
	for _, a := range attempts(ask.Victim, ask.Address) {
		if err := a.try(); err != nil {
			got[a.name] = err.Error()
		} else {
			got[a.name] = "succeeded"
		}
	}
	return c.Send(wire.Message{Op: wire.OpDone, Body: wire.Body(got)})
}

func ask(t *testing.T, kind, deadly, address string, files ...*os.File) (map[string]string, *process, error) {
	t.Helper()
	p, err := launch(t.Context(), libexec(t, "probe"), kind, files...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	var got map[string]string
	err = p.order(map[string]any{"Victim": os.Getpid(), "Address": address, "Deadly": deadly}, time.Minute, &got)
	return got, p, err
}

func donations(t *testing.T, n int) []*os.File {
	var files []*os.File
	for range n {
		f, err := os.Create(filepath.Join(t.TempDir(), "donated"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	return files
}

// Guards: a worker that was taken over by what it reads reaches nothing.
func TestWorkerReachesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for kind, n := range map[string]int{wire.Net: 0, wire.Layout: 0, wire.Verify: 2, wire.Convert: 3, wire.Merge: 3} {
		t.Run(kind, func(t *testing.T) {
			got, p, err := ask(t, kind, "", l.Addr().String(), donations(t, n)...)
			if err != nil {
				t.Fatal(err)
			}
			for name, result := range got {
				allowed := kind == wire.Net && name == "connect"
				if (result == "succeeded") != allowed {
					t.Errorf("%s: %s", name, result)
				}
			}
			if len(got) == 0 {
				t.Fatal("nothing was tried")
			}
			_ = p
		})
	}
}

// Guards: calls that no worker can make by mistake end it, and the parent
// says so.
func TestDeadlyCalls(t *testing.T) {
	for _, call := range []string{"ptrace", "execve", "mount", "x32"} {
		t.Run(call, func(t *testing.T) {
			_, _, err := ask(t, wire.Layout, call, "")
			if err == nil || !strings.Contains(err.Error(), "system call it must not make") {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// Guards: the kernel's own view of a worker: identity, privileges, namespace,
// descriptors, limits.
func TestWorkerAsTheKernelSeesIt(t *testing.T) {
	// A descriptor that somebody leaked into gantry must not reach a worker.
	leak, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if _, err := unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	p, err := launch(t.Context(), libexec(t, "good"), wire.Layout)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if err := p.ready(); err != nil {
		t.Fatal(err)
	}
	proc := fmt.Sprintf("/proc/%d/", p.proc.Pid)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		t.Fatal(err)
	}
	id := strconv.Itoa(2097152000 + p.proc.Pid)
	for field, want := range map[string]string{
		"Uid": strings.Join([]string{id, id, id, id}, "\t"), "Gid": strings.Join([]string{id, id, id, id}, "\t"),
		"Groups": "", "NoNewPrivs": "1", "Seccomp": "2",
		"CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
	} {
		if got := statusField(string(status), field); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range fds {
		target, err := os.Readlink(proc + "fd/" + e.Name())
		if err == nil && target == "/etc/passwd" {
			t.Errorf("descriptor %s of the caller reached the worker", e.Name())
		}
	}
	for _, ns := range []string{"net", "ipc"} {
		ours, err1 := os.Readlink("/proc/self/ns/" + ns)
		theirs, err2 := os.Readlink(proc + "ns/" + ns)
		if err := errors.Join(err1, err2); err != nil || ours == theirs {
			t.Errorf("%s namespace %s is shared: %v", ns, theirs, err)
		}
	}
	limits, err := os.ReadFile(proc + "limits")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(limits), "Max core file size        0                    0") {
		t.Errorf("core dumps are possible:\n%s", limits)
	}
	if err := os.Mkdir(proc+"root/x", 0o755); err == nil || !errors.Is(err, unix.EROFS) {
		t.Errorf("root can be written to: %v", err)
	}
}

func statusField(status, name string) string {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "missing"
}

// Guards: Ctrl-C. A cancelled context ends every worker at once.
func TestCancelEndsWorker(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, err := launch(ctx, libexec(t, "good"), wire.Layout)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		t.Fatal("the worker lives on")
	}
	p.stop()
}
