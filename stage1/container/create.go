// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/stage1/launch"
)

// CreateOptions say how a container is made.
type CreateOptions struct {
	ID            string
	Bundle        string // directory with config.json
	ConsoleSocket string // gets the master of the terminal
	Foreground    bool   // without one, the container has it as Pty
	PidfdSocket   string // gets the pidfd of the container's process
	PidFile       string
	Libexec       string // where gantry-init is
	Preserve      int    // so many of our descriptors from 3 on are passed on
	Listen        int    // so many of them are sockets of LISTEN_FDS
	Keyring       bool   // the session keyring stays ours
	Attended      bool   // the caller stays, and calls Begin on what it got
	NoCgroup      bool   // the container stays in the group of the caller
	Systemd       bool   // systemd makes the cgroup, by linux.cgroupsPath as SLICE:PREFIX:NAME
	Notes         func(string)
	InUserns      bool // the bundle's user namespace is the one we are in
}

// load reads the bundle, refuses what is wrong with it, and gives what is to be
// made in our user namespace, which is nil if it is the host's.
func (o *CreateOptions) load() (bundle string, config []byte, spec *specs.Spec, own *launch.Userns, err error) {
	if err = checkID(o.ID); err != nil {
		return
	}
	if bundle, err = filepath.Abs(o.Bundle); err != nil {
		return
	}
	if config, spec, err = loadBundle(bundle); err != nil {
		return
	}
	announce(spec.Process, o.Listen)
	if spec, own, err = o.users(spec); err == nil {
		err = o.judge(spec, spec.Process != nil && spec.Process.Terminal)
	}
	return
}

// Create makes a container that waits to be started (runtime.md, Create). On
// error nothing is left. It must be called on a locked thread.
func (r Root) Create(ctx context.Context, o CreateOptions) (_ *Container, err error) {
	defer func() { err = launch.InSection(err) }()
	bundle, config, spec, own, err := o.load()
	if err != nil {
		return nil, err
	}
	terminal := spec.Process != nil && spec.Process.Terminal
	unit, err := newScope(&o, spec, own)
	if err != nil {
		return nil, err
	}
	defer unit.close()
	var u undo.Stack
	c, made := (*Container)(nil), false
	defer func() {
		if err != nil && made {
			c.poststop(spec)
		}
	}()
	defer u.Run()
	c, err = r.take(o.ID, &u)
	if err != nil {
		return nil, err
	}
	c.spec, c.record = spec, record{Version: stateVersion, Bundle: bundle, Created: time.Now().UTC(), Owner: ownerOf(own)}
	unit.record(c, &u)
	if err := os.WriteFile(filepath.Join(r.path(o.ID), configFile), config, 0o600); err != nil {
		return nil, err
	}
	resctrl, err := c.class(spec)
	if err != nil {
		return nil, err
	}
	if resctrl != nil {
		c.Resctrl = resctrl.ours // written before it is made
		u.Push(func() { _ = c.declassify() })
	}
	var hold *os.File
	if !o.Attended {
		if hold, err = launch.Listen(r.path(o.ID)); err != nil {
			return nil, err
		}
		defer hold.Close()
	}
	request := launch.Request{
		ID: r.group(o.ID), Spec: spec, Bundle: bundle, Root: launch.Root{Dir: rootfs(spec, bundle)},
		Libexec: o.Libexec, RunDir: r.Dir + "-cache", Terminal: terminal, Stdin: true, Outlive: true, Hold: hold, Attended: o.Attended,
		CgroupPath: cgroupPath(spec), CgroupNone: o.NoCgroup, CgroupMade: c.groupMade, CgroupStrict: strict, Notes: o.Notes, Preserve: o.Preserve, Keyring: o.Keyring,
		Hooks:     &launch.Hooks{ID: o.ID, Runtime: func(pid int) error { return c.createRuntime(spec, pid) }},
		Userns:    own,
		RootMount: func(id uint64) { c.RootMount = id },
		Record: func(dirs []string) error {
			c.Cgroups, made = dirs, true
			return c.write()
		},
	}
	unit.use(&request)
	created, err := launch.Create(ctx, request)
	if err != nil {
		return nil, inBundle(spec, err)
	}
	u.Push(created.Release)
	if err := c.handOut(&o, created, resctrl); err != nil {
		return nil, err
	}
	u.Release()
	return c, nil
}

// judge refuses what cannot be, leaves out what cannot be had, and notes what
// is passed over.
func (o *CreateOptions) judge(spec *specs.Spec, terminal bool) error {
	if err := o.console(terminal); err != nil {
		return err
	}
	if path := cgroupPath(spec); path != "" && !o.Systemd {
		if _, err := cgroups.CleanPath(path); err != nil {
			return fmt.Errorf("linux.cgroupsPath: %w", err)
		}
	}
	if err := grantable(spec, o.Notes); err != nil {
		return err
	}
	if spec.Linux != nil && !hasNamespace(spec, specs.MountNamespace) {
		o.Notes("linux.namespaces: no mount namespace: its mounts are made in this one, below its root, and go when it is deleted; its root is a chroot, which keeps nobody in who may mount")
	}
	for _, field := range unapplied(spec, launch.SELinux()) {
		o.Notes(field + ": is not applied by this runtime")
	}
	return nil
}

// console tells when a terminal has no way to whoever uses it.
func (o *CreateOptions) console(terminal bool) error {
	switch {
	case terminal && o.ConsoleSocket == "" && !o.Foreground:
		return errors.New("process.terminal: is set and nobody stays, so --console-socket is needed to hand the terminal to")
	case !terminal && o.ConsoleSocket != "":
		return errors.New("--console-socket: process.terminal is not set, so there is no terminal to hand out")
	}
	return nil
}

// group names the cgroup of a container whose bundle does not: an id is unique
// below one root only.
func (r Root) group(id string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(r.Dir))
	return fmt.Sprintf("oci-%08x-%s", h.Sum32(), id)
}

// take makes a container's directory and locks it.
func (r Root) take(id string, u *undo.Stack) (*Container, error) {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := r.ours(); err != nil {
		return nil, err
	}
	err := os.Mkdir(r.path(id), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("container %q: %w", id, ErrExists)
	}
	if err != nil {
		return nil, err
	}
	c, err := r.claim(id)
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	u.Push(func() { _ = c.dir.Close() })
	u.Push(func() { _ = os.RemoveAll(r.path(id)) })
	return c, nil
}

// claim locks a directory that was just made. Until it is locked a delete may
// remove it, and another create make its own under the name: that one is left
// alone.
func (r Root) claim(id string) (*Container, error) {
	dir, err := os.Open(r.path(id))
	if err != nil {
		return nil, err
	}
	c := &Container{ID: id, root: r, dir: dir}
	if err = flock(dir, unix.LOCK_EX); err == nil {
		err = c.stillThere()
	}
	if err == nil {
		var names []string
		if names, err = dir.Readdirnames(1); errors.Is(err, io.EOF) {
			return c, nil
		}
		if len(names) > 0 {
			err = ErrExists
		}
	}
	_ = dir.Close()
	return nil, err
}

// Libexec finds the directory of gantry-init: beside the running executable,
// where it is installed, or where GANTRY_LIBEXEC_DIR says.
func Libexec() (string, error) {
	dirs := []string{"/usr/libexec/gantry", "/usr/lib/gantry/libexec"}
	if exe, err := os.Executable(); err == nil {
		dirs = append([]string{filepath.Dir(exe)}, dirs...)
	}
	if dir := os.Getenv("GANTRY_LIBEXEC_DIR"); dir != "" {
		dirs = []string{dir}
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "gantry-init")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("gantry-init is not in %s: set GANTRY_LIBEXEC_DIR", strings.Join(dirs, ", "))
}
