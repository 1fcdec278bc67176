// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantryrun/gantry/tests/built"
)

// machine is a place where engines change nothing of the host's: directories of
// its own, and namespaces for mounts and the network that end with the test.
type machine struct {
	t       *testing.T
	dir     string
	runtime string // of the engines: gantry-oci, crun or runc
	env     []string
	holder  *exec.Cmd // keeps the namespaces
}

func newMachine(t *testing.T, runtime string) *machine {
	t.Helper()
	// Paths of sockets have 108 characters at most, t.TempDir takes most of them.
	dir, err := os.MkdirTemp("/var/tmp", "eng")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir, runtime: runtime}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	m.mkdir("bin")
	m.mkdir("state")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m.env = append(os.Environ(),
		"PATH="+filepath.Join(dir, "bin")+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"DIR="+dir, "HOME="+dir, "RUNTIME="+m.path(), "STATE="+filepath.Join(dir, "state"))
	// podman has a flag for this, and forgets it where it cleans up (4.3).
	m.write("bin/runtime", "#!/bin/sh\nexec ${RUNTIME} --root ${STATE} \"$@\"\n", 0o755)
	m.hold()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "bin/pty")); err != nil {
		t.Fatal(err)
	}
	return m
}

// hold makes the namespaces. The cgroup v2 that a hybrid host has beside version
// 1 goes for crun, which does not work with it.
func (m *machine) hold() {
	script := "ip link set lo up; echo; exec sleep infinity"
	if m.runtime == "crun" {
		script = "! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified; " + script
	}
	m.holder = exec.Command("unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script)
	m.holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := m.holder.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.holder.Start(); err != nil {
		m.t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		m.t.Fatalf("make namespaces: %v", err)
	}
	m.t.Cleanup(func() {
		_ = m.holder.Process.Kill()
		_ = m.holder.Wait()
	})
}

// path is where the runtime is.
func (m *machine) path() string {
	if m.runtime == "gantry-oci" {
		return built.Path(m.t, m.runtime)
	}
	path, err := exec.LookPath(m.runtime)
	if err != nil {
		m.t.Fatal(err)
	}
	return path
}

func (m *machine) mkdir(name string) string {
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// write makes a file of the machine. ${DIR} and the other variables are known.
func (m *machine) write(name, text string, mode fs.FileMode) {
	path := filepath.Join(m.dir, name)
	text = os.Expand(text, func(key string) string {
		for _, entry := range slices.Backward(m.env) {
			if k, v, _ := strings.Cut(entry, "="); k == key {
				return v
			}
		}
		return "$" + key // a shell's
	})
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

// account adds a line to a file of the machine's own /etc.
func (m *machine) account(file, line string) {
	m.t.Helper()
	m.must("{ test ! -f /etc/" + file + " || cat /etc/" + file + "; echo " + line + "; } >etc." + file + " && mount --bind etc." + file + " /etc/" + file)
}

// command runs a line of a transcript and returns what it prints, its standard
// error included, ended by its status if that is not 0.
func (m *machine) command(line string, env ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), slow(60*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", fmt.Sprint(m.holder.Process.Pid), "--net", "--mount", "--wd="+m.dir, "sh", "-c", line)
	cmd.Env = append(slices.Clone(m.env), env...)
	// Who inherits the descriptors must not keep the line from ending.
	out, err := os.CreateTemp(m.dir, "out")
	if err != nil {
		m.t.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	b, _ := os.ReadFile(out.Name())
	b = bytes.TrimRight(b, "\n")
	var failed *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return string(b) + "\n[timed out]"
	case errors.As(err, &failed):
		return fmt.Sprintf("%s\n[status %d]", b, failed.ExitCode())
	case err != nil:
		return fmt.Sprintf("%s\n[%v]", b, err)
	}
	return string(b)
}

// must runs a line that has to succeed.
func (m *machine) must(line string) string {
	m.t.Helper()
	out := m.command("set -e; " + line)
	if strings.HasSuffix(out, "]") && strings.Contains(out, "\n[") {
		m.t.Fatalf("%s:\n%s", line, out)
	}
	return out
}

func slow(d time.Duration) time.Duration {
	if os.Getenv("GANTRY_TEST_SLOW") != "" {
		return d * 10
	}
	return d
}

// play runs the steps of a section until one prints something else.
func (m *machine) play(s section, name string) error {
	for _, step := range s.steps {
		got := m.command(step.command, "C="+name)
		got = strings.NewReplacer(m.dir, "$DIR", name, "$C").Replace(got)
		if !step.matches(got) {
			return &unexpected{step: step, got: got}
		}
	}
	return nil
}

type unexpected struct {
	step step
	got  string
}

func (u *unexpected) Error() string {
	return fmt.Sprintf("$ %s\ngot:\n%s\nwant:\n%s", u.step.command, strings.Trim(u.got, "\n"), u.step.want)
}

// groups are the control groups of the host whose names have one of the words.
func groups(words []string) []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(name string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.ContainsFunc(words, func(w string) bool { return strings.Contains(d.Name(), w) }) {
			found = append(found, name)
		}
		return nil
	})
	return found
}
