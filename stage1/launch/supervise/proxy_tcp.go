// SPDX-License-Identifier: Apache-2.0

package supervise

import "golang.org/x/sys/unix"

// conn is a TCP connection: what the client says goes up, what the pod says
// comes down.
type conn struct {
	client, pod int32 // slots
	connecting  bool
	up, down    way
}

// way is one direction. It takes from its source only when its pipe is empty,
// so that whoever does not read holds the other back, and nothing is kept here.
type way struct {
	pipe   pipe
	filled int  // bytes in the pipe
	ended  bool // the source has said all
	closed bool // and the sink has been told
}

// pipe is what splice moves bytes through. A connection has one only while
// bytes are in it.
type pipe struct{ r, w int }

const (
	pipeSize    = 256 << 10
	sparePipes  = 16
	acceptBurst = 16
	spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
	trouble     = unix.EPOLLERR | unix.EPOLLHUP
)

// accept takes clients and begins to connect them to the pod.
func (p *proxy) accept(l *listener) {
	for range acceptBurst {
		if p.streams >= p.most {
			p.pause(true)
			return
		}
		fd, _, err := unix.Accept4(p.slots[l.slot].fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == unix.EMFILE || err == unix.ENFILE || err == unix.ENOBUFS || err == unix.ENOMEM {
			p.pause(true)
			return
		}
		if err != nil {
			return
		}
		p.connect(l, fd)
	}
}

// pause stops accepting: further clients wait in the backlog.
func (p *proxy) pause(paused bool) {
	if p.paused == paused {
		return
	}
	p.paused = paused
	for i := range p.slots {
		if l := p.slots[i].listener; l != nil && !l.udp {
			if paused {
				p.want(int32(i), 0)
			} else {
				p.want(int32(i), unix.EPOLLIN)
			}
		}
	}
}

func (p *proxy) connect(l *listener, client int) {
	family := unix.AF_INET
	if l.six {
		family = unix.AF_INET6
	}
	pod, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		reset(client)
		return
	}
	if err := unix.Connect(pod, l.to); err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(pod)
		reset(client)
		return
	}
	for _, fd := range []int{client, pod} {
		// A peer that vanished does not keep its place for ever; and what is
		// passed on is not held back to be made bigger.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	c := &conn{connecting: true}
	c.client = p.add(slot{fd: client, conn: c})
	c.pod = p.add(slot{fd: pod, conn: c})
	p.streams++
	p.want(c.pod, unix.EPOLLOUT)
}

// reset has the peer see that the connection did not end as connections do.
func reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// turnConn goes on with a connection after something happened at one end.
func (p *proxy) turnConn(c *conn, at int32, events uint32) {
	if events&unix.EPOLLERR != 0 || c.connecting && events&trouble != 0 {
		p.abort(c)
		return
	}
	c.connecting = false
	client, pod := p.slots[c.client].fd, p.slots[c.pod].fd
	source, sink := events&(unix.EPOLLIN|unix.EPOLLHUP) != 0, events&(unix.EPOLLOUT|unix.EPOLLHUP) != 0
	if at == c.pod {
		source, sink = sink, source
	}
	if source && !p.move(&c.up, client, pod) || sink && !p.move(&c.down, pod, client) {
		p.abort(c)
		return
	}
	if c.up.closed && c.down.closed {
		p.end(c)
		return
	}
	var atClient, atPod uint32
	c.up.wants(&atClient, &atPod)
	c.down.wants(&atPod, &atClient)
	p.want(c.client, atClient)
	p.want(c.pod, atPod)
}

func (w *way) wants(source, sink *uint32) {
	switch {
	case w.closed:
	case w.filled > 0:
		*sink |= unix.EPOLLOUT
	default:
		*source |= unix.EPOLLIN
	}
}

// move carries at most one pipe full from source to sink. It is false when the
// connection is broken.
func (p *proxy) move(w *way, source, sink int) bool {
	if w.closed {
		return true
	}
	if w.filled == 0 && !w.ended && !p.fill(w, source) {
		return false
	}
	for w.filled > 0 {
		n, err := unix.Splice(w.pipe.r, nil, sink, nil, w.filled, spliceFlags)
		if err == unix.EAGAIN {
			return true
		}
		if err != nil || n <= 0 {
			return false
		}
		w.filled -= int(n)
	}
	if w.pipe.w != 0 {
		p.giveBack(w)
	}
	if w.ended {
		w.closed = true
		_ = unix.Shutdown(sink, unix.SHUT_WR)
	}
	return true
}

// fill takes what the source has said.
func (p *proxy) fill(w *way, source int) bool {
	if !p.take(w) {
		return false
	}
	n, err := unix.Splice(source, nil, w.pipe.w, nil, pipeSize, spliceFlags)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil:
		return false
	case n == 0:
		w.ended = true
	}
	w.filled = int(max(n, 0))
	return true
}

// take gives a way a pipe that is empty.
func (p *proxy) take(w *way) bool {
	if n := len(p.pipes); n > 0 {
		w.pipe = p.pipes[n-1]
		p.pipes = p.pipes[:n-1]
		return true
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return false
	}
	w.pipe = pipe{ends[0], ends[1]}
	// Refused to those who have many: then it is smaller.
	_, _ = unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, pipeSize)
	return true
}

func (p *proxy) giveBack(w *way) {
	if w.filled == 0 && len(p.pipes) < sparePipes {
		p.pipes = append(p.pipes, w.pipe)
	} else {
		_ = unix.Close(w.pipe.r)
		_ = unix.Close(w.pipe.w)
	}
	w.pipe = pipe{}
}

// abort ends a connection so that both see that something is missing.
func (p *proxy) abort(c *conn) {
	for _, i := range []int32{c.client, c.pod} {
		_ = unix.SetsockoptLinger(p.slots[i].fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	p.end(c)
}

func (p *proxy) end(c *conn) {
	for _, w := range []*way{&c.up, &c.down} {
		if w.pipe.w != 0 {
			p.giveBack(w)
		}
	}
	p.drop(c.client)
	p.drop(c.pod)
	p.streams--
	p.pause(false)
}
