// SPDX-License-Identifier: Apache-2.0

package child

import (
	"math"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// hooks runs them in their order.
func (w *walk) hooks(h *stage1.Hooks) *stage1.StepError {
	if h.Inside {
		// They may trace this process if the app may, and find what it has open.
		if err := w.letGo(); err != nil {
			return failed("close descriptors", "", err)
		}
	}
	for i := range h.List {
		if err := w.hook(h, &h.List[i]); err != nil {
			err.Step = "hooks." + h.Kind + "[" + itoa(i) + "]: " + err.Step
			return err
		}
	}
	return nil
}

func (w *walk) hook(h *stage1.Hooks, one *stage1.Hook) *stage1.StepError {
	p := &hookProcess{cwd: -1}
	if !h.Inside {
		p.cwd = w.root // nothing else of the container has a name yet
	}
	if err := p.prepare(h, one); err != nil {
		return failed("prepare", one.Path, err)
	}
	defer p.close()
	if h.Seccomp != nil {
		prog, serr := w.program()
		if serr != nil {
			return serr
		}
		p.filter, p.flags = prog, uintptr(h.Seccomp.Flags)
	}
	if errno := p.bear(); errno != 0 {
		return failed("make process", one.Path, errno)
	}
	_ = unix.Close(p.report[1])
	p.report[1] = -1
	return p.outcome(one)
}

// hookProcess is a process made to become a hook.
type hookProcess struct {
	born
	path          *byte
	argv, envv    []*byte
	filter        *unix.SockFprog // nil: loaded already, or none
	flags         uintptr         // of the filter
	input, output int             // memory files: the state, and what it prints
	cwd           int             // directory to enter, -1 for none
	pid           int
}

func (p *hookProcess) prepare(h *stage1.Hooks, one *stage1.Hook) (err error) {
	p.input, p.output, p.report, p.pidfd = -1, -1, [2]int{-1, -1}, -1
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.path, err = unix.BytePtrFromString(one.Path); err != nil {
		return err
	}
	if p.argv, err = syscall.SlicePtrFromStrings(one.Args); err != nil {
		return err
	}
	if p.envv, err = syscall.SlicePtrFromStrings(one.Env); err != nil {
		return err
	}
	state := `{"pid":` + itoa(unix.Getpid()) + "," + strings.TrimPrefix(h.State, "{")
	if p.input, err = memory("state"); err != nil {
		return err
	}
	if n, err := unix.Pwrite(p.input, []byte(state), 0); err != nil || n != len(state) {
		return err
	}
	if p.output, err = memory("output"); err != nil {
		return err
	}
	return unix.Pipe2(p.report[:], unix.O_CLOEXEC)
}

// memory makes a memory file: whoever reads or fills it never waits for
// another, so no thread is needed to feed a hook or listen to it.
func memory(name string) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	return fd, err
}

func (p *hookProcess) close() {
	for _, fd := range []int{p.input, p.output, p.report[0], p.report[1], int(p.pidfd)} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// outcome waits for the hook's end, as long as it has time.
func (p *hookProcess) outcome(one *stage1.Hook) *stage1.StepError {
	said, unborn, err := p.hear()
	expired := false
	if err == nil && !unborn && one.Timeout > 0 {
		if expired = !p.ends(one.Timeout); expired {
			_ = unix.Kill(-p.pid, unix.SIGKILL) // its session
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
	}
	var status unix.WaitStatus
	for {
		_, werr := unix.Wait4(p.pid, &status, 0, nil)
		if werr == unix.EINTR {
			continue
		}
		if err == nil {
			err = werr
		}
		break
	}
	var text string
	switch {
	case err != nil:
		return failed("wait for", one.Path, err)
	case unborn && said.stage < executing:
		return failed(stageName(said.stage)+" for", one.Path, unix.Errno(said.errno))
	case unborn:
		return failed("execute", one.Path, unix.Errno(said.errno))
	case expired:
		text = "killed: it took longer than its timeout of " + itoa(one.Timeout) + " s"
	case status.Signaled():
		text = "ended by signal " + itoa(int(status.Signal()))
	case status.ExitStatus() != 0:
		text = "ended with status " + itoa(status.ExitStatus())
	default:
		return nil
	}
	if said := p.said(); said != "" {
		text += ": " + said
	}
	return &stage1.StepError{Step: "run", Path: one.Path, Text: text}
}

// ends tells whether the process ends in time, by a clock that no signal
// resets.
func (p *hookProcess) ends(seconds int) bool {
	const longest = math.MaxInt32 / 1000 // of poll: 24 days
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	until := now.Nano() + int64(min(seconds, longest))*1e9
	fds := []unix.PollFd{{Fd: p.pidfd, Events: unix.POLLIN}}
	for {
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		left := (until - now.Nano() + 1e6 - 1) / 1e6
		n, err := unix.Poll(fds, int(max(left, 0)))
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// said is the end of what the hook printed.
func (p *hookProcess) said() string {
	var st unix.Stat_t
	if unix.Fstat(p.output, &st) != nil {
		return ""
	}
	b := make([]byte, 1024)
	n, err := unix.Pread(p.output, b, max(0, st.Size-int64(len(b))))
	if err != nil || n < 0 {
		return ""
	}
	return strings.TrimSpace(string(b[:n]))
}

// bear makes the process, a child of this one.
//
//go:nosplit
//go:norace
func (p *hookProcess) bear() unix.Errno {
	pid, errno := p.clone(0)
	if errno == 0 && pid == 0 {
		p.live()
	}
	p.pid = int(pid)
	return errno
}

// live is the life of the process. It does not return.
//
//go:nosplit
//go:norace
func (p *hookProcess) live() {
	errno := p.settle()
	if errno == 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(p.path)),
			uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.envv[0])))
	}
	p.tell(uint32(errno))
	p.end(notExecutable)
}

// settle leaves nothing open but memory files and the pipe: the execve looks
// up its path before close-on-exec, and a link of the container may lead
// through /proc/self/fd (CVE-2024-21626).
//
//go:nosplit
//go:norace
func (p *hookProcess) settle() unix.Errno {
	p.failure.stage = leadSession
	if _, _, errno := unix.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
		return errno
	}
	p.failure.stage = askDeath
	if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0); errno != 0 {
		return errno
	}
	p.failure.stage = passFiles
	if errno := p.files(); errno != 0 {
		return errno
	}
	p.open = 0 // see unblockSignals
	p.unblock()
	p.failure.stage = loadFilter
	if p.filter != nil {
		_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, p.flags, uintptr(unsafe.Pointer(p.filter)))
		if errno != 0 {
			return errno
		}
	}
	p.failure.stage = executing
	return 0
}

//go:nosplit
//go:norace
func (p *hookProcess) files() unix.Errno {
	if p.cwd >= 0 {
		if _, _, errno := unix.RawSyscall(unix.SYS_FCHDIR, uintptr(p.cwd), 0, 0); errno != 0 {
			return errno
		}
	}
	for fd, from := range [3]int{p.input, p.output, p.output} {
		if _, _, errno := unix.RawSyscall(unix.SYS_DUP3, uintptr(from), uintptr(fd), 0); errno != 0 {
			return errno
		}
	}
	keep := uintptr(p.report[1])
	if keep > 3 {
		if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE_RANGE, 3, keep-1, 0); errno != 0 {
			return errno
		}
	}
	_, _, errno := unix.RawSyscall(unix.SYS_CLOSE_RANGE, keep+1, uintptr(math.MaxUint32), 0)
	return errno
}
