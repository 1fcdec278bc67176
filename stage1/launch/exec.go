// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/seccomp"
	"github.com/gantryrun/gantry/stage1"
)

// ErrNotRunning means that the app to be entered has ended.
var ErrNotRunning = errors.New("app is not running")

// ExecRequest is one process more in the sandbox of a running app.
type ExecRequest struct {
	ID      string         // of the pod, for messages and ps
	Bundle  string         // of the app, for its seccomp agent
	Spec    *specs.Spec    // the app's: what it is allowed
	Process *specs.Process // what to run; privileges and limits are the app's
	Status  stage1.Status  // of the app
	Cgroups []string       // of the app, as recorded

	Adopt func(pid int) error `json:"-"` // puts gantry-init into its group where we may not; nil: there is nobody who could
	Below map[string]string   // groups below those, by v1 controller or by "": where it goes instead

	Libexec, RunDir string
	Userns          *Userns // ours, if it is not the host's

	Given   bool // Process says itself what it may, not the app; its end is told as shells do
	Outlive bool // it does not die with its parent

	Detached bool
	Terminal bool
	Stdin    bool
	Preserve int // so many descriptors of ours, from FirstPreserved on, are its too
	PidFile  string
	Ready    func() error `json:"-"`
}

// ExecPlan orders the steps that put a process into a running app: its
// namespaces, then exactly its limits, labels, capabilities and filter. Only
// what Process says about command, environment, user, directory and terminal
// differs, unless it is Given: then only the filter is the app's. It reads
// nothing.
func ExecPlan(spec *specs.Spec, process *specs.Process, o PlanOptions) (stage1.Plan, error) {
	inside := *spec
	inside.Process = process
	if !o.Given {
		inside.Process = confined(spec.Process, process)
	}
	if err := supported(&inside, true); err != nil {
		return stage1.Plan{}, err
	}
	p := &planner{spec: &inside, linux: spec.Linux, o: o}
	p.plan.Version = stage1.PlanVersion
	p.preserve()
	var kinds, pid uint64
	for i, ns := range spec.Linux.Namespaces {
		kind, err := namespaceKind(fmt.Sprintf("linux.namespaces[%d]", i), ns.Type)
		if err != nil {
			return stage1.Plan{}, err
		}
		if ns.Type == specs.PIDNamespace {
			pid = kind
		} else {
			kinds |= kind
		}
	}
	fd := p.source(stage1.Source{Kind: stage1.SourcePidfd, For: "the app"})
	if err := p.userns(); err != nil {
		return stage1.Plan{}, err
	}
	p.plan.UIDs, p.plan.GIDs = nil, nil // they are written
	if kinds&aloneKinds != 0 {
		// All at once: the right to join one may be the host's. Mounts later:
		// nothing is executed in the app's root before it is the app.
		p.add(stage1.Step{Reborn: &stage1.Reborn{
			Join: []stage1.Join{{FD: fd, Kinds: kinds &^ unix.CLONE_NEWNS}}, Root: p.plan.Userns,
		}})
		kinds &= unix.CLONE_NEWNS
	}
	if kinds != 0 {
		p.add(stage1.Step{Join: &stage1.Join{FD: fd, Kinds: kinds}})
	}
	if p.shared() {
		root := p.source(stage1.Source{Kind: stage1.SourceRoot, For: "the app"})
		p.add(stage1.Step{Chroot: &stage1.Chroot{FD: root, Donated: true}})
	}
	// Nothing with more than the app's privileges, and nothing of the host,
	// may ever be seen in the app's pid namespace (CVE-2016-9962): gantry-init
	// stays outside, and a copy of it that has given up everything goes in.
	p.apart = &stage1.Apart{Terminal: o.Terminal}
	if pid != 0 {
		p.enter = &stage1.Step{Join: &stage1.Join{FD: fd, Kinds: pid}}
	}
	if o.Terminal {
		p.add(stage1.Step{Terminal: &stage1.Terminal{
			Rows: o.Rows, Columns: o.Columns, UID: inside.Process.User.UID, Apart: true,
		}})
	}
	if err := p.process(); err != nil {
		return stage1.Plan{}, err
	}
	return p.plan, nil
}

// confined gives a process the privileges of the app and no other
// (CVE-2019-10144, 10145, 10147).
func confined(app, process *specs.Process) *specs.Process {
	c := *process
	c.Rlimits = app.Rlimits
	c.NoNewPrivileges = app.NoNewPrivileges
	c.ApparmorProfile = app.ApparmorProfile
	c.SelinuxLabel = app.SelinuxLabel
	c.OOMScoreAdj = app.OOMScoreAdj
	c.Scheduler, c.IOPriority = app.Scheduler, app.IOPriority
	c.Capabilities = capsFor(app, process.User.UID)
	if c.User.Umask == nil {
		c.User.Umask = app.User.Umask
	}
	return &c
}

// capsFor keeps the app's bounding set for another user. Root gets what root
// would have had in the app, anybody else what the app passes on: nothing but
// its ambient set, and that only to the app's own user.
func capsFor(app *specs.Process, uid uint32) *specs.LinuxCapabilities {
	if app.Capabilities == nil {
		return nil
	}
	if uid == app.User.UID {
		return app.Capabilities
	}
	caps := &specs.LinuxCapabilities{Bounding: app.Capabilities.Bounding}
	if uid == 0 {
		caps.Effective, caps.Permitted = caps.Bounding, caps.Bounding
	}
	return caps
}

// Exec enters a running app. Like Start it wants the locked main thread, and
// is followed by Supervise or Release; a process that Outlives us may be left.
func Exec(ctx context.Context, r ExecRequest) (_ *Started, err error) {
	var all, childs hold
	defer all.Run()
	defer childs.Run()
	s := &Started{libexec: r.Libexec}
	if s.signals, err = watch(); err != nil {
		return nil, err
	}
	all.Push(s.signals.giveBack)

	target, err := all.file(openApp(r.Status))
	if err != nil {
		return nil, err
	}
	b, err := r.prepare(ctx, &all, target)
	if err != nil {
		return nil, err
	}
	launch := Request{
		ID: r.ID, Spec: &specs.Spec{Process: r.Process}, Terminal: r.Terminal, Stdin: r.Stdin,
		Detached: r.Detached, PidFile: r.PidFile, Log: stage1.Log{Driver: stage1.LogPassthrough},
	}
	if r.Detached {
		launch.Log.Driver = stage1.LogNone
	}
	io, err := openStdio(&all, &childs, &launch)
	if err != nil {
		return nil, err
	}
	b.stdio = io.child
	if s.signals.interrupted() || ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), ErrInterrupted)
	}
	pid, pidfd, sync, err := b.clone()
	if pid > 0 {
		defer reap(pid) // by then it has nothing left to do
	}
	if err != nil {
		return nil, err
	}
	defer pidfd.Close()
	defer unix.Close(sync.fd)
	childs.Run()
	handover, err := r.handover(b.plan, pidfd, pid)
	if err != nil {
		return nil, err
	}
	defer handover.close()
	if err := s.follow(&all, sync, handover); err != nil {
		// Who sweeps up after the app swept gantry-init too. Namespaces that are
		// nobody's any more go before a process that waits for those it had.
		if s.Pid == 0 && (hasEnded(target) || errors.Is(err, unix.ESRCH)) {
			return nil, ErrNotRunning
		}
		return nil, err
	}
	if err := s.describe(&all, &launch, io, nil); err != nil {
		return nil, err
	}
	s.contract.NoSignal = r.Given
	if r.Ready != nil {
		if err := r.Ready(); err != nil {
			return nil, err
		}
	}
	s.finishStart(&all)
	return s, nil
}

// execTasks is what gantry-init and the process it makes take of a pod's limit
// before they are the command: a program of several threads that cannot start
// one dies of it, with a long story.
const execTasks = 6

// follow waits for the execve, and takes over the process that gantry-init
// made beside itself.
func (s *Started) follow(all *hold, sync syncSocket, h *handover) (err error) {
	got, err := sync.wait(s.signals, h)
	defer func() { err = errors.Join(err, got.collect()) }()
	for _, f := range []*os.File{got.pty, got.child} {
		if f != nil {
			all.Push(func() { _ = f.Close() })
		}
	}
	if got.child != nil {
		pid, perr := childOf(got.child)
		if perr != nil {
			return errors.Join(err, perr)
		}
		all.Push(func() { reap(pid) })
		s.Pid, s.Pidfd = pid, got.child
	}
	if err == nil && got.child == nil {
		err = errors.New("gantry-init ended before it made a process")
	}
	s.Pty = got.pty
	return err
}

// childOf gives the pid of a process that must be a child of ours: who holds
// the other end of the socket might be somebody in the pod who may trace.
func childOf(pidfd *os.File) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd.Fd()))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "\nPid:\t")
	value, _, _ := strings.Cut(rest, "\n")
	pid, err := strconv.Atoi(value)
	if err != nil || pid <= 0 {
		return 0, errors.New("gantry-init sent no process")
	}
	const look = unix.WEXITED | unix.WNOHANG | unix.WNOWAIT
	if err := unix.Waitid(unix.P_PIDFD, int(pidfd.Fd()), nil, look, nil); err != nil {
		return 0, fmt.Errorf("gantry-init sent a process that is not ours: %w", err)
	}
	return pid, nil
}

func (r *ExecRequest) prepare(ctx context.Context, all *hold, target *os.File) (*birth, error) {
	o := PlanOptions{Terminal: r.Terminal, Outlive: r.Outlive, Given: r.Given, Preserve: r.Preserve, Userns: r.Userns}
	if r.Terminal {
		o.Rows, o.Columns = terminalSize(r.Process.ConsoleSize)
	}
	plan, err := ExecPlan(r.Spec, r.Process, o)
	if err != nil {
		return nil, err
	}
	if may, err := mayMknod(r.Status.Pid); err != nil || !may {
		withoutMknod(&plan)
	}
	if err := withFileLimit(&plan, r.Status.Pid); err != nil {
		return nil, err
	}
	made, err := r.groups()
	if err != nil {
		return nil, err
	}
	if free := cgroups.FreeTasks(made); free >= 0 && free < execTasks {
		return nil, fmt.Errorf("start gantry-init: it needs room for %d tasks and the pod has room for %d: %w", execTasks, free, unix.EAGAIN)
	}
	b := &birth{plan: plan, enter: func() (func() error, error) { return cgroups.Enter(made) }}
	if a := r.Process.ExecCPUAffinity; r.Given && a != nil {
		if b.initial, err = cpuList("process.execCPUAffinity.initial", a.Initial); err != nil {
			return nil, err
		}
	}
	b.filter, err = seccomp.Filter(ctx, r.Spec.Linux.Seccomp, r.Libexec, filepath.Join(r.RunDir, "seccomp"))
	if err != nil {
		return nil, err
	}
	if b.cgroup, err = openUnified(all, made); err != nil {
		return nil, err
	}
	b.adoptBy(r.Adopt)
	if len(r.Below) == 0 {
		b.busy = func() (*os.File, error) { return r.beside(all) }
	}
	if b.init, err = all.file(openInit(r.Libexec)); err != nil {
		return nil, err
	}
	given := map[string]*os.File{stage1.SourcePidfd: target}
	if slices.ContainsFunc(plan.Steps, func(s stage1.Step) bool { return s.Chroot != nil }) {
		if given[stage1.SourceRoot], err = all.file(openRootOf(target, r.Status.Pid)); err != nil {
			return nil, err
		}
	}
	b.sources, err = openSources(all, plan, given)
	return b, err
}

// groups are the directories the command is born in.
func (r *ExecRequest) groups() ([]string, error) {
	made := cgroups.Existing(r.Cgroups)
	if len(r.Below) == 0 {
		return made, nil
	}
	made, err := cgroups.Below(made, r.Below)
	if err != nil {
		return nil, fmt.Errorf("--cgroup: %w", err)
	}
	return made, nil
}

// beside opens the group of the app's first process: where the app has made
// groups with controllers below its own, nobody can be in that one any more.
func (r *ExecRequest) beside(all *hold) (*os.File, error) {
	dir, err := cgroups.Within(cgroups.Existing(r.Cgroups), r.Status.Pid)
	if err != nil {
		return nil, err
	}
	return all.file(os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0))
}

// withFileLimit gives an exec the app's limit of open files where the bundle
// has none. The Go runtime raises that limit for itself, and lowers it again
// only in an execve of its own.
func withFileLimit(plan *stage1.Plan, pid int) error {
	for _, s := range plan.Steps {
		if s.Rlimit != nil && s.Rlimit.Type == unix.RLIMIT_NOFILE {
			return nil
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return ErrNotRunning
	}
	_, rest, _ := strings.Cut(string(b), "\nMax open files ")
	fields := strings.Fields(rest)
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		return fmt.Errorf("read limit of open files: %w", err)
	}
	limit := stage1.Rlimit{Name: "RLIMIT_NOFILE", Type: unix.RLIMIT_NOFILE}
	for i, to := range []*uint64{&limit.Soft, &limit.Hard} {
		if len(fields) < 2 {
			return fmt.Errorf("read limits of process %d: no open files", pid)
		}
		// More than we may ourselves cannot be given.
		if *to, err = strconv.ParseUint(fields[i], 10, 64); err != nil {
			*to = own.Max
		}
		*to = min(*to, own.Max)
	}
	at := slices.IndexFunc(plan.Steps, func(s stage1.Step) bool { return s.Umask != nil })
	plan.Steps = slices.Insert(plan.Steps, max(at, 0), stage1.Step{Rlimit: &limit})
	return nil
}

// openApp opens the process of a status.
func openApp(st stage1.Status) (*os.File, error) {
	if st.Exit != nil {
		return nil, ErrNotRunning
	}
	return OpenProcess(st.Pid, st.Start, st.Boot)
}

// OpenProcess opens a process by its recorded identity and makes sure that it
// still is that one; else ErrNotRunning.
func OpenProcess(pid int, start uint64, boot string) (*os.File, error) {
	now, err := bootID()
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	if pid <= 0 || boot != now {
		return nil, ErrNotRunning
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, ErrNotRunning
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// The descriptor came first: if the start time is right now, it was then.
	if found, err := startTime(pid); err != nil || found != start {
		_ = f.Close()
		return nil, ErrNotRunning
	}
	return f, nil
}

// openRootOf opens the root directory of a process.
func openRootOf(pidfd *os.File, pid int) (*os.File, error) {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if hasEnded(pidfd) { // else the number was still its own
		_ = f.Close()
		return nil, ErrNotRunning
	}
	return f, err
}

// hasEnded tells whether the process of a pidfd has.
func hasEnded(pidfd *os.File) bool {
	polls := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(polls, 0)
	return err == nil && n > 0
}

// openUnified opens the one of the recorded directories a process can be
// cloned into; nil if there is none.
func openUnified(all *hold, dirs []string) (*os.File, error) {
	for _, dir := range dirs {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			return nil, fmt.Errorf("open cgroup %s: %w", dir, err)
		}
		if fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return all.file(os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0))
		}
	}
	return nil, nil
}
