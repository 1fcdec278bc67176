// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Whoever can write to the directory of --root writes states and hooks that
// root then follows. It is refused, by every command.
func TestRootOfOthersIsRefused(t *testing.T) {
	b := newBox(t, "true")
	b.save()
	marker := filepath.Join(t.TempDir(), "marker")
	for says, spoil := range map[string]func(string) error{
		"belongs to user 1234":      func(dir string) error { return os.Chown(dir, 1234, 1234) },
		"others may write to it":    func(dir string) error { return os.Chmod(dir, 0o1777) },
		"group, mode 0775":          func(dir string) error { return os.Chmod(dir, 0o775) },
		"is not a directory":        func(dir string) error { return swapForFile(dir) },
		"a link to somebody else's": func(dir string) error { return swapForLink(t, dir) },
	} {
		b.root = filepath.Join(t.TempDir(), "root")
		planted := filepath.Join(b.root, "planted")
		check(t, os.MkdirAll(planted, 0o700))
		config, err := json.Marshal(&specs.Spec{Hooks: &specs.Hooks{Poststop: []specs.Hook{{Path: "/usr/bin/touch", Args: []string{"touch", marker}}}}})
		check(t, err, os.WriteFile(filepath.Join(planted, "config.json"), config, 0o644),
			os.WriteFile(filepath.Join(planted, "state.json"), []byte(`{"version":1}`), 0o644), spoil(b.root))
		for _, args := range [][]string{
			{"delete", "--force", "planted"},
			{"state", "planted"},
			{"list"},
			{"kill", "planted"},
			{"start", "planted"},
			{"exec", "planted", "true"},
			{"run", "--bundle", b.bundle, "new"},
			{"create", "--bundle", b.bundle, "new"},
		} {
			if r := b.oci(args...); r.code == 0 || !strings.Contains(r.stderr, b.root) {
				t.Errorf("%s: gantry-oci %q: %+v", says, args, r)
			}
		}
	}
	missing(t, marker)
	b.root = filepath.Join(t.TempDir(), "own")
}

func swapForFile(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.WriteFile(dir, nil, 0o600)
}

func swapForLink(t *testing.T, dir string) error {
	other := filepath.Join(t.TempDir(), "other")
	if err := os.Rename(dir, other); err != nil {
		return err
	}
	if err := os.Chown(other, 1234, 1234); err != nil {
		return err
	}
	return os.Symlink(other, dir)
}

// A state.json that lies: about processes that are another's by now, about
// groups that are gone, or not JSON at all. No command acts on a bare number.
func TestStateThatLiesHarmsNobody(t *testing.T) {
	b := newBox(t, "true")
	victim, _ := b.command(t.Context(), "events", "none")
	victim.Path, victim.Args = "/bin/sleep", []string{"sleep", "1000"}
	check(t, victim.Start())
	t.Cleanup(func() { _ = victim.Process.Kill(); _ = victim.Wait() })
	boot := read(t, "/proc/sys/kernel/random/boot_id")
	for _, state := range []string{
		fmt.Sprintf(`{"version":1,"pid":%d,"start":1,"boot":%q}`, victim.Process.Pid, boot),
		fmt.Sprintf(`{"version":1,"pid":%d,"start":1,"boot":"x"}`, victim.Process.Pid),
		fmt.Sprintf(`{"version":1,"pid":-1,"start":1,"boot":%q}`, boot),
		fmt.Sprintf(`{"version":1,"pid":0,"start":0,"boot":%q,"cgroups":["/sys/fs/cgroup/none/../gone"]}`, boot),
		`{"version":1,"pid":1}`, `{}`, ``, `[]`, `{"version":"x"}`, strings.Repeat(`{"a":`, 100000),
	} {
		dir := filepath.Join(b.root, "lies")
		check(t, os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "state.json"), []byte(state), 0o600))
		for _, args := range [][]string{
			{"kill", "lies", "KILL"},
			{"kill", "--all", "lies", "KILL"},
			{"state", "lies"},
			{"pause", "lies"},
			{"start", "lies"},
			{"exec", "lies", "true"},
			{"ps", "lies"},
			{"list"},
			{"delete", "--force", "lies"},
		} {
			if r := b.oci(args...); strings.Contains(r.stderr, "panic") || r.code == 2 {
				t.Errorf("state %.60q: gantry-oci %q: %+v", state, args, r)
			}
		}
		if victim.Process.Signal(unix.Signal(0)) != nil {
			t.Fatalf("state %.60q killed a process that is not the container's", state)
		}
		check(t, os.RemoveAll(dir))
	}
}

// Ids that are paths, links for the pid file, relative hooks and consoles that
// take no terminal.
func TestArgumentsThatAreAttacks(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	b.save()
	for _, id := range []string{"", ".", "..", "../x", "a/b", "/x", "a\x01", "a\n", "-x", strings.Repeat("a", 256), "ä"} {
		for _, command := range []string{"create", "state", "delete", "kill", "exec"} {
			args := []string{command, "--", id}
			if command == "exec" {
				args = append(args, "true")
			}
			if r := b.oci(args...); r.code == 0 {
				t.Errorf("%s %q worked", command, id)
			}
		}
	}
	victim := filepath.Join(t.TempDir(), "victim")
	link := filepath.Join(t.TempDir(), "pid")
	check(t, os.WriteFile(victim, []byte("untouched"), 0o600), os.Symlink(victim, link))
	if r := b.oci("create", "--bundle", b.bundle, "--pid-file", link, "c"); r.code != 0 {
		t.Fatal(r)
	}
	if got := read(t, victim); got != "untouched" {
		t.Errorf("the pid file's link was followed: %q", got)
	}
	if got := read(t, link); got != fmt.Sprint(b.state("c").Pid) {
		t.Errorf("the pid file has %q", got)
	}
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "../../bin/true"}}}
	b.oci("delete", "--force", "c")
	b.refused(`hooks.createRuntime[0].path: "../../bin/true" is not absolute`)
}

// A bundle may be reached by a link; what state tells is not followed again.
func TestBundleByALink(t *testing.T) {
	b := newBox(t, "true")
	b.save()
	link := filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(b.bundle, link))
	if r := b.oci("create", "--bundle", link, "c"); r.code != 0 {
		t.Fatal(r)
	}
	check(t, os.Remove(link), os.Symlink("/", link))
	if r := b.oci("start", "c"); r.code != 0 {
		t.Errorf("start: %+v", r)
	}
}

// A bundle whose config.json is a pipe, a device or a directory keeps nobody
// (the like of CVE-2024-9676).
func TestConfigIsNoFile(t *testing.T) {
	b := newBox(t, "true")
	config := filepath.Join(b.bundle, "config.json")
	for _, make := range []func() error{
		func() error { return unix.Mkfifo(config, 0o600) },
		func() error { return os.Symlink("/dev/zero", config) },
		func() error { return os.Mkdir(config, 0o700) },
	} {
		check(t, os.RemoveAll(config), make())
		if r := b.oci("create", "--bundle", b.bundle, "c"); r.code != 1 || !strings.Contains(r.stderr, "is not a regular file") {
			t.Errorf("%+v", r)
		}
	}
}

// Everybody at one id at once: one create wins, whoever deletes removes one
// container whole, and nothing of a loser is left, nor a process.
func TestCommandsRaceForOneID(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	b.save()
	for range 4 {
		var all sync.WaitGroup
		for i := range 12 {
			all.Add(1)
			go func() {
				defer all.Done()
				args := [][]string{
					{"create", "--bundle", b.bundle, "c"},
					{"delete", "--force", "c"},
					{"start", "c"},
					{"kill", "c", "KILL"},
					{"create", "--bundle", b.bundle, "c"},
					{"state", "c"},
				}[i%6]
				if r := b.oci(args...); strings.Contains(r.stderr, "panic") || r.code > 1 {
					t.Errorf("gantry-oci %q: %+v", args, r)
				}
			}()
		}
		all.Wait()
		if r := b.oci("delete", "--force", "c"); r.code != 0 {
			t.Errorf("delete --force: %+v", r)
		}
		if left := processesIn(b.rootfs); len(left) > 0 {
			t.Fatalf("processes %v are left", left)
		}
	}
}

// processesIn are those whose program lies in a directory.
func processesIn(dir string) (out []string) {
	found, _ := filepath.Glob("/proc/[0-9]*/root")
	want, err := os.Stat(dir)
	if err != nil {
		return nil
	}
	for _, root := range found {
		if st, err := os.Stat(root + "/."); err == nil && os.SameFile(st, want) {
			out = append(out, root)
		}
	}
	return out
}
