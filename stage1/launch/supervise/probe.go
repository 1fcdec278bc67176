// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// prober starts a gantry at its times, which probes the app and keeps the
// result. Between probes nothing of it is there.
type prober struct {
	next  time.Time // zero: never
	pid   int       // of the one that runs; 0: none
	pidfd int
}

func (s *supervisor) openProber() {
	s.prober.pidfd = -1
	if len(s.Probe) > 0 {
		s.prober.next = time.Now().Add(time.Duration(s.ProbeEvery)) // whatever the clock is set to
	}
}

// patience is how long a poll may wait; negative is no bound. One that runs is
// waited for by its descriptor.
func (p *prober) patience() time.Duration {
	if p.next.IsZero() || p.pid != 0 {
		return -1
	}
	return max(time.Until(p.next), 0)
}

// probe collects a probe that has ended, and starts one whose time has come.
func (s *supervisor) probe() {
	p := &s.prober
	if p.pid != 0 {
		pid, err := unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
		if err == unix.EINTR || err == nil && pid == 0 {
			return
		}
		_ = unix.Close(p.pidfd)
		p.pid, p.pidfd = 0, -1
		p.next = time.Now().Add(time.Duration(s.ProbeEvery))
	}
	if p.next.IsZero() || time.Now().Before(p.next) {
		return
	}
	pid, err := s.startProbe()
	if err != nil {
		p.next = time.Now().Add(time.Duration(s.ProbeEvery))
		return
	}
	p.pid = pid
}

func (s *supervisor) startProbe() (int, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0) //nolint:forbidigo // the host's, for a program of the host
	if err != nil {
		return 0, err
	}
	defer unix.Close(null)
	return s.foreign(s.Probe[0], s.Probe, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []uintptr{uintptr(null), uintptr(null), uintptr(null)},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &s.prober.pidfd},
	})
}

// endProbe kills a probe of an app that has ended.
func (s *supervisor) endProbe() {
	if s.prober.pid == 0 {
		return
	}
	_ = unix.Kill(s.prober.pid, unix.SIGKILL) // what it started dies with it
	for {
		if _, err := unix.Wait4(s.prober.pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}
