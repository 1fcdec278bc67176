// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// poststop runs the hooks that come when nothing of the app is left. All of
// them run, whichever fails: there is nobody to stop.
func (s *supervisor) poststop() {
	for i := range s.Poststop {
		if err := s.hook(&s.Poststop[i]); err != "" && s.Echo {
			_, _ = unix.Write(2, []byte("gantry: pod "+s.podName()+": poststop hook "+s.Poststop[i].Path+": "+err+"\n"))
		}
	}
}

// hook runs one with the state on its standard input, which is a memory file:
// nobody waits for it to be read.
func (s *supervisor) hook(h *stage1.Hook) string {
	in, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(in)
	if _, err := unix.Pwrite(in, []byte(s.HookState), 0); err != nil {
		return err.Error()
	}
	out := uintptr(2)
	if !s.Echo {
		null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0) //nolint:forbidigo // the host's, for a program of the host
		if err != nil {
			return err.Error()
		}
		defer unix.Close(null)
		out = uintptr(null)
	}
	pidfd := -1
	pid, err := s.foreign(h.Path, h.Args, &syscall.ProcAttr{
		Dir: "/", Env: append([]string{}, h.Env...), Files: []uintptr{uintptr(in), out, out},
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	})
	if err != nil {
		return "execute: " + err.Error()
	}
	if pidfd >= 0 {
		defer unix.Close(pidfd)
	}
	if h.Timeout > 0 && pidfd >= 0 && !readableWithin(pidfd, time.Duration(h.Timeout)*time.Second) {
		_ = unix.Kill(-pid, unix.SIGKILL) // its session; it is not reaped yet
	}
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	switch {
	case status.Signaled():
		return "ended by " + status.Signal().String()
	case status.ExitStatus() != 0:
		return "ended with a status above zero"
	}
	return ""
}

// readableWithin waits so long until there is something to read, or until a
// process ends, whose pidfd it is. Signals of the Go runtime do not shorten it.
func readableWithin(fd int, d time.Duration) bool {
	polls := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for until := time.Now().Add(d); ; {
		n, err := unix.Poll(polls, int(max(time.Until(until).Milliseconds()+1, 0)))
		if err != unix.EINTR {
			return n > 0
		}
	}
}
