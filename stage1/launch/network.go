// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// Attached is what the networks of a pod leave in the hands of its supervisor.
type Attached struct {
	Table   *os.File   // socket that owns the pod's nftables table; may be nil
	Drop    []byte     // message that deletes the table
	Links   []byte     // messages that delete the host's ends of its interfaces
	Held    []*os.File // kept open until the pod ends
	Helper  *os.File   // pidfd of a child that carries the packets, which ends with the pod; may be nil
	Forward []Forward
	Unlink  []string // files removed at the end: leases
	Hosts   []Hosts  // networks whose pods know each other
	Release []string // program run and waited for at the end
	Undo    func()   // takes all of it back, the files too, when the launch fails later; may be nil
}

// Hosts is a network whose pods are told when this one has ended.
type Hosts = stage1.Hosts

// Lender is a pod whose network another has joined.
type Lender struct {
	App   *os.File // pidfd
	Links []byte   // as in its Attached
}

// Forward is a bound port of the host and where in the pod the supervisor
// carries what arrives at it.
type Forward struct {
	File *os.File // listening, or a bound UDP socket
	UDP  bool
	To   netip.AddrPort
}

// attachment is a Network at work.
type attachment struct {
	done   chan struct{}
	cancel context.CancelFunc
	ns     *os.File
	got    *Attached
	err    error
}

// network waits for the networks before anything is done that may be about
// them: hooks, sysctls of an interface.
func (p *planner) network() error {
	if p.o.Network || devicesLater(p.spec) {
		p.add(stage1.Step{Wait: &stage1.Wait{Name: stage1.WaitNetwork, Ask: true}})
	}
	return nil
}

// attach begins to attach the namespace of a process that is our child, and
// pushes its undo, which also waits for its end.
func (r *Request) attach(ctx context.Context, all *hold, pid int) *attachment {
	if r.Network == nil {
		return nil
	}
	a := &attachment{done: make(chan struct{})}
	ctx, a.cancel = context.WithCancel(ctx)
	begin := func() {
		defer close(a.done)
		if a.ns, a.err = os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)); a.err == nil {
			a.got, a.err = r.Network(ctx, a.ns)
		}
	}
	if r.NetworkHere {
		begin()
	} else {
		go begin()
	}
	all.Push(a.undo)
	return a
}

func (a *attachment) undo() {
	a.cancel()
	<-a.done
	if a.got != nil && a.got.Undo != nil {
		a.got.Undo()
	}
	if a.ns != nil {
		_ = a.ns.Close()
	}
}

// wait returns when it is over; a signal gives it up.
func (a *attachment) wait(signals *signals) error {
	for {
		select {
		case <-a.done:
			return a.err
		case <-time.After(time.Second):
			if signals != nil && signals.pending() {
				a.cancel()
				<-a.done
				return ErrInterrupted
			}
		}
	}
}

// waitAttached is wait for a launch whose gantry-init may ask whether it is
// attached.
func (s syncSocket) waitAttached(signals *signals, h *handover, a *attachment) (received, error) {
	got, err := s.wait(signals, h)
	if a == nil || err != nil || !got.waits {
		return got, err
	}
	if err := a.wait(signals); err != nil {
		return got, err
	}
	got.waits = false
	if _, err := unix.SendmsgN(s.fd, []byte(stage1.WaitNetwork), nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return got, fmt.Errorf("go on when the network is attached: %w", err)
	}
	err = s.waitMore(signals, h, &got)
	return got, err
}

// keep gives the supervisor what an attachment left, and the namespace.
func (s *Started) keep(a *attachment) {
	if a == nil {
		return
	}
	c := &s.contract
	c.Held = append(c.Held, s.inheritFile(a.ns))
	if a.got.Table != nil {
		c.Table, c.Drop = s.inheritFile(a.got.Table), a.got.Drop
	}
	if a.got.Helper != nil {
		c.Helper = s.inheritFile(a.got.Helper)
	}
	c.Links = a.got.Links
	for _, f := range a.got.Held {
		c.Held = append(c.Held, s.inheritFile(f))
	}
	for _, f := range a.got.Forward {
		c.Forward = append(c.Forward, stage1.Forward{
			FD: s.inheritFile(f.File), UDP: f.UDP, Address: f.To.Addr().AsSlice(), Port: int(f.To.Port()),
		})
	}
	c.Unlink, c.Hosts, c.Release = append(c.Unlink, a.got.Unlink...), a.got.Hosts, a.got.Release
}
