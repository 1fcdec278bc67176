// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/wire"
	"github.com/gantryrun/gantry/stage1"
)

// birth is everything the clone needs.
type birth struct {
	plan    stage1.Plan
	filter  []byte
	init    *os.File
	sources []*os.File
	stdio   [3]*os.File
	cgroup  *os.File                     // unified directory, or nil
	enter   func() (func() error, error) // puts this thread into v1 groups
	initial *stage1.Affinity             // processors it starts on, or nil
	busy    func() (*os.File, error)     // opens another unified group where that one takes no process; nil: there is none
	adopt   func(pid int) error          // puts the child there where we may not; nil: there is nobody who could
}

// adoptBy has gantry-init wait until it is in its group.
func (b *birth) adoptBy(adopt func(pid int) error) {
	if adopt == nil || b.cgroup == nil {
		return
	}
	b.adopt = adopt
	b.plan.Steps = slices.Insert(b.plan.Steps, 0, stage1.Step{Wait: &stage1.Wait{Name: stage1.WaitCgroup}})
}

// sync is the parent's end of the socket gantry-init reports on.
type syncSocket struct {
	fd  int
	pid int // of the process at the other end; 0: nobody said
	// reborn: gantry-init makes the process that becomes the app, and both
	// write here. Which of them is heard first is chance.
	reborn bool
}

// clone starts gantry-init. The calling goroutine is locked to its thread,
// whose end the child's death signal is about; but where that thread would
// have to change for good, another one does it.
func (b *birth) clone() (pid int, pidfd *os.File, sync syncSocket, err error) {
	first := b.plan.Before
	if first == nil {
		return b.cloneHere()
	}
	do := func() {
		back, berr := b.before()
		if err = berr; err != nil {
			return
		}
		pid, pidfd, sync, err = b.cloneHere()
		err = errors.Join(err, back())
	}
	if len(first.Join) > 0 || first.Time {
		onSpareThread(do)
	} else {
		do()
	}
	return pid, pidfd, sync, err
}

func (b *birth) cloneHere() (pid int, pidfd *os.File, sync syncSocket, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, syncSocket{}, fmt.Errorf("make socket: %w", err)
	}
	defer unix.Close(pair[1])
	defer func() {
		if err != nil {
			_ = unix.Close(pair[0])
		}
	}()
	plan, err := memfile("plan", unix.MFD_NOEXEC_SEAL, append(wire.Encode(nil, &b.plan), b.filter...))
	if err != nil {
		return 0, nil, syncSocket{}, err
	}
	defer plan.Close()
	attr := &syscall.ProcAttr{
		Env:   []string{"GOMAXPROCS=1", "GOGC=off", "GOTRACEBACK=none"},
		Files: []uintptr{b.stdio[0].Fd(), b.stdio[1].Fd(), b.stdio[2].Fd(), plan.Fd(), uintptr(pair[1]), 0},
	}
	for _, f := range b.sources {
		attr.Files = append(attr.Files, f.Fd())
	}
	// Above what the others become in the child, so that duplicating them
	// leaves it alone, but not higher than needed: a process of many threads
	// whose table of descriptors outgrows 64 waits for an RCU grace period,
	// which takes longer than all the rest of a launch.
	self, err := unix.FcntlInt(b.init.Fd(), unix.F_DUPFD_CLOEXEC, len(attr.Files))
	if err != nil {
		return 0, nil, syncSocket{}, fmt.Errorf("duplicate gantry-init: %w", err)
	}
	defer unix.Close(self)
	attr.Files[stage1.InitSelf] = uintptr(self)
	pid, pidfd, err = b.fork(self, attr)
	if err == nil && b.adopt != nil {
		err = b.settleIn(pid, attr.Sys.UseCgroupFD, pair[0])
	}
	return pid, pidfd, syncSocket{fd: pair[0], pid: pid, reborn: isReborn(b.plan)}, err
}

// settleIn has a child that waits for it put into its group, unless it was born
// there, and lets it go on.
func (b *birth) settleIn(pid int, born bool, sync int) error {
	if !born {
		if err := b.adopt(pid); err != nil {
			return err
		}
	}
	if _, err := unix.SendmsgN(sync, []byte(stage1.WaitCgroup), nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("go on in the control group: %w", err)
	}
	return nil
}

func (b *birth) fork(self int, attr *syscall.ProcAttr) (pid int, pidfd *os.File, err error) {
	fd := -1
	// A session of its own from birth: no key of our terminal reaches it, and
	// it cannot push keys into it (CVE-2017-5226).
	attr.Sys = &syscall.SysProcAttr{PidFD: &fd, Setsid: true}
	for i, name := range b.plan.Clone {
		kind, err := namespaceKind(fmt.Sprintf("clone[%d]", i), specs.LinuxNamespaceType(name))
		if err != nil {
			return 0, nil, err
		}
		attr.Sys.Cloneflags |= uintptr(kind)
	}
	b.users(attr.Sys)
	if b.cgroup != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(b.cgroup.Fd())
	}
	home, err := b.settleOn()
	if err != nil {
		return 0, nil, err
	}
	defer home()
	back, err := b.enter()
	if err != nil {
		return 0, nil, err
	}
	init := fmt.Sprintf("/proc/self/fd/%d", self)
	pid, err = syscall.ForkExec(init, []string{"gantry-init"}, attr)
	if errors.Is(err, unix.EBUSY) && b.busy != nil {
		var other *os.File
		if other, err = b.busy(); err == nil {
			attr.Sys.CgroupFD = int(other.Fd())
			pid, err = syscall.ForkExec(init, []string{"gantry-init"}, attr)
		}
	}
	if errors.Is(err, unix.EACCES) && b.adopt != nil && attr.Sys.UseCgroupFD {
		// Out of a group that is not the user's the kernel lets them move nobody.
		attr.Sys.UseCgroupFD = false
		pid, err = syscall.ForkExec(init, []string{"gantry-init"}, attr)
	}
	if back := back(); err == nil && back != nil {
		err = back
	}
	if err != nil {
		return pid, nil, fmt.Errorf("start gantry-init: %w", err)
	}
	if fd < 0 {
		return pid, nil, errors.New("start gantry-init: the kernel gave no pidfd")
	}
	return pid, os.NewFile(uintptr(fd), "pidfd"), nil
}

// settleOn moves this thread to the processors its child starts on, before it
// goes to a cgroup that may have others, and tells how to come back.
func (b *birth) settleOn() (home func(), err error) {
	if b.initial == nil {
		return func() {}, nil
	}
	was := unix.NewCPUSet(maxProcessors)
	if err := unix.SchedGetaffinityDynamic(0, was); err != nil {
		return nil, fmt.Errorf("read CPU affinity: %w", err)
	}
	set := unix.NewCPUSet(maxProcessors)
	for n := range 64 * len(b.initial.Mask) {
		if b.initial.Mask[n/64]>>(n%64)&1 != 0 {
			set.Set(n)
		}
	}
	if err := unix.SchedSetaffinityDynamic(0, set); err != nil {
		return nil, fmt.Errorf("process.execCPUAffinity.initial: run on processors %s: %w", b.initial.List, err)
	}
	return func() { _ = unix.SchedSetaffinityDynamic(0, was) }, nil
}

// isReborn tells whether gantry-init goes on as another process.
func isReborn(plan stage1.Plan) bool {
	return slices.ContainsFunc(plan.Steps, func(s stage1.Step) bool { return s.Reborn != nil })
}

// received is what gantry-init sent with its messages.
type received struct {
	pty   *os.File   // master of the terminal
	child *os.File   // pidfd of the process that became the app, if it made one
	spent []*os.File // pidfds of those it made on the way

	listener int // the number of its filter's listener, -1 before

	created bool // it holds
	waits   bool // it wants permission to go on
}

// wait reads what gantry-init reports until it holds, or the app's execve
// closes the socket. What came is the caller's also on error.
// With a handover what its filter needs is the agent's before.
func (s syncSocket) wait(signals *signals, h *handover) (received, error) {
	got := received{listener: -1}
	err := s.waitMore(signals, h, &got)
	return got, err
}

func (s syncSocket) waitMore(signals *signals, h *handover, got *received) error {
	// Mostly the app is there within milliseconds, and a signal that comes
	// meanwhile is for the app. A launch that hangs is ended by it.
	patience := unix.Timeval{Sec: 1}
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return fmt.Errorf("hear from gantry-init: %w", err)
	}
	b := make([]byte, 64<<10)
	oob := make([]byte, unix.CmsgSpace(4))
	stuck := false
	for {
		n, oobn, _, _, err := unix.Recvmsg(s.fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			if signals != nil && signals.pending() {
				return ErrInterrupted
			}
			if err := h.late(); err != nil {
				return err
			}
			if stuck {
				return filterKilled{}
			}
			stuck = s.headless() // once more: it may have been an app that was over at once
			continue
		case err == unix.ECONNRESET || err == nil && n == 0:
			if h != nil && h.until.IsZero() {
				return errUnreported
			}
			return nil
		case err != nil:
			return fmt.Errorf("hear from gantry-init: %w", err)
		}
		if err := got.take(b[:n], oob[:oobn]); err != nil {
			return err
		}
		if (got.created || got.waits) && (got.child != nil || !s.reborn) {
			return nil
		}
		if err := s.listen(h, got); err != nil {
			return err
		}
	}
}

// headless tells whether the first thread of gantry-init has ended, and others
// have not: it ends the process itself, so a filter did that.
func (s syncSocket) headless() bool {
	if s.pid == 0 || s.reborn {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	return err == nil && bytes.HasPrefix(b[bytes.LastIndexByte(b, ')')+1:], []byte(" Z "))
}

func (r *received) take(b, oob []byte) error {
	if len(b) == stage1.ListenerSize {
		r.listener = listenerNumber(b)
		return nil
	}
	var m stage1.Message
	if _, err := wire.Decode(b, &m); err != nil {
		return fmt.Errorf("hear from gantry-init: %w", err)
	}
	if m.Error != nil {
		return &Error{*m.Error}
	}
	if m.Created || m.Waits {
		r.created, r.waits = m.Created, m.Waits
		return nil
	}
	if m.Spent {
		f, err := receivedFile(oob, "pidfd")
		if err == nil {
			r.spent = append(r.spent, f)
		}
		return err
	}
	to, name := &r.pty, "pty"
	if m.Child {
		to, name = &r.child, "pidfd"
	}
	f, err := receivedFile(oob, name)
	if err != nil {
		return err
	}
	if *to != nil {
		_ = f.Close()
		return fmt.Errorf("hear from gantry-init: a second %s", name)
	}
	*to = f
	return nil
}

func receivedFile(oob []byte, name string) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("receive %s: no descriptor came", name)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive %s: no descriptor came", name)
	}
	return os.NewFile(uintptr(fds[0]), name), nil
}
