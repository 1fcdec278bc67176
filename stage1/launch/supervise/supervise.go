// SPDX-License-Identifier: Apache-2.0

// Package supervise is gantry-stage1: what stays of gantry while an app runs.
// One thread polls a signalfd, the app's pidfd, the control socket, the
// terminal and the log pipes; nothing else runs and next to nothing is
// allocated.
package supervise

import (
	"errors"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/wire"
	"github.com/gantryrun/gantry/stage1"
)

// heapLimit starts the collector when a busy control channel has left this
// much behind; usually it never runs.
const heapLimit = 8 << 20

// supervisor is the state of the loop.
type supervisor struct {
	stage1.Contract
	brief    bool // we are the launcher yet
	signals  int
	conns    []int     // accepted control connections
	streams  []*stream // bytes to copy and log
	journal  *journal  // where they log, if it is that
	prober   prober
	proxy    *proxy    // published ports; nil: none
	tty      *terminal // our own terminal, in raw mode
	deadline time.Time // when a stop turns into SIGKILL; zero: none
	timeIsUp time.Time // the deadline that --timeout set
	polls    []unix.PollFd
	ended    bool
	dropped  bool // the pod's table
	exit     stage1.Exit
}

// Run supervises the app of the contract in the memory file fd and does not
// return unless the contract cannot be read.
func Run(fd int) error {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(heapLimit)
	s := &supervisor{}
	if err := s.read(fd); err != nil {
		return err
	}
	if err := s.setUp(); err != nil {
		// The app must not run unsupervised.
		_ = s.kill(unix.SIGKILL)
		return err
	}
	for !s.ended {
		s.turn()
	}
	s.finish()
	return nil
}

// Brief waits up to patience for an app whose output nobody copies, and if it
// ends by then does all that Run would do, and does not return. A program that
// only prints a line is over before a supervisor could have started. Signals
// and clients that come meanwhile wait for the supervisor.
func Brief(c stage1.Contract, patience time.Duration) {
	if c.Pty >= 0 || c.Stdout >= 0 || c.Stderr >= 0 {
		return
	}
	s := &supervisor{Contract: c, brief: true}
	ended := []unix.PollFd{{Fd: int32(c.Pidfd), Events: unix.POLLIN}}
	for until := time.Now().Add(patience); !s.ended; s.reap() {
		left := time.Until(until)
		if left <= 0 {
			return
		}
		// Interrupted by a signal of the runtime it is asked again.
		_, _ = unix.Poll(ended, int(left.Milliseconds())+1)
	}
	s.finish()
}

func (s *supervisor) read(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errors.New("read contract: " + err.Error())
	}
	b := make([]byte, st.Size)
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		return errors.New("read contract: " + err.Error())
	}
	if _, err := wire.Decode(b[:n], &s.Contract); err != nil {
		return errors.New("read contract: " + err.Error())
	}
	return nil
}

func (s *supervisor) setUp() error {
	fd, err := openSignals(s.Orphans)
	if err != nil {
		return errors.New("open signalfd: " + err.Error())
	}
	s.signals = fd
	if len(s.Lent) == 0 {
		s.Lender = -1
	}
	if s.Orphans {
		s.reapOrphans() // nobody told of those that ended before
	}
	if s.Control >= 0 {
		_ = unix.SetNonblock(s.Control, true)
	}
	if s.Pty >= 0 {
		resize(s.Pty)
		if s.Raw {
			s.tty = openTerminal()
		}
	}
	s.openStreams()
	if s.proxy, err = openProxy(s.Forward); err != nil {
		return errors.New("open proxy: " + err.Error())
	}
	s.limitTime()
	s.openProber()
	return nil
}

// turn waits for something to happen and deals with all of it.
func (s *supervisor) turn() {
	s.polls = s.polls[:0]
	s.watch(s.signals, unix.POLLIN)
	s.watch(s.Pidfd, unix.POLLIN)
	s.watch(s.Control, unix.POLLIN)
	s.watch(s.proxy.fd(), unix.POLLIN)
	conns := len(s.conns)
	for _, fd := range s.conns {
		s.watch(fd, unix.POLLIN)
	}
	for _, st := range s.streams {
		s.watch(st.want())
	}
	s.watch(s.journal.want())
	s.watch(s.prober.pidfd, unix.POLLIN)
	s.watch(s.Lender, unix.POLLIN)
	if _, err := unix.Poll(s.polls, s.patience()); err != nil {
		return // EINTR: a signal of the runtime
	}
	s.expire()
	if s.polls[0].Revents != 0 {
		s.readSignals()
	}
	for i, st := range s.streams {
		st.turn(s.polls[4+conns+i].Revents)
	}
	for i := conns - 1; i >= 0; i-- {
		if s.polls[4+i].Revents != 0 && !s.serve(s.conns[i]) {
			_ = unix.Close(s.conns[i])
			s.conns = slices.Delete(s.conns, i, i+1)
		}
	}
	s.probe()
	if s.journal.full() {
		s.journal.send() // there is room, or it is given up
	}
	if s.polls[2].Revents != 0 {
		s.accept()
	}
	if s.polls[3].Revents != 0 {
		s.proxy.turn()
	}
	if s.polls[len(s.polls)-1].Revents != 0 {
		s.lenderEnded()
	}
	if s.polls[1].Revents != 0 {
		s.reap()
	}
}

// watch adds a descriptor to the next poll; a negative one is passed over by
// the kernel and keeps its place.
func (s *supervisor) watch(fd int, events int16) {
	s.polls = append(s.polls, unix.PollFd{Fd: int32(fd), Events: events})
}

// patience is how long a poll may wait, in milliseconds.
func (s *supervisor) patience() int {
	left := sooner(sooner(s.proxy.patience(), s.journal.patience()), s.prober.patience())
	if !s.deadline.IsZero() {
		left = sooner(left, max(time.Until(s.deadline), 0))
	}
	if left < 0 {
		return -1
	}
	return int(min(left.Milliseconds()+1, math.MaxInt32)) // more is less than none to the kernel
}

// sooner is the shorter of two times to wait; a negative one is no bound.
func sooner(a, b time.Duration) time.Duration {
	if a < 0 || b >= 0 && b < a {
		return b
	}
	return a
}

// expire ends a stop whose time is over, and flows nobody uses.
func (s *supervisor) expire() {
	s.proxy.expire()
	if !s.deadline.IsZero() && !time.Now().Before(s.deadline) {
		s.tellTimeout()
		s.deadline = time.Time{}
		_ = s.kill(unix.SIGKILL)
	}
}

// kill sends a signal to the app; one that has ended does not mind.
func (s *supervisor) kill(sig unix.Signal) error {
	return unix.PidfdSendSignal(s.Pidfd, sig, nil, 0)
}

// reap collects the app if it has ended.
func (s *supervisor) reap() {
	var status unix.WaitStatus
	pid, err := unix.Wait4(s.Pid, &status, unix.WNOHANG, nil)
	if err != nil || pid != s.Pid {
		return
	}
	s.ended = true
	s.exit.Code = status.ExitStatus()
	if status.Signaled() {
		s.exit.Signal = int(status.Signal())
		s.exit.Code = 128 + s.exit.Signal
	}
	runtime.KeepAlive(s)
}
