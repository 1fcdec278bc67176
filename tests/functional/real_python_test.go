// SPDX-License-Identifier: Apache-2.0

package functional

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/gantry"
)

// forks has as many children alive at once as its argument says, unless it is
// refused, and reaps them.
const forks = `
import errno, os, sys
r, w = os.pipe()
children = []
try:
    for i in range(int(sys.argv[1])):
        pid = os.fork()
        if pid == 0:
            os.read(r, 1)
            os._exit(i % 7)
        children.append(pid)
except OSError as e:
    print("refused", errno.errorcode[e.errno])
print("alive", len(children), flush=True)
os.write(w, b"x" * len(children))
print("right", sum(os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) == i % 7 for i, p in enumerate(children)))
`

// orphans makes grandchildren nobody waits for: the first process reaps them.
const orphans = `
import os, time
def zombies():
    n = 0
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            n += open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            pass
    return n
def left():
    return sum(p.isdigit() for p in os.listdir("/proc"))
before = left()
for i in range(200):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
for i in range(2000):
    if left() == before:
        break
    time.sleep(0.005)
print("orphans", left() - before, "zombies", zombies())
`

func testPython(t *testing.T, h *gantry.Host, ref string) {
	run := func(args ...string) gantry.Result { return h.Run(append([]string{"run", "--rm"}, args...)...) }
	says := func(t *testing.T, r gantry.Result, status int, want ...string) {
		t.Helper()
		for _, w := range want {
			if r.Status != status || !strings.Contains(r.Stdout+r.Stderr, w) {
				t.Errorf("exit status %d, want %d and %q in\n%s%s", r.Status, status, w, r.Stdout, r.Stderr)
			}
		}
	}
	t.Run("a thousand children", func(t *testing.T) {
		says(t, run(ref, "python3", "-c", forks, "1000"), 0, "alive 1000\nright 1000")
		again := "1000"
		if os.Getenv("GANTRY_TEST_SLOW") != "" { // half a minute on an emulated processor
			again = "100"
		}
		says(t, run("--init", ref, "python3", "-c", forks, again), 0, "alive "+again+"\nright "+again)
	})
	t.Run("orphans are reaped by init", func(t *testing.T) {
		says(t, run("--init", ref, "python3", "-c", orphans), 0, "orphans 0 zombies 0")
	})
	t.Run("pids limit", func(t *testing.T) {
		ability.Require(t, ability.CgroupWritable)
		says(t, run("--pids-limit", "100", ref, "python3", "-c", forks, "200"), 0, "refused EAGAIN\nalive 99\nright 99")
		// The init's own threads count too.
		says(t, run("--pids-limit", "100", "--init", ref, "python3", "-c", forks, "200"), 0, "refused EAGAIN\nalive 9", "\nright 9")
		testAtPidsLimit(t, h, ref)
	})
	t.Run("user by name", func(t *testing.T) {
		const who = `import os; print(os.getuid(), os.getgid(), sorted(os.getgroups()), os.environ["HOME"])`
		says(t, run("--user", "app", ref, "python3", "-c", who), 0, "1234 1234 [29, 60, 1234] /home/app")
		says(t, run("--user", "app:daemon", ref, "python3", "-c", who), 0, "1234 1 [1] /home/app")
		says(t, run("--user", "app", ref, "python3", "-c", `open("/x", "w")`), 1, "PermissionError")
		says(t, run("--user", "app", ref, "python3", "-c", `open("/home/app/x", "w"); print("home")`), 0, "home")
		says(t, run("--user", "nosuch", ref, "true"), 125, `"nosuch"`)
	})
	t.Run("file capabilities", func(t *testing.T) { testFileCapabilities(t, h, ref) })
	t.Run("its files", func(t *testing.T) {
		says(t, run("--user", "app", ref, "python3", "-c", `
import datetime, locale, os, zoneinfo
print(len(zoneinfo.available_timezones()) > 400, datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset())
locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
print(locale.format_string("%.2f", 1234567.891, grouping=True))
print("below", os.path.exists("/usr/lib/terminfo"), os.path.exists("/usr/lib/python3"))
import ssl, sqlite3, multiprocessing
with multiprocessing.Pool(4) as p: print(sum(p.map(abs, range(-100, 0))))
`), 0, "True 2:00:00\n1.234.567,89\nbelow False True\n5050")
	})
	t.Run("out of memory", func(t *testing.T) { testOutOfMemory(t, h, ref) })
	t.Run("a command that cannot be", func(t *testing.T) {
		says(t, run(ref, "nosuch"), 127, "nosuch: executable file not found in $PATH")
		says(t, run(ref, "/etc/passwd"), 126, "/etc/passwd: permission denied")
		script := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(script, []byte("#!/usr/bin/perl6\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		says(t, run("-v", script+":/script:ro", ref, "/script"), 126, "interpreter")
	})
}

// testAtPidsLimit: a pod that is full says so to who asks for more, is seen, one
// line for each process whatever its command holds, and can be stopped.
func testAtPidsLimit(t *testing.T, h *gantry.Host, ref string) {
	h.Must("run", "-d", "--name", "full", "--pids-limit", "20", ref, "python3", "-c", `# a command
# of three lines
exec("""
import os, signal
signal.signal(signal.SIGTERM, lambda *a: os._exit(3))
parent = os.getpid()
try:
    while os.getpid() == parent: os.fork()
    signal.pause()
except OSError as e:
    print("refused", e.errno, flush=True)
    signal.pause()
""")`)
	logged(t, h, "full", "refused 11")
	if r := h.Run("exec", "full", "true"); r.Status != 125 || !strings.Contains(r.Stderr, "--pids-limit") {
		t.Errorf("exec in a full pod: %d %s", r.Status, r.Stderr)
	}
	if out := h.Must("ps", "full"); strings.Count(out, "\n") != 20 {
		t.Errorf("ps shows\n%s", out)
	}
	h.Must("stop", "full")
	if out := h.Must("status", "full"); !strings.Contains(out, "exit       3") {
		t.Errorf("status shows %s", out)
	}
	h.Must("rm", "full")
}

// testFileCapabilities: Debian's ping carries CAP_NET_RAW, which is not among
// the default capabilities: it works for a user exactly where that was given.
func testFileCapabilities(t *testing.T, h *gantry.Host, ref string) {
	ping := func(args ...string) gantry.Result {
		args = append([]string{"run", "--rm", "--user", "app"}, args...)
		return h.Run(append(args, ref, "ping", "-c1", "127.0.0.1")...)
	}
	if r := h.Run("run", "--rm", ref, "/usr/sbin/getcap", "/usr/bin/ping"); !strings.Contains(r.Stdout, "cap_net_raw=ep") {
		t.Errorf("the attribute did not come through the layers: %s%s", r.Stdout, r.Stderr)
	}
	if r := ping(); r.Status != 126 || !strings.Contains(r.Stderr, "--cap-add") {
		t.Errorf("without the capability: %d %s", r.Status, r.Stderr)
	}
	if r := ping("--cap-add", "NET_RAW"); r.Status != 0 {
		t.Errorf("with the capability: %d %s%s", r.Status, r.Stdout, r.Stderr)
	}
}

// testOutOfMemory: who was killed for memory is told apart from who was killed.
func testOutOfMemory(t *testing.T, h *gantry.Host, ref string) {
	ability.Require(t, ability.CgroupWritable)
	r := h.Run("run", "--name", "hog", "--memory", "64m", "--memory-swap", "64m", ref, "python3", "-c", "bytearray(512 << 20)")
	// Shells show 137 for a process that died as its app did: Go says -1.
	if r.Status != 137 && r.Status != -1 {
		t.Errorf("exit status %d: %s", r.Status, r.Stderr)
	}
	var status struct {
		Exit struct {
			Code   int
			Signal string
			OOM    bool
		}
	}
	if err := json.Unmarshal([]byte(h.Must("status", "hog", "--format", "json")), &status); err != nil {
		t.Fatal(err)
	}
	if e := status.Exit; e.Code != 137 || e.Signal != "SIGKILL" || !e.OOM {
		t.Errorf("recorded as %+v", e)
	}
	if out := h.Must("status", "hog"); !strings.Contains(out, "out of memory") {
		t.Errorf("status says %s", out)
	}
	h.Must("rm", "hog")
	h.Run("run", "--name", "killed", ref, "python3", "-c", "import os, signal; os.kill(os.fork() or os.getpid(), signal.SIGKILL); os.wait(); os.abort()")
	if out := h.Must("status", "killed"); strings.Contains(out, "out of memory") {
		t.Errorf("status says %s", out)
	}
}
