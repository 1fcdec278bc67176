// SPDX-License-Identifier: Apache-2.0

package child

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// apart is a process made beside this one that becomes the app.
type apart struct {
	born
	path       *byte
	argv, envv []*byte
	filter     *unix.SockFprog // nil: loaded already, or none
	flags      uintptr         // of the filter
	listen     bool            // hand over its listener
	death      uintptr         // signal, 0 for none
	scheduler  *unix.SchedAttr // nil: inherited
	keep       []move          // preserved descriptors
	terminal   bool
	listener   listener
	parent     unix.PollFd
	now        unix.Timespec
}

// move is a descriptor and the number it gets.
type move struct{ from, to uintptr }

// What an apart does, in its order.
const (
	leadSession = iota
	takeControl
	askDeath
	schedule
	passFiles
	loadFilter
	handListener
	executing
)

func stageName(stage uint32) string {
	return [executing]string{
		"make session", "make controlling terminal", "set death signal", "set scheduler", "preserve descriptors",
		"load seccomp filter", "hand over the listener of the seccomp filter",
	}[stage]
}

// execApart makes the process that becomes the app and ends this one when it
// has. The pidfd goes up first: our parent, which is its parent too, follows
// it whatever becomes of us.
func (w *walk) execApart(path string, e *stage1.Exec) *stage1.StepError {
	a, serr := w.apart(path, e)
	if serr != nil {
		return serr
	}
	if errno := a.bear(); errno != 0 {
		return failed("make process", "", errno)
	}
	_ = unix.Close(a.report[1])
	if err := deliver(stage1.Message{Child: true}, unix.UnixRights(int(a.pidfd))); err != nil {
		return failed("tell of the process", "", err)
	}
	if serr := a.outcome(path); serr != nil {
		return serr
	}
	unix.Exit(0)
	return nil
}

func (w *walk) apart(path string, e *stage1.Exec) (*apart, *stage1.StepError) {
	a := &apart{
		terminal: e.Apart.Terminal,
		parent:   unix.PollFd{Fd: stage1.InitSync}, listener: listener{sync: stage1.InitSync},
	}
	var err error
	if a.path, err = unix.BytePtrFromString(path); err == nil {
		a.argv, err = syscall.SlicePtrFromStrings(e.Args)
	}
	if err == nil {
		a.envv, err = syscall.SlicePtrFromStrings(e.Env)
	}
	if err == nil {
		err = unix.Pipe2(a.report[:], unix.O_CLOEXEC)
	}
	if err == nil {
		err = w.keepIn(a)
	}
	if err != nil {
		return nil, failed("make process", "", err)
	}
	if e.Apart.DeathSig != nil {
		a.death = uintptr(e.Apart.DeathSig.Signal)
	}
	if e.Apart.Scheduler != nil {
		attr := schedAttr(e.Apart.Scheduler)
		a.scheduler = &attr
	}
	if e.Apart.Seccomp != nil {
		prog, serr := w.program()
		if serr != nil {
			return nil, serr
		}
		a.filter, a.flags, a.listen = prog, uintptr(e.Apart.Seccomp.Flags), e.Apart.Seccomp.Listen
	}
	return a, nil
}

// keepIn has the process place preserved descriptors as place does, where
// the end of the pipe and the socket it reports on may not be in their way.
func (w *walk) keepIn(a *apart) error {
	for i, s := range w.plan.Sources {
		if s.Kind != stage1.SourcePreserved {
			break
		}
		a.keep = append(a.keep, move{uintptr(w.source(i)), uintptr(s.Number)})
	}
	if len(a.keep) == 0 {
		return nil
	}
	up, err := unix.FcntlInt(uintptr(a.report[1]), unix.F_DUPFD_CLOEXEC, stage1.InitSources+len(w.plan.Sources))
	if err != nil {
		return err
	}
	_ = unix.Close(a.report[1])
	a.report[1] = up
	sync, err := unix.FcntlInt(stage1.InitSync, unix.F_DUPFD_CLOEXEC, stage1.InitSources+len(w.plan.Sources))
	a.listener.sync = uintptr(sync)
	return err
}

// outcome is how the process fared.
func (a *apart) outcome(path string) *stage1.StepError {
	switch said, ok, err := a.hear(); {
	case err != nil:
		return failed("hear from the process", "", err)
	case !ok:
		return nil
	case said.stage < executing:
		return failed(stageName(said.stage), "", unix.Errno(said.errno))
	default:
		return execError(path, unix.Errno(said.errno))
	}
}

// bear makes the process. As a child of our parent it is waited for, and dies,
// as if it were this one.
//
//go:nosplit
//go:norace
func (a *apart) bear() unix.Errno {
	pid, errno := a.clone(unix.CLONE_PARENT)
	if errno == 0 && pid == 0 {
		a.live()
	}
	return errno
}

// live is the life of the process. It does not return.
//
//go:nosplit
//go:norace
func (a *apart) live() {
	errno := a.settle()
	if errno == 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(a.path)),
			uintptr(unsafe.Pointer(&a.argv[0])), uintptr(unsafe.Pointer(&a.envv[0])))
	}
	a.tell(uint32(errno))
	a.end(notExecutable)
}

// settle does what only the process itself can.
//
//go:nosplit
//go:norace
func (a *apart) settle() unix.Errno {
	a.failure.stage = leadSession
	if _, _, errno := unix.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
		return errno
	}
	a.failure.stage = takeControl
	if a.terminal {
		if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0); errno != 0 {
			return errno
		}
	}
	a.failure.stage = askDeath
	if a.death != 0 {
		if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, a.death, 0, 0, 0, 0); errno != 0 {
			return errno
		}
		// A parent that died before that closed the other end of the socket.
		n, _, _ := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&a.parent)), 1,
			uintptr(unsafe.Pointer(&a.now)), 0, 0, 0)
		if n == 1 && a.parent.Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
			return unix.ESRCH
		}
	}
	a.failure.stage = schedule
	if a.scheduler != nil {
		if _, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(a.scheduler)), 0); errno != 0 {
			return errno
		}
	}
	a.open = 0 // see unblockSignals
	a.unblock()
	a.failure.stage = passFiles
	for i := range a.keep {
		if _, _, errno := unix.RawSyscall(unix.SYS_DUP3, a.keep[i].from, a.keep[i].to, 0); errno != 0 {
			return errno
		}
	}
	a.failure.stage = loadFilter
	if a.filter != nil {
		fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, a.flags, uintptr(unsafe.Pointer(a.filter)))
		if errno != 0 {
			return errno
		}
		a.failure.stage = handListener
		if a.listen {
			if errno := a.listener.hand(fd); errno != 0 {
				return errno
			}
		}
	}
	a.failure.stage = executing
	return 0
}
