// SPDX-License-Identifier: Apache-2.0

// Package publish takes ports of the host for a pod by binding them, before
// the pod is made: a port that is occupied is noticed while nothing is there
// yet, and nobody else can take it while the pod runs. Connections that
// nftables does not redirect arrive at these sockets.
package publish

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns/network"
)

// Socket is one bound port of one address.
type Socket struct {
	File      *os.File
	UDP       bool
	Address   netip.AddrPort // of the host
	Container uint16
}

// Ports are a pod's published ports while they are held.
type Ports struct {
	Ports   []network.Port // as asked for, with the numbers the kernel chose
	Sockets []Socket
}

// Close gives the ports back.
func (all *Ports) Close() {
	for _, s := range all.Sockets {
		_ = s.File.Close()
	}
	all.Sockets = nil
}

// Occupied is a port that somebody has.
type Occupied struct {
	Port network.Port // a single one
	Err  error
}

func (o *Occupied) Error() string {
	return fmt.Sprintf("publish port %s/%s: %v", o.Port.Bound(), o.Port.Protocol, o.Err)
}

// Unwrap returns the kernel's word.
func (o *Occupied) Unwrap() error { return o.Err }

// backlog is of connections that the proxy has not accepted.
const backlog = 1024

// attempts bounds the search for a number that is free in both families.
const attempts = 64

// Bind takes every port in the calling thread's network namespace.
func Bind(ports []network.Port) (_ *Ports, err error) {
	all := &Ports{}
	defer func() {
		if err != nil {
			all.Close()
		}
	}()
	for _, p := range ports {
		if p.HostPort == 0 && p.Len() > 1 {
			// The kernel has no way to be asked for neighbours.
			for i := range p.Len() {
				if err := all.bind(p.At(i)); err != nil {
					return nil, err
				}
			}
			continue
		}
		if err := all.bind(p); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (all *Ports) bind(p network.Port) (err error) {
	if p.HostPort == 0 {
		if p.HostPort, err = all.choose(p); err != nil {
			return err
		}
		all.Ports = append(all.Ports, p)
		return nil
	}
	for i := range p.Len() {
		if err := all.bindBoth(p.At(i)); err != nil {
			return err
		}
	}
	all.Ports = append(all.Ports, p)
	return nil
}

// choose has the kernel choose a number, the same one for both families.
func (all *Ports) choose(p network.Port) (uint16, error) {
	before := len(all.Sockets)
	for range attempts {
		err := all.bindBoth(p)
		if err == nil {
			return all.Sockets[before].Address.Port(), nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return 0, err
		}
	}
	return 0, &Occupied{p, errors.New("no number is free for both IPv4 and IPv6")}
}

// bindBoth binds one port for each family it is meant for. A host without
// IPv6 has only the other.
func (all *Ports) bindBoth(p network.Port) error {
	if p.Host.IsValid() {
		s, err := bind(p, p.Host)
		if err == nil {
			all.Sockets = append(all.Sockets, s)
		}
		return err
	}
	four, err := bind(p, netip.IPv4Unspecified())
	if err != nil {
		return err
	}
	p.HostPort = four.Address.Port()
	six, err := bind(p, netip.IPv6Unspecified())
	switch {
	case err == nil:
		all.Sockets = append(all.Sockets, four, six)
	case errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL):
		all.Sockets = append(all.Sockets, four)
	default:
		_ = four.File.Close()
		return err
	}
	return nil
}

// bind returns a socket that is bound, and listens if it is of TCP: with
// SO_REUSEADDR, without which connections of a pod that ended would keep the
// port for a minute, it is listening that excludes others.
func bind(p network.Port, address netip.Addr) (Socket, error) {
	s := Socket{UDP: p.Protocol == network.UDP, Container: p.Container}
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if address.Is6() {
		family = unix.AF_INET6
	}
	if s.UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s, fmt.Errorf("publish port %s/%s: open a socket: %w", p.Bound(), p.Protocol, err)
	}
	if err := bindTo(fd, address, p.HostPort, s.UDP); err != nil {
		_ = unix.Close(fd)
		return s, explain(p, err)
	}
	port := p.HostPort
	if port == 0 {
		port = boundPort(fd)
	}
	s.Address = netip.AddrPortFrom(address, port)
	s.File = os.NewFile(uintptr(fd), p.Protocol+" "+s.Address.String())
	return s, nil
}

func bindTo(fd int, address netip.Addr, port uint16, udp bool) error {
	var to unix.Sockaddr
	if address.Is4() {
		to = &unix.SockaddrInet4{Port: int(port), Addr: address.As4()}
	} else {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
		to = &unix.SockaddrInet6{Port: int(port), Addr: address.As16()}
	}
	if udp {
		// An answer has to come from the address that was asked.
		level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
		if address.Is6() {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
		}
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return err
		}
		return unix.Bind(fd, to)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, to); err != nil {
		return err
	}
	return unix.Listen(fd, backlog)
}

func boundPort(fd int) uint16 {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port)
	case *unix.SockaddrInet6:
		return uint16(a.Port)
	}
	return 0
}

func explain(p network.Port, err error) error {
	switch err {
	case unix.EADDRINUSE:
		return &Occupied{p, err}
	case unix.EADDRNOTAVAIL:
		if p.Host.IsValid() {
			return fmt.Errorf("publish port %s/%s: %s is not an address of this host: %w", p.Bound(), p.Protocol, p.Host, err)
		}
	case unix.EACCES:
		return fmt.Errorf("publish port %s/%s: ports below net.ipv4.ip_unprivileged_port_start take CAP_NET_BIND_SERVICE: %w", p.Bound(), p.Protocol, err)
	}
	return fmt.Errorf("publish port %s/%s: %w", p.Bound(), p.Protocol, err)
}
