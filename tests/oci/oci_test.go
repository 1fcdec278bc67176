// SPDX-License-Identifier: Apache-2.0

// Package oci attacks and drives the built gantry-oci by bundles: what a script
// cannot do, with threads that swap files and programs that answer.
package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/built"
)

// box is a bundle and the root of gantry-oci its containers are kept in.
type box struct {
	t      *testing.T
	bundle string
	root   string // of gantry-oci
	rootfs string
	spec   *specs.Spec
	args   []string // of run, before the id
	said   string   // directory for the output of commands
}

const applets = "sh cat ls id true false sleep kill mount stat echo readlink grep touch dd test mkdir ln rm chmod setsid umask printf tr head mknod"

// newBox makes a bundle of gantry-oci spec with nothing but busybox, that
// runs args.
func newBox(t *testing.T, args ...string) *box {
	t.Helper()
	ability.Require(t, ability.Root)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("ability missing: busybox")
	}
	b := &box{t: t, bundle: filepath.Join(t.TempDir(), "bundle"), root: filepath.Join(t.TempDir(), "root"), said: t.TempDir()}
	b.rootfs = filepath.Join(b.bundle, "rootfs")
	program, err := os.ReadFile(busybox)
	check(t, err, os.MkdirAll(filepath.Join(b.rootfs, "bin"), 0o755), os.Mkdir(filepath.Join(b.rootfs, "tmp"), 0o755))
	check(t, os.WriteFile(filepath.Join(b.rootfs, "bin/busybox"), program, 0o755))
	for applet := range strings.FieldsSeq(applets) {
		check(t, os.Symlink("busybox", filepath.Join(b.rootfs, "bin", applet)))
	}
	if r := b.oci("spec", "--bundle", b.bundle); r.code != 0 {
		t.Fatal(r)
	}
	config, err := os.ReadFile(filepath.Join(b.bundle, "config.json"))
	check(t, err, json.Unmarshal(config, &b.spec))
	b.spec.Process.Terminal, b.spec.Process.Args = false, args
	b.spec.Root.Readonly = false
	t.Cleanup(b.clean)
	return b
}

func check(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// clean deletes all containers, and wants nothing to be left of them.
func (b *box) clean() {
	entries, _ := os.ReadDir(b.root)
	for _, e := range entries {
		if r := b.oci("delete", "--force", e.Name()); r.code != 0 {
			b.t.Errorf("delete --force %s: %v", e.Name(), r)
		}
	}
	if left, _ := os.ReadDir(b.root); len(left) > 0 {
		b.t.Errorf("left in %s: %v", b.root, left)
	}
}

// result is how a command ended.
type result struct {
	out, stderr string
	code        int
}

// save writes the bundle's configuration.
func (b *box) save() {
	b.t.Helper()
	config, err := json.Marshal(b.spec)
	check(b.t, err, os.WriteFile(filepath.Join(b.bundle, "config.json"), config, 0o644))
}

// command is a gantry-oci of this root, with files for output: whoever leaves
// a process behind keeps nobody waiting.
func (b *box) command(ctx context.Context, args ...string) (*exec.Cmd, func() result) {
	b.t.Helper()
	cmd := exec.CommandContext(ctx, built.Path(b.t, "gantry-oci"), append([]string{"--root", b.root}, args...)...)
	out, err := os.CreateTemp(b.said, "out")
	check(b.t, err)
	stderr, err := os.CreateTemp(b.said, "err")
	check(b.t, err)
	cmd.Stdout, cmd.Stderr = out, stderr
	return cmd, func() result {
		out.Close()
		stderr.Close()
		o, _ := os.ReadFile(out.Name())
		e, _ := os.ReadFile(stderr.Name())
		os.Remove(out.Name())
		os.Remove(stderr.Name())
		return result{string(o), string(e), cmd.ProcessState.ExitCode()}
	}
}

// commandTime is far more than any command takes, also on an emulated machine.
const commandTime = 2 * time.Minute

func (b *box) oci(args ...string) result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	cmd, end := b.command(ctx, args...)
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	if ctx.Err() != nil {
		b.t.Errorf("gantry-oci %s: hangs: %v", strings.Join(args, " "), end())
	}
	return end()
}

// run is a run in the foreground.
func (b *box) run(id string) result {
	b.t.Helper()
	b.save()
	return b.oci(append(append([]string{"run", "--bundle", b.bundle}, b.args...), id)...)
}

// output is of a run that must succeed.
func (b *box) output() string {
	b.t.Helper()
	r := b.run("c")
	if r.code != 0 {
		b.t.Fatalf("exit status %d: %s%s", r.code, r.out, r.stderr)
	}
	return r.out
}

// started runs a container in the background.
func (b *box) started(id string) specs.State {
	b.t.Helper()
	b.save()
	if r := b.oci(append(append([]string{"run", "--detach", "--bundle", b.bundle}, b.args...), id)...); r.code != 0 {
		b.t.Fatalf("exit status %d: %s", r.code, r.stderr)
	}
	return b.state(id)
}

func (b *box) state(id string) specs.State {
	b.t.Helper()
	r := b.oci("state", id)
	var s specs.State
	if r.code != 0 || json.Unmarshal([]byte(r.out), &s) != nil {
		b.t.Fatalf("state %s: %d %s%s", id, r.code, r.out, r.stderr)
	}
	return s
}

// refused is a creation that must fail for a reason and leave nothing.
func (b *box) refused(says string) {
	b.t.Helper()
	r := b.run("refused")
	if r.code == 0 || !strings.Contains(r.stderr, says) {
		b.t.Errorf("exit status %d, want a refusal with %q: %s%s", r.code, says, r.out, r.stderr)
	}
	if left, _ := os.ReadDir(b.root); len(left) > 0 {
		b.t.Errorf("left: %v", left)
	}
}

// eventually waits, at most a minute, for what the kernel does not tell.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(time.Minute); time.Now().Before(until); <-tick.C {
		if done() {
			return
		}
	}
	t.Fatalf("not within a minute: %s", what)
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	check(t, err)
	return string(bytes.TrimSpace(b))
}
