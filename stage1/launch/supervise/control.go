// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"encoding/json"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// maxConns bounds the clients at one time; further ones wait in the backlog.
const maxConns = 16

// accept takes a client whose user may command this pod.
func (s *supervisor) accept() {
	if len(s.conns) >= maxConns {
		// The oldest one had its chance.
		_ = unix.Close(s.conns[0])
		s.conns = s.conns[1:]
	}
	fd, _, err := unix.Accept4(s.Control, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || cred.Uid != 0 && int(cred.Uid) != unix.Geteuid() {
		_ = unix.Close(fd)
		return
	}
	s.conns = append(s.conns, fd)
}

// serve answers one request and tells whether the client may stay.
func (s *supervisor) serve(fd int) bool {
	b := make([]byte, stage1.ControlMax)
	n, err := unix.Read(fd, b)
	if err == unix.EAGAIN || err == unix.EINTR {
		return true
	}
	if err != nil || n <= 0 {
		return false
	}
	var request stage1.Request
	reply := stage1.Reply{Error: "malformed request", Errno: int(unix.EINVAL)}
	if json.Unmarshal(b[:n], &request) == nil {
		reply = s.answer(request)
	}
	reply.Version = stage1.ControlVersion
	out, err := json.Marshal(reply)
	if err != nil {
		return false
	}
	_, err = unix.SendmsgN(fd, out, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	return err == nil
}

// answerAll tells every client how the app ended, whatever it asked for: the
// only ones who hear it of a pod that leaves nothing behind.
func (s *supervisor) answerAll() {
	if s.Control < 0 {
		return
	}
	for len(s.conns) < maxConns {
		before := len(s.conns)
		if s.accept(); len(s.conns) == before {
			break
		}
	}
	if len(s.conns) == 0 {
		return
	}
	out, err := json.Marshal(stage1.Reply{Version: stage1.ControlVersion, Apps: map[string]stage1.Status{s.App: s.status()}})
	if err != nil {
		return
	}
	for _, fd := range s.conns {
		_, _ = unix.SendmsgN(fd, out, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	}
}

func (s *supervisor) answer(r stage1.Request) stage1.Reply {
	if r.Version > stage1.ControlVersion {
		return stage1.Reply{Needed: r.Version, Error: "this pod's supervisor is older than the request", Errno: int(unix.EPROTONOSUPPORT)}
	}
	if r.App != "" && r.App != s.App {
		return refusal("no such app", unix.ESRCH)
	}
	switch r.Op {
	case stage1.OpHello:
		return stage1.Reply{ID: s.ID, Ops: []string{stage1.OpHello, stage1.OpStatus, stage1.OpSignal, stage1.OpStop}}
	case stage1.OpStatus:
		return stage1.Reply{Apps: map[string]stage1.Status{s.App: s.status()}}
	case stage1.OpSignal:
		return sent(s.kill(unix.Signal(r.Signal)))
	case stage1.OpStop:
		return s.stop(r)
	}
	return refusal("unknown operation", unix.EOPNOTSUPP)
}

// stop sends the stop signal and has SIGKILL follow.
func (s *supervisor) stop(r stage1.Request) stage1.Reply {
	sig := r.Signal
	if sig == 0 {
		sig = s.StopSignal
	}
	if sig == 0 {
		sig = int(unix.SIGTERM)
	}
	timeout := time.Duration(r.Timeout)
	if r.Timeout == 0 {
		timeout = time.Duration(s.StopTimeout)
	}
	if deadline := time.Now().Add(timeout); s.deadline.IsZero() || deadline.Before(s.deadline) {
		s.deadline = deadline
	}
	return sent(s.kill(unix.Signal(sig)))
}

func sent(err error) stage1.Reply {
	if err == nil {
		return stage1.Reply{}
	}
	var errno unix.Errno
	_ = errors.As(err, &errno)
	return refusal("send signal: "+err.Error(), errno)
}

func refusal(text string, errno unix.Errno) stage1.Reply {
	return stage1.Reply{Error: text, Errno: int(errno)}
}
