// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"encoding/binary"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/neighbours"
	"github.com/gantryrun/gantry/stage1"
)

// dropLinks takes the pod's interfaces away while its rules are in force, if
// another pod lives in its network namespace. That one would go on with an
// address that is given back, and reach, and be reached from, what the rules
// kept apart.
func (s *supervisor) dropLinks() {
	var st unix.Stat_t
	if len(s.Links) > 0 && unix.Fstatat(s.Lock, stage1.JoinedFile, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		tellRoute(s.Links)
	}
}

// lenderEnded is dropLinks for a lender whose supervisor was killed.
func (s *supervisor) lenderEnded() {
	tellRoute(s.Lent)
	_ = unix.Close(s.Lender)
	s.Lender = -1
}

// tellRoute sends messages of rtnetlink, which the kernel has dealt with when it
// returns. An interface that is gone already is all right.
func tellRoute(messages []byte) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return
	}
	_ = unix.Sendto(fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	_ = unix.Close(fd)
}

// dropTable takes the pod's rules out of force, before anything of it is given
// back. Closing the socket would do as well, but waits until no processor looks
// at them any more; that goes on meanwhile, and we close at the very end.
func (s *supervisor) dropTable() {
	if len(s.Drop) == 0 {
		return
	}
	if unix.Sendto(s.Table, s.Drop, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
		return
	}
	// The kernel has answered by now: an error of zero is the last of a batch
	// that is done.
	const errorAt = unix.SizeofNlMsghdr
	b := make([]byte, 4<<10)
	n, _, err := unix.Recvfrom(s.Table, b, unix.MSG_DONTWAIT)
	s.dropped = err == nil && n >= errorAt+4 && binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR &&
		binary.NativeEndian.Uint32(b[errorAt:]) == 0
}

// abandonTable lets go of the table's socket without waiting: what is in a unix
// socket's own queue is garbage when nobody else has that socket, and is
// collected by a worker of the kernel (since Linux 6.10; before, here and now).
// The rules are out of force already. Without this the end of the socket is part
// of ours, and the kernel waits there for a grace period, which is longer than
// all the rest of a launch.
func (s *supervisor) abandonTable() {
	if !s.dropped {
		return // the end of the socket is what ends the rules
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	_ = unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(pair[1], s.Table), nil, unix.MSG_NOSIGNAL)
	_ = unix.Close(s.Table)
	_ = unix.Close(pair[1])
	_ = unix.Close(pair[0]) // the end of a socket has the kernel look for garbage
}

// release gives back what the pod's networks had: first what goes with a
// descriptor, so that nothing leads to an address that is given back next. The
// namespace, the first that is held, is there for the program that is run.
func (s *supervisor) release() {
	s.endHelper()
	for _, f := range s.Forward {
		_ = unix.Close(f.FD) // the port is free before the pod says that it has ended
	}
	for i, fd := range s.Held {
		if i > 0 {
			_ = unix.Close(fd)
		}
	}
	if len(s.Release) > 0 && !s.runRelease() && s.Remove {
		s.Remove = false // its directory has what the next gantry needs to try again
		s.record()
	}
	for _, name := range s.Unlink {
		_ = unix.Unlink(name) //nolint:forbidigo // ours, below the run directory
	}
	if len(s.Hosts) == 0 || s.Pods < 0 {
		return
	}
	runs, err := unix.Openat(s.Pods, stage1.PhaseRun, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(runs)
	for _, h := range s.Hosts {
		_ = neighbours.Sync(h.Network, h.Members, runs)
	}
}

// endHelper ends what carries the pod's packets and waits for it, for no longer
// than lastWords: it would end with us, but a little later, and the ports it has
// are not free before.
func (s *supervisor) endHelper() {
	if s.Helper <= 0 {
		return
	}
	_ = unix.PidfdSendSignal(s.Helper, unix.SIGKILL, nil, 0)
	awaitEnd(s.Helper, time.Now().Add(lastWords))
	_ = unix.Waitid(unix.P_PIDFD, s.Helper, nil, unix.WEXITED|unix.WNOHANG, nil)
}

// runRelease runs the program and waits for it; its standard input is the
// namespace. It bounds its own time, and says whether it is done: what it leaves
// the next gantry does.
func (s *supervisor) runRelease() bool {
	namespace := ^uintptr(0)
	if len(s.Held) > 0 {
		namespace = uintptr(s.Held[0])
	}
	pid, err := s.foreign(s.Release[0], s.Release, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []uintptr{namespace, 2, 2},
	})
	if err != nil {
		return false
	}
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			return err == nil && status.Exited() && status.ExitStatus() == 0
		}
	}
}
