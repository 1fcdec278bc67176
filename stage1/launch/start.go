// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/seccomp"
	"github.com/gantryrun/gantry/stage1"
)

// Start makes everything a launch needs, clones gantry-init into it and waits
// until the app's execve succeeded. It must be called on the main thread,
// locked: Supervise execs there, and the app dies with that thread. On error
// nothing is left. From the clone on signals are kept for the app:
// Supervise hands them to the supervisor.
func Start(ctx context.Context, r Request) (_ *Started, err error) {
	var all, childs hold
	defer all.Run()
	defer childs.Run()
	s := &Started{libexec: r.Libexec}
	if s.signals, err = watch(); err != nil {
		return nil, err
	}
	all.Push(s.signals.giveBack)

	b, group, err := prepare(ctx, &all, &r)
	if err != nil {
		return nil, err
	}
	io, err := openStdio(&all, &childs, &r)
	if err != nil {
		return nil, err
	}
	b.stdio = io.child
	if r.leavesOrphans(group) {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("become the reaper of what the app leaves: %w", err)
		}
	}
	if s.signals.interrupted() || ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), ErrInterrupted)
	}
	pid, pidfd, sync, err := b.clone()
	if pid > 0 {
		all.Push(func() { reap(pid) })
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(sync.fd)
	s.Pid, s.Pidfd = pid, pidfd
	all.Push(func() { _ = pidfd.Close() })
	childs.Run()

	// What follows is done while gantry-init mounts.
	net := r.attach(ctx, &all, pid)
	if err := s.describe(&all, &r, io, group); err != nil {
		return nil, err
	}
	handover, err := AgentOf(r.Spec, specs.State{ID: r.ID, Status: specs.StateCreating, Bundle: r.Bundle}).reach(pidfd, pid)
	if err != nil {
		return nil, err
	}
	defer handover.close()
	got, err := sync.waitAttached(s.signals, handover, net)
	if err == nil {
		err = sync.runtimeHooks(s.signals, handover, r.Hooks, pid, &got)
	}
	if got.pty != nil {
		s.Pty, _ = all.file(got.pty, nil)
	}
	if err != nil {
		return nil, err
	}
	s.keep(net)
	if r.Lender != nil {
		s.contract.Lender, s.contract.Lent = s.inheritFile(r.Lender.App), r.Lender.Links
	}
	if r.Hooks != nil {
		if err := r.Hooks.Started(pid); err != nil {
			return nil, err
		}
	}
	if err := s.leavePoststop(&r); err != nil {
		return nil, err
	}
	if err := group.Settle(); err != nil {
		return nil, err
	}
	if r.Ready != nil {
		if err := r.Ready(); err != nil {
			return nil, err
		}
	}
	s.finishStart(&all)
	return s, nil
}

// prepare plans, makes the cgroup and opens everything, one after the other:
// each takes less than it costs to hand it to another thread and back, this
// one being locked.
func prepare(ctx context.Context, all *hold, r *Request) (*birth, *cgroups.Group, error) {
	// A child is found by its number there: somebody else's namespaces would be
	// worked on.
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return nil, nil, foreignProc{}
	}
	layout, err := HostCgroups()
	if err != nil {
		return nil, nil, err
	}
	plan, err := Plan(r.Spec, r.planOptions(layout))
	if err != nil {
		return nil, nil, err
	}
	b := &birth{plan: plan}
	if err := b.open(all, r); err != nil {
		return nil, nil, err
	}
	if err := b.devicesBefore(all, r); err != nil {
		return nil, nil, err
	}
	b.filter, err = seccomp.Filter(ctx, r.Spec.Linux.Seccomp, r.Libexec, filepath.Join(r.RunDir, "seccomp"))
	if err != nil {
		return nil, nil, err
	}
	group, err := cgroups.Create(cgroups.Options{
		Name: "gantry-" + r.ID, Path: r.CgroupPath, Resources: r.Spec.Linux.Resources, Strict: r.CgroupStrict, Note: r.Notes,
		Make: r.CgroupMake, None: r.CgroupNone,
		NoDevices: r.Userns != nil, // mknod is of the host's root alone
		Record:    func(dirs []string) error { return recordRuntime(r, dirs) },
	})
	if err != nil && mayLackCgroup(r, err) {
		r.Notes(fmt.Sprintf("running without a cgroup, and so without linux.resources: %v", err))
		group, err = cgroups.None()
	}
	if err != nil {
		return nil, nil, err
	}
	all.Push(func() { _ = group.Delete() })
	if r.CgroupMade != nil && len(group.Dirs()) > 0 {
		if err := r.CgroupMade(); err != nil {
			return nil, nil, fmt.Errorf("record cgroup: %w", err)
		}
	}
	b.cgroup, b.enter = group.CloneFD(), group.Enter
	b.adoptBy(r.Adopt)
	if !group.Confined() {
		withoutMknod(&b.plan)
	}
	return b, group, nil
}

func (b *birth) open(all *hold, r *Request) (err error) {
	if b.init, err = all.file(openInit(r.Libexec)); err != nil {
		return err
	}
	given := map[string]*os.File{stage1.SourceTree: r.Root.Lower, stage1.SourceStart: r.Hold}
	for target, g := range r.Given {
		given[givenMount(target)] = g.Mount
	}
	b.sources, err = openSources(all, b.plan, given)
	if err != nil {
		return err
	}
	return b.shareMounts(all, r)
}

// recordRuntime writes what destroying the pod needs, before any of it is made.
func recordRuntime(r *Request, cgroups []string) error {
	if r.Record != nil {
		return r.Record(cgroups)
	}
	if r.PodDir == "" {
		return nil
	}
	return writeJSON(r.PodDir, stage1.RuntimeFile, stage1.Runtime{
		Version: stage1.RuntimeVersion, Supervisor: os.Getpid(), Cgroups: cgroups,
		NameLink: r.NameLink, Remove: r.Remove,
	})
}

// leavesOrphans tells whether what the app leaves would be nobody's: it has no
// pid namespace, with which it would end, and no group to be killed by.
func (r *Request) leavesOrphans(group *cgroups.Group) bool {
	return !r.Outlive && !owns(r.Spec, specs.PIDNamespace) && len(group.Dirs()) == 0
}

// describe records the process and fills the supervisor's contract.
func (s *Started) describe(all *hold, r *Request, io *stdio, group *cgroups.Group) error {
	start, err := startTime(s.Pid)
	if err != nil {
		return fmt.Errorf("identify process %d: %w", s.Pid, err)
	}
	boot, err := bootID()
	if err != nil {
		return fmt.Errorf("read boot id: %w", err)
	}
	s.contract = stage1.Contract{
		Version: stage1.SupervisorVersion, ID: r.ID, App: r.App,
		Pid: s.Pid, Start: start, Boot: boot, Started: time.Now().UnixNano(),
		Pods: -1, Lock: -1, Control: -1, Pty: -1, Stdin: -1,
		NameLink: r.NameLink, Unlink: r.Unlink, PidFile: r.PidFile, Remove: r.Remove,
		Raw: r.Terminal && r.Stdin && !r.Detached, Echo: !r.Detached,
		StopSignal: signalNumber(r.StopSignal), StopTimeout: int64(r.StopTimeout), Timeout: int64(r.Timeout),
		Probe: r.Probe, ProbeEvery: int64(r.ProbeEvery),
		Stdout: s.inheritFile(io.stdout), Stderr: s.inheritFile(io.stderr),
		LogFile: s.inheritFile(io.logFile), LogDir: s.inheritFile(io.logDir), Journal: s.inheritFile(io.journal), Log: r.Log, Pidfd: s.inheritFile(s.Pidfd),
	}
	if group != nil {
		s.contract.Cgroups, s.contract.Orphans = group.Dirs(), r.leavesOrphans(group)
	}
	if r.PidFile != "" {
		if err := WritePidFile(r.PidFile, s.Pid); err != nil {
			return fmt.Errorf("write pid file: %w", err)
		}
		all.Push(func() { _ = os.Remove(r.PidFile) })
	}
	if r.PodDir == "" {
		return nil
	}
	return s.describePod(all, r)
}

// WritePidFile puts a file with a process's number in place by rename: readers never see half of it,
// and a link that somebody planted under its name is replaced, not followed.
func WritePidFile(name string, pid int) error {
	dir, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return atomicfile.Write(dir, filepath.Base(name), []byte(strconv.Itoa(pid)), 0o644)
}

// describePod adds what only a pod has: its place, lock, status and control
// socket.
func (s *Started) describePod(all *hold, r *Request) error {
	c := &s.contract
	phase := filepath.Dir(r.PodDir)
	pods, err := all.file(os.OpenFile(filepath.Dir(phase), unix.O_PATH|unix.O_DIRECTORY, 0))
	if err != nil {
		return err
	}
	c.Phase, c.Pods, c.Lock = filepath.Base(phase), s.inheritFile(pods), s.inheritFile(r.Lock)
	control, err := all.file(listen(r.PodDir, stage1.ControlFile, unix.SOCK_NONBLOCK))
	if err != nil {
		return err
	}
	c.Control = s.inheritFile(control)
	return writeJSON(r.appDir(), stage1.StatusFile, stage1.Status{
		Version: stage1.StatusVersion, Pid: c.Pid, Start: c.Start, Boot: c.Boot, Started: c.Started,
	})
}

// inheritFile notes a file for the supervisor and returns its number, -1 for
// none.
func (s *Started) inheritFile(f *os.File) int {
	if f == nil {
		return -1
	}
	s.inherit = append(s.inherit, f)
	return int(f.Fd())
}

// finishStart moves what the launch holds to s, for Supervise or Release.
func (s *Started) finishStart(all *hold) {
	s.contract.Pty = s.inheritFile(s.Pty)
	taken := all.Stack
	s.back = taken.Run
	all.Release()
}

// Release takes everything back after a Start that is not followed by a
// supervisor: the app is killed.
func (s *Started) Release() {
	s.back()
}

// reap kills a process that is our child and collects it.
func reap(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}
