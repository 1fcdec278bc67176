// SPDX-License-Identifier: Apache-2.0

package child

import (
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// RebornArg is the argument of gantry-init that goes on behind a Reborn step.
const RebornArg = "reborn"

// reborn is a process of one thread: the kernel lets no other change its user
// or time namespace.
type reborn struct {
	born       // its pipe tells the pid of its child as well
	joins      []rebornJoin
	root       bool
	kinds      uintptr // of the namespaces its own child is born in
	nested     bool    // that child becomes gantry-init, not it itself
	donated    uintptr // descriptors from the plan's to before this one live on
	empty      *byte
	argv, envv []*byte
	maps       bool   // its child is in a new user namespace, and waits for its maps
	mapped     [2]int // pipe: they are written
	gate       [1]byte
}

type rebornJoin struct{ fd, kinds uintptr }

// What a reborn does, in its order. Joining namespace n is stage n.
const (
	becomeRoot = 1000 + iota
	makeNested
	keepDescriptors
	executeInit
	awaitMaps
	nestedPid // nothing failed: the number is a pid
)

// reborn makes the process that walks the steps behind this one, and ends
// this one when it does.
func (w *walk) reborn(s *stage1.Reborn) *stage1.StepError {
	a, err := w.prepareReborn(s)
	if err != nil {
		return failed("make process", "", err)
	}
	if errno := a.bear(); errno != 0 {
		return failed("make process", "", errno)
	}
	_ = unix.Close(a.report[1])
	// The parent collects it; an exec, or one with a child, does not become the app.
	last := w.plan.Steps[len(w.plan.Steps)-1]
	spent := a.nested || last.Exec != nil && last.Exec.Apart != nil
	if err := deliver(stage1.Message{Spent: spent, Child: !spent}, unix.UnixRights(int(a.pidfd))); err != nil {
		return failed("tell of the process", "", err)
	}
	if serr := w.followReborn(a, s); serr != nil {
		return serr
	}
	unix.Exit(0)
	return nil
}

func (w *walk) prepareReborn(s *stage1.Reborn) (*reborn, error) {
	a := &reborn{
		root: s.Root && len(s.UIDs) == 0, maps: len(s.UIDs) > 0, kinds: uintptr(s.Clone), nested: s.Clone != 0,
		donated: uintptr(stage1.InitSources + len(w.plan.Sources)),
	}
	for _, j := range s.Join {
		a.joins = append(a.joins, rebornJoin{uintptr(w.source(j.FD)), uintptr(j.Kinds)})
	}
	var err error
	if a.empty, err = unix.BytePtrFromString(""); err == nil {
		a.argv, err = syscall.SlicePtrFromStrings([]string{"gantry-init", RebornArg})
	}
	if err == nil {
		a.envv, err = syscall.SlicePtrFromStrings(syscall.Environ())
	}
	if err == nil {
		err = unix.Pipe2(a.report[:], unix.O_CLOEXEC)
	}
	if err == nil && a.maps {
		err = unix.Pipe2(a.mapped[:], unix.O_CLOEXEC)
	}
	return a, err
}

// followReborn reads how it fares until its execve closes the pipe.
func (w *walk) followReborn(a *reborn, s *stage1.Reborn) *stage1.StepError {
	for {
		said, ok, err := a.hear()
		if err != nil {
			return failed("hear from the process", "", err)
		}
		if !ok {
			return nil
		}
		if said.stage != nestedPid {
			return w.rebornError(s, said.stage, unix.Errno(said.errno))
		}
		// Nobody collects it before our parent knows it: the number is its own.
		pid := int(said.errno)
		fd, err := unix.PidfdOpen(pid, 0)
		if err == nil {
			err = deliver(stage1.Message{Child: true}, unix.UnixRights(fd))
			_ = unix.Close(fd)
		}
		if err != nil {
			return failed("tell of the process", "", err)
		}
		if a.maps {
			if serr := w.mapUsers(a, s, pid); serr != nil {
				return serr
			}
		}
	}
}

// mapUsers writes the maps of a process in a new user namespace, which waits for
// it: who is in one may map nobody but themselves.
func (w *walk) mapUsers(a *reborn, s *stage1.Reborn, pid int) *stage1.StepError {
	for _, m := range []struct {
		file string
		maps []stage1.IDMap
	}{{"uid_map", s.UIDs}, {"gid_map", s.GIDs}} {
		var text strings.Builder
		for _, id := range m.maps {
			text.WriteString(itoa(int(id.Container)) + " " + itoa(int(id.Host)) + " " + itoa(int(id.Size)) + "\n")
		}
		if serr := w.writeProc("map ids of the user namespace", itoa(pid)+"/"+m.file, text.String()); serr != nil {
			return serr
		}
	}
	_, err := unix.Write(a.mapped[1], a.gate[:])
	return failed("map ids of the user namespace", "", err)
}

func (w *walk) rebornError(s *stage1.Reborn, stage uint32, errno unix.Errno) *stage1.StepError {
	switch stage {
	case becomeRoot:
		return failed("become root of the user namespace", "", errno)
	case awaitMaps:
		return failed("wait for the maps of the user namespace", "", errno)
	case makeNested:
		return failed("make namespaces", "", errno)
	case keepDescriptors:
		return failed("pass descriptors on", "", errno)
	case executeInit:
		return failed("execute gantry-init again", "", errno)
	}
	source := w.plan.Sources[s.Join[stage].FD]
	if source.Kind == stage1.SourcePidfd {
		return failed("join namespaces of "+source.For, "", errno)
	}
	return failed("join "+source.Namespace+" namespace", source.Path, errno)
}

// bear makes the process, a child of our parent.
//
//go:nosplit
//go:norace
func (a *reborn) bear() unix.Errno {
	pid, errno := a.clone(unix.CLONE_PARENT)
	if errno == 0 && pid == 0 {
		a.live()
	}
	return errno
}

// live is the life of the process, and of its child. It does not return.
//
//go:nosplit
//go:norace
func (a *reborn) live() {
	errno := a.enter()
	if errno == 0 && a.nested {
		errno = a.nest()
	}
	if errno == 0 && a.maps {
		errno = a.await()
	}
	if errno == 0 {
		errno = a.become()
	}
	a.tell(uint32(errno))
	a.end(1)
}

// enter joins, and becomes root of the user namespace: the execve to come
// would take the capabilities there from anybody else.
//
//go:nosplit
//go:norace
func (a *reborn) enter() unix.Errno {
	for i := range a.joins {
		a.failure.stage = uint32(i)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETNS, a.joins[i].fd, a.joins[i].kinds, 0); errno != 0 {
			return errno
		}
	}
	if !a.root {
		return 0
	}
	return a.toRoot()
}

//go:nosplit
//go:norace
func (a *reborn) toRoot() unix.Errno {
	a.failure.stage = becomeRoot
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); errno != 0 {
		return errno
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0)
	return errno
}

// nest makes the child in new namespaces: only now they belong to the user
// namespace, and a pid namespace is not that of who makes it. In the child it
// returns, the process ends.
//
//go:nosplit
//go:norace
func (a *reborn) nest() unix.Errno {
	a.failure.stage = makeNested
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_PARENT|uintptr(unix.SIGCHLD)|a.kinds, 0, 0, 0, 0, 0)
	if errno != 0 || pid == 0 {
		return errno
	}
	a.failure.stage = nestedPid
	a.tell(uint32(pid))
	a.end(0)
	return 0
}

// await waits until the ids of its new user namespace are mapped. Who maps them
// may end: its end of the pipe must be the only one.
//
//go:nosplit
//go:norace
func (a *reborn) await() unix.Errno {
	a.failure.stage = awaitMaps
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(a.mapped[1]), 0, 0)
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(a.mapped[0]), uintptr(unsafe.Pointer(&a.gate)), 1)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return errno
		case n == 0:
			return unix.EPIPE
		}
		return a.toRoot()
	}
}

// become executes gantry-init through its own descriptor, with those that
// were donated.
//
//go:nosplit
//go:norace
func (a *reborn) become() unix.Errno {
	a.failure.stage = keepDescriptors
	for fd := uintptr(stage1.InitPlan); fd < a.donated; fd++ {
		if _, _, errno := unix.RawSyscall(unix.SYS_FCNTL, fd, unix.F_SETFD, 0); errno != 0 {
			return errno
		}
	}
	a.unblock()
	a.failure.stage = executeInit
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, stage1.InitSelf, uintptr(unsafe.Pointer(a.empty)),
		uintptr(unsafe.Pointer(&a.argv[0])), uintptr(unsafe.Pointer(&a.envv[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}
