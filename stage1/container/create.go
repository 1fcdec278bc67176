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
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/internal/catch"
	"github.com/gantryrun/gantry/internal/jsonin"
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
	Systemd       bool   // systemd makes the cgroup, by linux.cgroupsPath as SLICE:PREFIX:NAME
	Notes         func(string)
	InUserns      bool // the bundle's user namespace is the one we are in
}

// maxConfig bounds a config.json; those engines write have some 100 KiB.
const maxConfig = 8 << 20

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
	unit, err := newScope(&o, spec)
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
		CgroupPath: cgroupPath(spec), CgroupStrict: strict, Notes: o.Notes, Preserve: o.Preserve, Keyring: o.Keyring,
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
		return nil, inBundle(err)
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
	if err := grantable(spec, o.Notes); err != nil {
		return err
	}
	if spec.Linux != nil && !hasNamespace(spec, specs.MountNamespace) {
		o.Notes("linux.namespaces: no mount namespace: its mounts are made in this one, below its root, and go when it is deleted; its root is a chroot, which keeps nobody in who may mount")
	}
	for _, field := range unapplied(spec) {
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

// handOut records the container's process, puts it into its class, and gives
// what was asked for of it.
func (c *Container) handOut(o *CreateOptions, created *launch.Created, resctrl *class) error {
	if c.Pty = created.Pty; c.Pty != nil && o.ConsoleSocket != "" {
		if err := sendConsole(o.ConsoleSocket, created.Pty); err != nil {
			return fmt.Errorf("--console-socket %s: %w", o.ConsoleSocket, err)
		}
	}
	c.Pid, c.Start, c.Boot, c.Cgroups = created.Pid, created.Start, created.Boot, created.Cgroups
	if o.Attended {
		c.created = created
	}
	// Before it runs, so that no app is ever without a record of it. One that
	// is attended counts as running from here: if we are killed now it ends.
	if err := c.write(); err != nil {
		return err
	}
	if resctrl != nil {
		if err := resctrl.join(c.Pid); err != nil {
			return err
		}
	}
	if err := sendPidfd(o.PidfdSocket, "standard", created.Pidfd); err != nil {
		return err
	}
	return writePid(o.PidFile, c.Pid)
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

func loadBundle(bundle string) ([]byte, *specs.Spec, error) {
	// A pipe in its place would keep us for ever (the like of CVE-2024-9676).
	f, err := os.OpenFile(filepath.Join(bundle, configFile), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle: %w", err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("bundle: %w", errors.Join(err, fmt.Errorf("%s is not a regular file", f.Name())))
	}
	b, err := readAtMost(f, maxConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle: %w", err)
	}
	spec, err := decodeBundle(b)
	if err != nil {
		return nil, nil, err
	}
	if fi, err := os.Stat(rootfs(spec, bundle)); err != nil || !fi.IsDir() {
		if err == nil {
			err = errors.New("is not a directory")
		}
		return nil, nil, fmt.Errorf("root.path: %w", err)
	}
	return b, spec, nil
}

func decodeBundle(b []byte) (*specs.Spec, error) {
	var spec specs.Spec
	if err := jsonin.Unmarshal(b, &spec); err != nil {
		return nil, fmt.Errorf("bundle: read %s: %w", configFile, err)
	}
	switch {
	case spec.Version == "":
		return nil, errors.New("ociVersion: is missing")
	case !strings.HasPrefix(spec.Version, "1."):
		return nil, fmt.Errorf("ociVersion: %q is not a version this runtime knows (1.0 to %s)", spec.Version, specs.Version)
	case spec.Root == nil || spec.Root.Path == "":
		return nil, errors.New("root.path: is missing")
	}
	return &spec, nil
}

func rootfs(spec *specs.Spec, bundle string) string {
	if filepath.IsAbs(spec.Root.Path) {
		return spec.Root.Path
	}
	return filepath.Join(bundle, spec.Root.Path)
}

// cgroupPath is what the bundle asks for; empty leaves it to us.
func cgroupPath(spec *specs.Spec) string {
	if spec.Linux == nil {
		return ""
	}
	return spec.Linux.CgroupsPath
}

// sendConsole hands a terminal to who listens on a socket, as runc's
// docs/terminals.md describes for detached terminals.
func sendConsole(socket string, pty *os.File) error { return sendFile(socket, "/dev/ptmx", pty) }

// sendPidfd hands a process to who listens on a socket, with the word runc
// has for its kind.
func sendPidfd(socket, kind string, pidfd *os.File) error {
	if socket == "" {
		return nil
	}
	if err := sendFile(socket, kind, pidfd); err != nil {
		return fmt.Errorf("--pidfd-socket %s: %w", socket, err)
	}
	return nil
}

func sendFile(socket, text string, f *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Who listens and accepts nobody does not keep us.
	bound := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &bound); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return err
	}
	return unix.Sendmsg(fd, []byte(text), unix.UnixRights(int(f.Fd())), nil, unix.MSG_NOSIGNAL)
}

func writePid(name string, pid int) error {
	if name == "" {
		return nil
	}
	if err := launch.WritePidFile(name, pid); err != nil {
		return fmt.Errorf("--pid-file: %w", err)
	}
	return nil
}

// Begin starts the app (runtime.md, Start).
func (c *Container) Begin() error {
	spec, err := c.Spec()
	if err != nil {
		return fmt.Errorf("container %q: %w", c.ID, err)
	}
	err = c.begin(launch.AgentOf(spec, specs.State{ID: c.ID, Status: specs.StateCreated, Bundle: c.Bundle}))
	if errors.Is(err, launch.ErrNotHeld) {
		status, serr := c.Status()
		if serr != nil {
			return serr
		}
		return fmt.Errorf("container %q cannot be started: it is %s, not %s", c.ID, status, specs.StateCreated)
	}
	if err != nil {
		return err
	}
	if spec.Linux != nil {
		err = cgroups.Settle(cgroups.Existing(c.Cgroups), spec.Linux.Resources)
		if err == nil && cgroups.TightPids(spec.Linux.Resources) {
			err = c.tellUnit(spec.Linux.Resources)
		}
	}
	if err != nil {
		return err
	}
	return c.poststart()
}

// Launch is Begin as a command of its own: a container whose poststart hooks
// fail is stopped and deleted (runtime.md, Lifecycle, steps 9 and 12).
func (c *Container) Launch() error {
	err := c.Begin()
	if errors.As(err, new(poststartError)) {
		return errors.Join(err, c.Delete(true))
	}
	return err
}

// begin starts the process, whose filter may have an agent, where it waits: at
// its socket, or at ours.
func (c *Container) begin(agent *launch.Agent) error {
	if c.created != nil {
		return c.created.Begin(agent)
	}
	if agent == nil {
		return launch.Begin(c.dir, nil, nil, 0)
	}
	p, err := c.process()
	if err != nil {
		return err
	}
	if p == nil {
		return launch.ErrNotHeld
	}
	defer p.Close()
	return launch.Begin(c.dir, agent, p, c.Pid)
}

// Kill sends a signal to the container's process, or to all of its processes.
func (c *Container) Kill(sig unix.Signal, all bool) error {
	p, err := c.process()
	if err != nil {
		return err
	}
	if p != nil {
		defer p.Close()
	}
	if all {
		return c.killAll(sig)
	}
	if p == nil || ended(p) {
		return fmt.Errorf("container %q: %w", c.ID, ErrNotRunning)
	}
	return unix.PidfdSendSignal(int(p.Fd()), sig, nil, 0)
}

func (c *Container) killAll(sig unix.Signal) error {
	dirs := cgroups.Existing(c.Cgroups)
	if err := c.known(dirs); err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		return cgroups.KillAll(dirs)
	}
	pids, err := cgroups.Pids(dirs)
	if err != nil {
		return err
	}
	return signalAll(sig, pids, func() ([]int, error) { return cgroups.Pids(dirs) })
}

// signalAll signals processes that are in a group. A number that was read may
// be another's already: what is signalled was opened before it was found in the
// group once more.
func signalAll(sig unix.Signal, pids []int, again func() ([]int, error)) error {
	opened := map[int]int{}
	defer func() {
		for _, fd := range opened {
			_ = unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			opened[pid] = fd
		} else if err != unix.ESRCH {
			return fmt.Errorf("open process %d: %w", pid, err)
		}
	}
	still, err := again()
	if err != nil {
		return err
	}
	for _, pid := range still {
		fd, ok := opened[pid]
		if !ok {
			continue // born since
		}
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// Delete removes what is left of a container that has ended, or, with force,
// of any: it is killed first. One that waits to be started has done nothing
// yet and is deleted as it is.
func (c *Container) Delete(force bool) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status == specs.StateRunning || status == StatusPaused {
		if !force {
			return fmt.Errorf("container %q cannot be deleted: it is %s; stop it first, or use --force", c.ID, status)
		}
	}
	// All of it goes, wherever creating it was cut off.
	p, err := c.process()
	if err != nil {
		return err
	}
	if p != nil {
		defer p.Close()
	}
	return c.remove(p)
}

// remove removes everything. The process is nil if it has ended.
func (c *Container) remove(p *os.File) error {
	if p != nil {
		_ = unix.PidfdSendSignal(int(p.Fd()), unix.SIGKILL, nil, 0)
	}
	dirs := cgroups.Existing(c.Cgroups)
	if err := cgroups.KillAll(dirs); err != nil {
		return err
	}
	if p != nil {
		if err := waitEnd(p); err != nil {
			return err
		}
	}
	c.stopUnit()
	if err := cgroups.RemoveAll(dirs); err != nil {
		return err
	}
	if err := c.declassify(); err != nil {
		return err
	}
	spec, _ := c.Spec() // there is none if making it was cut off early
	if spec != nil && c.RootMount != 0 {
		if err := launch.Unmount(rootfs(spec, c.Bundle), c.RootMount); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(c.root.path(c.ID)); err != nil {
		return err
	}
	c.poststop(spec)
	return nil
}

// DeleteEnded deletes a container that was unlocked since it was opened and
// whose process was waited for, if nobody else has: its id may be another's by
// now.
func (c *Container) DeleteEnded() error {
	err := flock(c.dir, unix.LOCK_EX)
	if err == nil {
		err = c.stillThere()
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.remove(nil)
}

// patience bounds the wait for a killed process to end.
const patience = 10 * time.Second

func waitEnd(pidfd *os.File) error {
	polls := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for until := time.Now().Add(patience); ; {
		left := time.Until(until)
		if left <= 0 {
			return errors.New("its process does not end although it was killed: it may hang in the kernel (see its stack in /proc)")
		}
		n, err := unix.Poll(polls, int(left.Milliseconds())+1)
		if err == nil && n > 0 || err != nil && err != unix.EINTR {
			return err
		}
	}
}

// Pids returns the container's processes as the host numbers them.
func (c *Container) Pids() ([]int, error) {
	dirs := cgroups.Existing(c.Cgroups)
	if err := c.known(dirs); err != nil {
		return nil, err
	}
	return cgroups.Pids(dirs)
}

// known tells that the container of an ordinary user runs outside any group of
// its own: nobody can say which processes are its.
func (c *Container) known(dirs []string) error {
	if len(dirs) > 0 {
		return nil
	}
	if status, err := c.Status(); err != nil || status == specs.StateStopped {
		return err
	}
	return fmt.Errorf("container %q has no cgroup, so only its first process is known", c.ID)
}

// Freeze stops or continues all processes of the container.
func (c *Container) Freeze(on bool) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if want := map[bool]specs.ContainerState{true: specs.StateRunning, false: StatusPaused}[on]; status != want {
		return fmt.Errorf("container %q is %s, not %s", c.ID, status, want)
	}
	return cgroups.Freeze(cgroups.Existing(c.Cgroups), on)
}

func (c *Container) frozen() bool { return cgroups.Frozen(cgroups.Existing(c.Cgroups)) }

// ParseSignal reads a signal by name or number.
func ParseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMIN+"); ok || name == "SIGRTMIN" {
		if n, err := strconv.Atoi("0" + rest); err == nil && n <= 30 {
			return unix.Signal(34 + n), nil
		}
	}
	return 0, fmt.Errorf("signal %q is none", s)
}

// Wait passes signals on to the container's process, which must be a child of
// the caller, until it ends, and returns its status as shells do: 128 + n for
// signal n. A terminal of ours hears of its new size instead.
func (c *Container) Wait(signals *catch.Signals, terminal *Terminal) (int, error) {
	pidfd, err := unix.PidfdOpen(c.Pid, 0)
	if err != nil {
		return 0, fmt.Errorf("wait for process %d: %w", c.Pid, err)
	}
	defer unix.Close(pidfd)
	polls := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(signals.FD()), Events: unix.POLLIN}}
	for polls[0].Revents == 0 {
		if _, err := unix.Poll(polls, -1); err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("wait for process %d: %w", c.Pid, err)
		}
		for _, sig := range signals.Drain() {
			if sig == unix.SIGWINCH && terminal != nil {
				terminal.Resize() // its own job hears of it from the kernel
				continue
			}
			_ = unix.PidfdSendSignal(pidfd, sig, nil, 0) // it may just have ended
		}
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(c.Pid, &status, 0, nil); err != nil {
		return 0, fmt.Errorf("wait for process %d: %w", c.Pid, err)
	}
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// Rootfs is the absolute path of the container's root on the host.
func (c *Container) Rootfs() string {
	spec, err := c.Spec()
	if err != nil || spec.Root == nil {
		return ""
	}
	return rootfs(spec, c.Bundle)
}

// SpecVersion is the version of runtime-spec that is implemented.
var SpecVersion = specs.Version

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
