// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// proxy carries what arrives at a pod's published ports and was not redirected
// by nftables: from 127.0.0.1, from [::1], and everything where there is no
// nftables. All its sockets are in one epoll set, whose descriptor is one of
// those the supervisor's loop polls.
type proxy struct {
	epoll    int
	slots    []slot // by number, which is what the kernel keeps for us
	free     []int32
	events   []unix.EpollEvent
	streams  int  // TCP connections
	most     int  // of them
	paused   bool // no connection is accepted until one has ended
	pipes    []pipe
	flows    map[flowKey]int32
	datagram []byte
	idle     time.Duration // a UDP flow is forgotten after as much silence
	checked  time.Time     // when that was last looked at
}

// slot is what a descriptor in the set stands for.
type slot struct {
	fd       int
	turn     int32  // how often it was given away: an event for an earlier one is not for this
	interest uint32 // what the set has it for; 0: it is not in the set
	listener *listener
	conn     *conn // one end of a TCP connection
	flow     *flow
}

// listener is a published port of one address.
type listener struct {
	slot int32
	udp  bool
	to   unix.Sockaddr
	six  bool // to is an IPv6 address
}

// descriptorsKept are for all but connections; a connection has two of its own
// and, while one side does not read, two of a pipe.
const (
	descriptorsKept    = 128
	descriptorsPerConn = 4
	mostConns          = 16 << 10
)

// openProxy returns nil where nothing is published.
func openProxy(forwards []stage1.Forward) (*proxy, error) {
	if len(forwards) == 0 {
		return nil, nil
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	p := &proxy{epoll: epoll, events: make([]unix.EpollEvent, 64), flows: map[flowKey]int32{}, idle: flowIdle}
	p.most = connectionsAllowed(len(forwards))
	for _, f := range forwards {
		l := &listener{udp: f.UDP, to: target(f), six: len(f.Address) == 16}
		if l.to == nil {
			return nil, unix.EAFNOSUPPORT
		}
		unix.CloseOnExec(f.FD)
		if err := unix.SetNonblock(f.FD, true); err != nil {
			return nil, err
		}
		l.slot = p.add(slot{fd: f.FD, listener: l})
		p.want(l.slot, unix.EPOLLIN)
	}
	return p, nil
}

// fd is what the supervisor polls: -1 is passed over.
func (p *proxy) fd() int {
	if p == nil {
		return -1
	}
	return p.epoll
}

// connectionsAllowed is what the limit of open files leaves.
func connectionsAllowed(listeners int) int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 64
	}
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
			_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
		}
	}
	left := int64(min(limit.Cur, 1<<20)) - int64(listeners) - descriptorsKept - mostFlows
	return int(min(max(left/descriptorsPerConn, 16), mostConns))
}

// target is where a forward leads.
func target(f stage1.Forward) unix.Sockaddr {
	switch len(f.Address) {
	case 4:
		return &unix.SockaddrInet4{Port: f.Port, Addr: [4]byte(f.Address)}
	case 16:
		return &unix.SockaddrInet6{Port: f.Port, Addr: [16]byte(f.Address)}
	}
	return nil
}

// add finds a slot.
func (p *proxy) add(s slot) int32 {
	if n := len(p.free); n > 0 {
		i := p.free[n-1]
		p.free = p.free[:n-1]
		s.turn = p.slots[i].turn
		p.slots[i] = s
		return i
	}
	p.slots = append(p.slots, s)
	return int32(len(p.slots) - 1)
}

// drop closes a slot's descriptor, which takes it out of the set.
func (p *proxy) drop(i int32) {
	_ = unix.Close(p.slots[i].fd)
	p.slots[i] = slot{fd: -1, turn: p.slots[i].turn + 1}
	p.free = append(p.free, i)
}

// want says what a descriptor is waited for. With nothing to wait for it is
// not in the set: the kernel would go on telling of a peer that is gone.
func (p *proxy) want(i int32, interest uint32) {
	s := &p.slots[i]
	if s.interest == interest {
		return
	}
	op := unix.EPOLL_CTL_MOD
	switch {
	case s.interest == 0:
		op = unix.EPOLL_CTL_ADD
	case interest == 0:
		op = unix.EPOLL_CTL_DEL
	}
	s.interest = interest
	_ = unix.EpollCtl(p.epoll, op, s.fd, &unix.EpollEvent{Events: interest, Fd: i, Pad: s.turn})
}

// turn deals with what is ready. One call does a bounded amount of work, so
// that a busy port delays neither signals nor the end of the app.
func (p *proxy) turn() {
	n, err := unix.EpollWait(p.epoll, p.events, 0)
	if err != nil {
		return
	}
	for _, e := range p.events[:n] {
		s := p.slots[e.Fd]
		switch {
		case s.turn != e.Pad: // closed by an event before this one
		case s.conn != nil:
			p.turnConn(s.conn, e.Fd, e.Events)
		case s.flow != nil:
			p.answer(s.flow)
		case s.listener.udp:
			p.datagrams(s.listener)
		default:
			p.accept(s.listener)
		}
	}
}

// patience is how long nothing has to be looked at; negative: for ever.
func (p *proxy) patience() time.Duration {
	switch {
	case p == nil:
		return -1
	case p.paused:
		return time.Second
	case len(p.flows) > 0:
		return p.idle / 4
	}
	return -1
}

// expire forgets what has been silent for too long, and tries again what was
// not possible.
func (p *proxy) expire() {
	if p == nil {
		return
	}
	wait := p.patience()
	now := time.Now()
	if wait < 0 || now.Sub(p.checked) < wait {
		return
	}
	p.checked = now
	p.forget(now.Add(-p.idle))
	p.pause(false)
}
