// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/seccomp"
	"github.com/gantryrun/gantry/stage1"
)

// An agent has this long to take what it is sent, and then again to answer
// what it is asked before the app's execve. Agents answer in microseconds.
const agentTime = 20 * time.Second

// Agent is who answers the notifications of an app's filter (config-linux.md,
// Seccomp). It listens on a socket of the host and is sent the listener of each
// process that loads the filter.
type Agent struct {
	socket, metadata string
	state            specs.State // of the container, the pid missing before its start
}

// AgentOf is the agent of a bundle, nil if its filter notifies nobody.
func AgentOf(spec *specs.Spec, state specs.State) *Agent {
	if spec.Linux == nil || !seccomp.Notifies(spec.Linux.Seccomp) {
		return nil
	}
	state.Version = specs.Version
	state.Annotations = spec.Annotations
	return &Agent{spec.Linux.Seccomp.ListenerPath, spec.Linux.Seccomp.ListenerMetadata, state}
}

// errUnreported: the app runs without anybody to answer for its filter.
var errUnreported = errors.New("gantry-init ended before it handed over the listener: the filter must allow write(2)")

func (a *Agent) failed(err error) error {
	if err == unix.EAGAIN {
		err = errors.New("it takes too long")
	}
	return fmt.Errorf("linux.seccomp.listenerPath: reach the agent at %s: %w", a.socket, err)
}

// handover brings the listener of one process to the agent.
type handover struct {
	agent *Agent
	conn  int       // of this one state, as the specification wants
	pidfd *os.File  // of the process; nil until gantry-init told of it
	pid   int       // its number
	until time.Time // the execve has to come; zero while there is no listener

	reborn bool // it is the one gantry-init made to be gantry-init in its place
}

// reach connects to the agent: where there is none, nothing is started. It
// returns nil for no agent.
func (a *Agent) reach(pidfd *os.File, pid int) (*handover, error) {
	if a == nil {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, a.failed(err)
	}
	if err = waitFor(fd, agentTime); err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: a.socket})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, a.failed(err)
	}
	return &handover{agent: a, conn: fd, pidfd: pidfd, pid: pid}, nil
}

// handover is that of an exec. Who needs privileges to load the filter is
// gantry-init; else the process it makes does.
func (r *ExecRequest) handover(plan stage1.Plan, init *os.File, pid int) (*handover, error) {
	agent := AgentOf(r.Spec, specs.State{ID: r.ID, Status: specs.StateRunning, Pid: r.Status.Pid, Bundle: r.Bundle})
	own := slices.ContainsFunc(plan.Steps, func(s stage1.Step) bool { return s.Seccomp != nil })
	reborn := isReborn(plan)
	if !own || reborn {
		init, pid = nil, 0
	}
	h, err := agent.reach(init, pid)
	if h != nil {
		h.reborn = own && reborn
	}
	return h, err
}

// close lets go of the connection; nil has none.
func (h *handover) close() {
	if h != nil && h.conn >= 0 {
		_ = unix.Close(h.conn)
		h.conn = -1
	}
}

// deliver fetches the listener a process has under a number and sends it on.
func (h *handover) deliver(number int) error {
	fd, err := unix.PidfdGetfd(int(h.pidfd.Fd()), number, 0)
	if err != nil {
		return fmt.Errorf("fetch the listener of the seccomp filter: %w", err)
	}
	defer unix.Close(fd)
	// The number is what somebody inside may have made up.
	if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil || !strings.Contains(name, "seccomp notify") {
		return fmt.Errorf("fetch the listener of the seccomp filter: descriptor %d is none: %s", number, name)
	}
	if err := h.send(fd); err != nil {
		return h.agent.failed(err)
	}
	h.until = time.Now().Add(agentTime)
	return nil
}

// send sends the Container Process State (config-linux.md), and ends the
// connection: there is one for each.
func (h *handover) send(listener int) error {
	defer h.close()
	state := h.agent.state
	if state.Pid == 0 {
		state.Pid = h.pid
	}
	b, err := json.Marshal(specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: h.pid,
		Metadata: h.agent.metadata, State: state,
	})
	if err != nil {
		return err
	}
	oob := unix.UnixRights(listener) // with the first part only
	for len(b) > 0 {
		n, err := unix.SendmsgN(h.conn, b, oob, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, oob = b[n:], nil
	}
	return nil
}

// late tells that the agent was asked and does not answer.
func (h *handover) late() error {
	if h == nil || h.until.IsZero() || time.Now().Before(h.until) {
		return nil
	}
	return h.agent.failed(fmt.Errorf("it has not let the app begin for %v", agentTime))
}

// listen takes the number of a listener, and delivers it as soon as the
// process is known whose it is.
func (s syncSocket) listen(h *handover, got *received) error {
	if got.listener < 0 || h == nil || !h.until.IsZero() {
		return nil
	}
	if h.pidfd == nil {
		process := got.child
		if h.reborn && len(got.spent) > 0 {
			process = got.spent[0]
		}
		if process == nil {
			return nil // gantry-init is about to tell
		}
		pid, err := childOf(process)
		if err != nil {
			return err
		}
		h.pidfd, h.pid = process, pid
	}
	if err := h.deliver(got.listener); err != nil {
		return err
	}
	if _, err := unix.SendmsgN(s.fd, []byte(stage1.ListenerTaken), nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("tell gantry-init that the agent has the listener: %w", err)
	}
	return nil
}

func listenerNumber(b []byte) int { return int(binary.NativeEndian.Uint32(b)) }
