// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A pod without a pid namespace and without a group, as an ordinary user's with
// --pid=host where no group was delegated, has nothing that the kernel would end
// as a whole. Its supervisor is then the parent of what loses its own: the
// launcher made itself the reaper (PR_SET_CHILD_SUBREAPER, which execve keeps).

// reapOrphans lets go of those that have ended.
func (s *supervisor) reapOrphans() {
	for _, pid := range children() {
		if pid != s.Pid && pid != s.prober.pid {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// killOrphans kills what the app left, and what loses its parent by that, until
// nothing is left; for no longer than lastWords.
func (s *supervisor) killOrphans() {
	if !s.Orphans {
		return
	}
	for until := time.Now().Add(lastWords); time.Now().Before(until); {
		left := children()
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		for _, pid := range left {
			reapBy(pid, until)
		}
	}
}

// reapBy waits for the end of a child that was killed; not for one that the
// kernel cannot end in time.
func reapBy(pid int, until time.Time) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	awaitEnd(fd, until)
	_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
}

// awaitEnd waits for the end of the process of a pidfd.
func awaitEnd(pidfd int, until time.Time) {
	ended := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for ended[0].Revents == 0 && time.Now().Before(until) {
		_, _ = unix.Poll(ended, int(time.Until(until).Milliseconds())+1) // again after EINTR
	}
}

// children are ours. The kernel gives orphans to the first thread.
func children() []int {
	id := strconv.Itoa(unix.Getpid())
	b, err := readFile("/proc/self/task/" + id + "/children")
	if err != nil {
		return nil
	}
	var all []int
	for field := range bytes.FieldsSeq(b) {
		if pid, err := strconv.Atoi(string(field)); err == nil && pid > 1 {
			all = append(all, pid)
		}
	}
	return all
}
