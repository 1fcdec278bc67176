// SPDX-License-Identifier: Apache-2.0

package child

import (
	"errors"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/procfs"
	"github.com/gantryrun/gantry/internal/rootfs"
	"github.com/gantryrun/gantry/stage1"
)

// Credentials are set with raw system calls: package syscall would set them
// on every thread of the runtime, and only this one survives the execve.

func ioctl(fd int, request, arg uintptr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), request, arg)
	return int(n), errno
}

func raw(nr, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(nr, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

func rawPrctl(option int, a, b uintptr) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, uintptr(option), a, b, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// process does the steps that change only the process itself.
func (w *walk) process(s *stage1.Step) *stage1.StepError {
	switch {
	case s.Rlimit != nil:
		return rlimit(s.Rlimit)
	case s.Persona != nil:
		return failed("set personality", "", raw(unix.SYS_PERSONALITY, uintptr(s.Persona.Domain), 0, 0))
	case s.Scheduler != nil:
		return scheduler(s.Scheduler)
	case s.IOPriority != nil:
		return ioPriority(s.IOPriority)
	case s.Affinity != nil:
		return affinity(s.Affinity)
	case s.MemPolicy != nil:
		return memPolicy(s.MemPolicy)
	case s.Umask != nil:
		unix.Umask(int(s.Umask.Mask))
		return nil
	case s.Bounding != nil:
		return failed("drop capabilities", "", bounding(s.Bounding.Set))
	case s.User != nil:
		return w.user(s.User)
	case s.Caps != nil:
		return failed("set capabilities", "", capabilities(s.Caps))
	case s.NoNewPrivs != nil:
		return failed("set no_new_privs", "", rawPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0))
	case s.DeathSig != nil:
		return deathSignal(s.DeathSig)
	}
	return &stage1.StepError{Step: "walk plan", Text: "unknown step"}
}

func hostname(h *stage1.Hostname) *stage1.StepError {
	if h.Name != "" {
		if err := unix.Sethostname([]byte(h.Name)); err != nil {
			return failed("set host name", h.Name, err)
		}
	}
	if h.Domain != "" {
		return failed("set domain name", h.Domain, unix.Setdomainname([]byte(h.Domain)))
	}
	return nil
}

// rlimit goes through package syscall, which then knows not to restore the
// soft file limit it raised for itself.
func rlimit(r *stage1.Rlimit) *stage1.StepError {
	err := syscall.Setrlimit(r.Type, &syscall.Rlimit{Cur: r.Soft, Max: r.Hard})
	return failed("set limit", r.Name, err)
}

const lastCap = 63

// bounding drops what is not in keep, up to the last capability the kernel
// knows.
func bounding(keep uint64) error {
	for c := uintptr(0); c <= lastCap; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		err := rawPrctl(unix.PR_CAPBSET_DROP, c, 0)
		if err == unix.EINVAL {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// newKeyring leaves the keys of the caller's session behind: a filter that
// allows keyctl would give them to the app. A kernel or an outer sandbox
// without keys has none to leave.
func newKeyring() error {
	err := raw(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if err == unix.ENOSYS || err == unix.EPERM {
		return nil
	}
	return err
}

// user sets groups exactly, then group and user; permitted capabilities are
// kept for the Caps step.
func (w *walk) user(u *stage1.User) *stage1.StepError {
	if err := rawPrctl(unix.PR_SET_KEEPCAPS, 1, 0); err != nil {
		return failed("keep capabilities", "", err)
	}
	var first unsafe.Pointer
	if len(u.Groups) > 0 {
		first = unsafe.Pointer(&u.Groups[0])
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(u.Groups)), uintptr(first), 0)
	more := len(u.Groups) > 1 || len(u.Groups) == 1 && u.Groups[0] != u.GID
	if errno != 0 && (errno != unix.EPERM || more || !w.denied) {
		return failed("set groups", "", errno)
	}
	gid := uintptr(u.GID)
	if err := raw(unix.SYS_SETRESGID, gid, gid, gid); err != nil {
		return failed("set group", itoa(int(u.GID)), err)
	}
	uid := uintptr(u.UID)
	return failed("set user", itoa(int(u.UID)), raw(unix.SYS_SETRESUID, uid, uid, uid))
}

func capabilities(c *stage1.Caps) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{}
	for i := range data {
		shift := 32 * i
		data[i].Effective = uint32(c.Effective >> shift)
		data[i].Permitted = uint32(c.Permitted >> shift)
		data[i].Inheritable = uint32(c.Inheritable >> shift)
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return err
	}
	if err := rawPrctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return err
	}
	for n := uintptr(0); n <= lastCap; n++ {
		if c.Ambient&(1<<n) == 0 {
			continue
		}
		if err := rawPrctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, n); err != nil {
			return err
		}
	}
	return nil
}

// deathSignal asks for a signal when the parent's thread ends. A parent that
// died before left no one to hold the other end of the socket; its pid says
// nothing here, it is 0 in a new pid namespace.
func deathSignal(d *stage1.DeathSig) *stage1.StepError {
	if err := rawPrctl(unix.PR_SET_PDEATHSIG, uintptr(d.Signal), 0); err != nil {
		return failed("set death signal", "", err)
	}
	fds := []unix.PollFd{{Fd: stage1.InitSync}}
	if n, err := unix.Poll(fds, 0); err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
		return failed("set death signal", "", errParentGone)
	}
	return nil
}

// keepProc opens procfs for root of a user namespace while the host's tree is
// still there: later the kernel allows no instance that shows more than the
// app's, and /proc is then the app's.
func (w *walk) keepProc() *stage1.StepError {
	if !w.plan.Userns {
		return nil
	}
	p, err := w.openProc()
	if err == nil {
		// Asked now: by the time groups are set nothing is open any more.
		b, rerr := p.Read("self/setgroups")
		w.denied = rerr == nil && string(b) == "deny\n"
	}
	return failed("open procfs", "", err)
}

func (w *walk) openProc() (*procfs.FS, error) {
	if w.proc != nil {
		return w.proc, nil
	}
	p, err := procfs.Open()
	if err == unix.EPERM && w.plan.Userns {
		p, err = procfs.OpenHost() // the pid namespace is not the user namespace's
	}
	w.proc = p
	return p, err
}

func (w *walk) writeProc(step, rel, value string) *stage1.StepError {
	p, err := w.openProc()
	if err == nil {
		err = p.Write(rel, []byte(value))
	}
	return failed(step, strings.TrimPrefix(rel, "sys/"), err)
}

// label asks the security module for a label at exec and reads the request
// back: a module that is not there must not go unnoticed.
func (w *walk) label(l *stage1.Label) *stage1.StepError {
	p, err := w.openProc()
	if err != nil {
		return failed("set "+l.Module+" label", l.Label, err)
	}
	file, value := "thread-self/attr/exec", l.Label
	if l.Module == "apparmor" {
		file, value = "thread-self/attr/apparmor/exec", "exec "+l.Label
	}
	if err := p.Write(file, []byte(value)); err != nil {
		serr := failed("set "+l.Module+" label", l.Label, err)
		if l.Module == "apparmor" && serr.Errno == int(unix.ENOENT) {
			serr.Text = "AppArmor is off, or has no such profile loaded"
		}
		return serr
	}
	got, err := p.Read(file)
	if err == nil && !isLabel(string(got), l.Label) {
		err = errors.New("the kernel answers " + strings.TrimSpace(string(got)))
	}
	return failed("read back "+l.Module+" label", l.Label, err)
}

// isLabel compares what the kernel tells with what was asked; AppArmor adds
// the mode in brackets.
func isLabel(got, want string) bool {
	got = strings.TrimRight(got, "\n\x00")
	return got == want || strings.HasPrefix(got, want+" (")
}

// cwd enters the working directory and makes sure that it lies below /: a
// descriptor of the host's tree would show as unreachable (CVE-2024-21626).
func (w *walk) cwd(c *stage1.Cwd) *stage1.StepError {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) //nolint:forbidigo // / itself has no link in it
	if err != nil {
		return failed("open root", "/", err)
	}
	defer unix.Close(root)
	fd, err := rootfs.OpenAt(root, c.Path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return failed("enter working directory", c.Path, err)
	}
	defer unix.Close(fd)
	if err := unix.Fchdir(fd); err != nil {
		return failed("enter working directory", c.Path, err)
	}
	var buf [unix.PathMax]byte
	n, err := unix.Getcwd(buf[:])
	if err == nil && (n < 1 || buf[0] != '/') {
		err = errors.New("lies outside the root")
	}
	return failed("enter working directory", c.Path, err)
}

// seccomp loads the filter that came with the plan, when nothing is held any more
// that the app must not reach.
func (w *walk) seccomp(s *stage1.Seccomp) *stage1.StepError {
	if err := w.letGo(); err != nil {
		return failed("close descriptors", "", err)
	}
	prog, serr := w.program()
	if serr != nil {
		return serr
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(s.Flags), uintptr(unsafe.Pointer(prog)))
	if errno != 0 {
		return failed("load seccomp filter", "", errno)
	}
	if s.Listen {
		l := &listener{sync: stage1.InitSync}
		if errno := l.hand(fd); errno != 0 {
			return failed("hand over the listener of the seccomp filter", "", errno)
		}
	}
	return nil
}

// listener is the end of a filter that is told of system calls.
type listener struct {
	sync   uintptr // socket to the parent
	number uint32
	answer [16]byte
}

// hand has the parent fetch it, waits until the agent has it, and closes it:
// whoever keeps one keeps those waiting who could be told that nobody answers.
// The filter is in force: it has to let write(2) through, which is refused in
// bundles that want to be notified of it. If it refuses read(2) there is no
// waiting, and the parent ends a process whose agent could not be told. Of
// read and close the agent may be notified, it has the listener then.
//
//go:nosplit
//go:norace
func (l *listener) hand(fd uintptr) unix.Errno {
	l.number = uint32(fd)
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, l.sync, uintptr(unsafe.Pointer(&l.number)), stage1.ListenerSize)
	if errno != 0 {
		return errno
	}
	n := uintptr(0)
	for errno = unix.EINTR; errno == unix.EINTR; {
		n, _, errno = unix.RawSyscall(unix.SYS_READ, l.sync, uintptr(unsafe.Pointer(&l.answer)), unsafe.Sizeof(l.answer))
	}
	if errno == 0 && n == 0 {
		return unix.ECONNRESET // the parent is gone, or gave up
	}
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	return 0
}

func (w *walk) program() (*unix.SockFprog, *stage1.StepError) {
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	count := len(w.filter) / size
	if count == 0 || len(w.filter)%size != 0 {
		return nil, &stage1.StepError{Step: "load seccomp filter", Text: "no filter came with the plan"}
	}
	code := make([]unix.SockFilter, count)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&code[0])), len(w.filter)), w.filter)
	return &unix.SockFprog{Len: uint16(count), Filter: &code[0]}, nil
}
