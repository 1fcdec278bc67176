// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	mostFlows     = 1024
	flowIdle      = 120 * time.Second // the kernel's own for a flow that was answered
	datagramBurst = 32
	datagramMost  = 64 << 10
)

// flowKey tells clients of a port apart, and the addresses they spoke to.
type flowKey struct {
	listener int32
	client   [unix.SizeofSockaddrInet6]byte
	length   uint32 // of client
	local    pktinfo
}

// pktinfo is the address of ours that a datagram is for, or from: in_pktinfo's
// ipi_spec_dst or in6_pktinfo.
type pktinfo struct {
	address [16]byte
	index   uint32 // of the interface, where the address alone does not say it
}

// flow is one client of a UDP port: a socket that is connected to the pod.
type flow struct {
	key  flowKey
	slot int32
	last time.Time
}

// datagrams passes on what clients sent.
func (p *proxy) datagrams(l *listener) {
	if p.datagram == nil {
		p.datagram = make([]byte, datagramMost)
	}
	for range datagramBurst {
		key := flowKey{listener: l.slot}
		n, err := receive(p.slots[l.slot].fd, p.datagram, &key)
		if err == unix.ECONNREFUSED || err == unix.EINTR {
			continue // news of an answer that nobody took
		}
		if err != nil {
			return
		}
		i, ok := p.flows[key]
		if !ok {
			if i, ok = p.meet(l, key); !ok {
				continue
			}
		}
		s := &p.slots[i]
		s.flow.last = time.Now()
		// A pod that nobody listens in says so by an error of the next call.
		if send(s.fd, p.datagram[:n], nil) == unix.ECONNREFUSED {
			_ = send(s.fd, p.datagram[:n], nil)
		}
	}
}

// meet makes a socket for a new client; of too many the one that was silent
// for longest is forgotten.
func (p *proxy) meet(l *listener, key flowKey) (int32, bool) {
	if len(p.flows) >= mostFlows {
		p.forgetOne()
	}
	family := unix.AF_INET
	if l.six {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	if unix.Connect(fd, l.to) != nil {
		_ = unix.Close(fd)
		return 0, false
	}
	f := &flow{key: key}
	f.slot = p.add(slot{fd: fd, flow: f})
	p.flows[key] = f.slot
	p.want(f.slot, unix.EPOLLIN)
	return f.slot, true
}

// answer passes on what the pod answered to one client.
func (p *proxy) answer(f *flow) {
	for range datagramBurst {
		n, err := unix.Read(p.slots[f.slot].fd, p.datagram)
		if err == unix.ECONNREFUSED || err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		f.last = time.Now()
		_ = send(p.slots[f.key.listener].fd, p.datagram[:n], &f.key)
	}
}

// forget forgets flows that were last used before a time.
func (p *proxy) forget(before time.Time) {
	for key, i := range p.flows {
		if p.slots[i].flow.last.Before(before) {
			delete(p.flows, key)
			p.drop(i)
		}
	}
}

func (p *proxy) forgetOne() {
	var oldest *flow
	for _, i := range p.flows {
		if f := p.slots[i].flow; oldest == nil || f.last.Before(oldest.last) {
			oldest = f
		}
	}
	delete(p.flows, oldest.key)
	p.drop(oldest.slot)
}

// control is room for one control message with the larger pktinfo.
type control struct {
	header unix.Cmsghdr
	data   [unix.SizeofInet6Pktinfo]byte
}

// receive reads one datagram, and into key whom it is from and for.
func receive(fd int, b []byte, key *flowKey) (int, error) {
	var c control
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	m := unix.Msghdr{Name: &key.client[0], Namelen: uint32(len(key.client)), Iov: &iov, Control: (*byte)(unsafe.Pointer(&c))}
	m.SetIovlen(1)
	m.SetControllen(int(unsafe.Sizeof(c)))
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), 0)
	if errno != 0 {
		return 0, errno
	}
	key.length = m.Namelen
	switch {
	case m.Controllen == 0:
	case c.header.Level == unix.IPPROTO_IP && c.header.Type == unix.IP_PKTINFO:
		info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&c.data))
		copy(key.local.address[:], info.Spec_dst[:])
	case c.header.Level == unix.IPPROTO_IPV6 && c.header.Type == unix.IPV6_PKTINFO:
		info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&c.data))
		key.local.address = info.Addr
		if a := info.Addr; a[0] == 0xfe && a[1]&0xc0 == 0x80 {
			key.local.index = info.Ifindex
		}
	}
	return int(n), nil
}

// send sends one datagram: to a client, from the address it spoke to, or
// without a key where the socket is connected to. What finds no room is lost,
// as datagrams are.
func send(fd int, b []byte, to *flowKey) error {
	var c control
	var iov unix.Iovec
	if len(b) > 0 {
		iov.Base = &b[0]
	}
	iov.SetLen(len(b))
	m := unix.Msghdr{Iov: &iov}
	m.SetIovlen(1)
	if to != nil {
		m.Name, m.Namelen = &to.client[0], to.length
		m.Control = (*byte)(unsafe.Pointer(&c))
		m.SetControllen(c.from(to))
	}
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), unix.MSG_NOSIGNAL)
	if errno != 0 {
		return errno
	}
	return nil
}

// from fills in the source of an answer and returns the message's length.
func (c *control) from(key *flowKey) int {
	if key.length == unix.SizeofSockaddrInet6 {
		info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&c.data))
		info.Addr, info.Ifindex = key.local.address, key.local.index
		c.header.Level, c.header.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		c.header.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
	info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&c.data))
	copy(info.Spec_dst[:], key.local.address[:])
	c.header.Level, c.header.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
	c.header.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
	return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
}
