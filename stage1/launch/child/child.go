// SPDX-License-Identifier: Apache-2.0

// Package child is the inside half of a launch: it walks the plan in the new
// namespaces, on the main thread of gantry-init, and ends in the app's
// execve. It starts no goroutine; credentials, capabilities, seccomp and
// namespaces are properties of this one thread, and execve makes it the only
// one.
package child

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/procfs"
	"github.com/gantryrun/gantry/internal/wire"
	"github.com/gantryrun/gantry/stage1"
)

// walk is what steps share.
type walk struct {
	plan   stage1.Plan
	filter []byte     // BPF, appended to the plan
	root   int        // the new root, O_PATH or a mount; -1 before the Root step
	null   int        // mount of the host's /dev/null that the first mask attached; -1 before
	empty  int        // the same of an empty read-only tmpfs, for directories
	kept   []kept     // mounts of procfs and sysfs in the root
	proc   *procfs.FS // opened when first needed
	denied bool       // the user namespace forbids setgroups(2), as one does whose map an ordinary user wrote
	alone  bool       // descriptors are let go
}

// Run reads the plan, walks it and does not return on success. The error has
// already been sent to the parent.
// reborn says that the steps up to the Reborn one are done.
func Run(reborn bool) *stage1.StepError {
	err := run(reborn)
	if err != nil {
		send(stage1.Message{Error: err}, -1)
	}
	return err
}

func run(reborn bool) *stage1.StepError {
	// Until the app's execve nobody but root may look into this process: it
	// holds descriptors of the host.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return failed("make process undumpable", "", err)
	}
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return failed("mark descriptors close-on-exec", "", err)
	}
	rename()
	w := &walk{root: -1, null: -1, empty: -1}
	if err := w.read(); err != nil {
		return failed("read plan", "", err)
	}
	if !w.plan.KeepKeyring {
		if err := newKeyring(); err != nil {
			return failed("make session keyring", "", err)
		}
	}
	unix.Umask(0) // modes are given exactly; the Umask step sets the app's
	for i := w.first(reborn); i < len(w.plan.Steps); i++ {
		if err := w.step(&w.plan.Steps[i]); err != nil {
			return err
		}
	}
	return &stage1.StepError{Step: "walk plan", Text: "no exec step"}
}

// first is the number of the first step to walk.
func (w *walk) first(reborn bool) int {
	for i := range w.plan.Steps {
		if reborn && w.plan.Steps[i].Reborn != nil {
			return i + 1
		}
	}
	return 0
}

// rename gives the process its name for ps: it was executed by a number.
func rename() {
	name := []byte("gantry-init\x00")
	_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0)
}

// read decodes the plan from its memory file.
func (w *walk) read() error {
	var st unix.Stat_t
	if err := unix.Fstat(stage1.InitPlan, &st); err != nil {
		return err
	}
	b := make([]byte, st.Size)
	n, err := unix.Pread(stage1.InitPlan, b, 0)
	if err != nil {
		return err
	}
	w.filter, err = wire.Decode(b[:n], &w.plan)
	if err != nil {
		return err
	}
	if w.plan.Version != stage1.PlanVersion {
		return wire.ErrRelease
	}
	return nil
}

// source is the descriptor number of a donated source.
func (w *walk) source(index int) int {
	return stage1.InitSources + index
}

func (w *walk) step(s *stage1.Step) *stage1.StepError {
	switch {
	case s.Join != nil:
		return w.join(s.Join)
	case s.Reborn != nil:
		return w.reborn(s.Reborn)
	case s.Root != nil:
		return w.makeRoot(s.Root)
	case s.Mount != nil:
		return w.mount(s.Mount)
	case s.Bind != nil:
		return w.bind(s.Bind)
	case s.Mkdir != nil:
		return w.mkdir(s.Mkdir)
	case s.Symlink != nil:
		return w.symlink(s.Symlink)
	case s.Device != nil:
		return w.device(s.Device)
	case s.ReadOnly != nil:
		return w.readOnly(s.ReadOnly)
	case s.Mask != nil:
		return w.mask(s.Mask)
	case s.Remount != nil:
		return w.remount(s.Remount)
	case s.Pivot != nil:
		return w.pivot()
	case s.Chroot != nil:
		return w.chroot(s.Chroot)
	case s.Wait != nil:
		return wait(s.Wait)
	case s.Hold != nil:
		return w.hold(s.Hold)
	case s.Hooks != nil:
		return w.hooks(s.Hooks)
	case s.Unshare != nil:
		return failed("unshare namespaces", "", unix.Unshare(int(s.Unshare.Kinds)))
	case s.Terminal != nil:
		return w.terminal(s.Terminal)
	case s.Loopback != nil:
		return failed("turn on the loopback interface", "lo", loopback())
	case s.Hostname != nil:
		return hostname(s.Hostname)
	case s.Sysctl != nil:
		return w.writeProc("set sysctl", "sys/"+s.Sysctl.Key, s.Sysctl.Value)
	case s.OOMScore != nil:
		return w.writeProc("set OOM score", "self/oom_score_adj", itoa(s.OOMScore.Adj))
	case s.Label != nil:
		return w.label(s.Label)
	case s.Cwd != nil:
		return w.cwd(s.Cwd)
	case s.Seccomp != nil:
		return w.seccomp(s.Seccomp)
	case s.Exec != nil:
		return w.exec(s.Exec)
	}
	return w.process(s)
}

// failed makes an error of a step; nil if err is nil.
func failed(step, path string, err error) *stage1.StepError {
	if err == nil {
		return nil
	}
	e := &stage1.StepError{Step: step, Path: path}
	var errno unix.Errno
	if errors.As(err, &errno) {
		e.Errno = int(errno)
	} else {
		e.Text = err.Error()
	}
	return e
}

// send sends a message to the parent, with a descriptor if fd is not -1.
func send(m stage1.Message, fd int) {
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	// Nobody is left to tell when this fails: the parent is gone, and the
	// next step that needs it says so.
	_ = deliver(m, oob)
}

func deliver(m stage1.Message, oob []byte) error {
	if oob == nil {
		// A filter that is in force may refuse sendmsg(2), hardly write(2).
		_, err := unix.Write(stage1.InitSync, wire.Encode(nil, &m))
		return err
	}
	err := unix.Sendmsg(stage1.InitSync, wire.Encode(nil, &m), oob, nil, unix.MSG_NOSIGNAL)
	runtime.KeepAlive(m)
	return err
}

// wait blocks until the parent sent the name.
func wait(s *stage1.Wait) *stage1.StepError {
	if s.Ask {
		send(stage1.Message{Waits: true}, -1)
	}
	b := make([]byte, 64)
	for {
		n, err := unix.Read(stage1.InitSync, b)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = errParentGone
		}
		if err != nil {
			return failed("wait for "+s.Name, "", err)
		}
		if string(b[:n]) == s.Name {
			return nil
		}
	}
}

var errParentGone = errors.New("parent is gone")

func itoa(n int) string {
	if n < 0 {
		return "-" + itoa(-n)
	}
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

// Donated tells whether a parent handed over a plan and a socket.
func Donated() bool {
	var st unix.Stat_t
	return unix.Fstat(stage1.InitSync, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK
}
