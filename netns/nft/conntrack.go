// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns/network"
)

// Of linux/netfilter/nfnetlink_conntrack.h, which x/sys does not have.
const (
	ctMessageGet    = 1
	ctMessageDelete = 2

	ctTupleOrig   = 1
	ctTupleReply  = 2
	ctID          = 12
	ctFilter      = 25
	ctTupleIP     = 1
	ctTupleProto  = 2
	ctIP4Source   = 1
	ctIP6Source   = 3
	ctProtoNumber = 1
	ctProtoTo     = 3 // destination port
	filterOrig    = 1
	filterReply   = 2
	filterSource  = 1 << 0
	filterNumber  = 1 << 3
	attributeMask = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

// Forget drops what connection tracking knows of addresses, in the calling
// thread's network namespace. A datagram of a flow that a published port led to
// a pod that is gone would otherwise reach the next pod with its address.
func Forget(addresses ...netip.Addr) error {
	fd, err := socket()
	if errors.Is(err, ErrUnsupported) {
		return nil // nothing is tracked
	}
	if err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	defer unix.Close(fd)
	for _, a := range addresses {
		// Who began a connection is the source of its first direction, and who
		// answers, whatever name it was called by, is that of the second.
		for _, tuple := range []uint16{ctTupleOrig, ctTupleReply} {
			found, err := tracked(fd, a, tuple)
			if err == nil {
				err = untrack(fd, a, found)
			}
			if err != nil {
				return fmt.Errorf("forget connections of %s: %w", a, err)
			}
		}
	}
	return nil
}

// ForgetOthers drops what connection tracking knows of datagrams to the table's
// published ports that do not lead to its pod: whoever sends on and on from one
// port would reach a pod that is gone, or nobody, as long as he does. The table
// is in force already.
func (t Table) ForgetOthers() error {
	if !slices.ContainsFunc(t.Ports, func(p network.Port) bool { return p.Protocol == network.UDP }) {
		return nil
	}
	fd, err := socket()
	if err != nil {
		return fmt.Errorf("forget datagrams: %w", err)
	}
	defer unix.Close(fd)
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		var found []attributes
		err = dump(fd, ctMessage(ctMessageGet, unix.NLM_F_DUMP, any, datagrams()), func(_ byte, data []byte) {
			if name := t.elsewhere(data, any.Is6()); name != nil {
				found = append(found, name)
			}
		})
		if err == nil {
			err = untrack(fd, any, found)
		}
		if err != nil {
			return fmt.Errorf("forget datagrams: %w", err)
		}
	}
	return nil
}

// datagrams has the kernel leave out what is not UDP, since Linux 5.8.
func datagrams() attributes {
	flag := func(kind uint16, n uint32) attributes {
		return attributes{}.bytes(kind, binary.NativeEndian.AppendUint32(nil, n))
	}
	proto := attributes{}.nested(ctTupleProto, attributes{}.bytes(ctProtoNumber, []byte{unix.IPPROTO_UDP}))
	return attributes{}.nested(ctTupleOrig, proto).
		nested(ctFilter, append(flag(filterOrig, filterNumber), flag(filterReply, 0)...))
}

// elsewhere is what names a connection to a published UDP port that another
// address than the pod's answers.
func (t Table) elsewhere(data []byte, six bool) attributes {
	orig, _ := attribute(data, ctTupleOrig)
	id, _ := attribute(data, ctID)
	reply, _ := attribute(data, ctTupleReply)
	_, to := addresses(orig, six)
	from, _ := addresses(reply, six)
	port, udp := datagramPort(orig)
	if !udp || !t.publishes(to, port) {
		return nil
	}
	for _, a := range t.Attachments {
		if slices.ContainsFunc(a.Addresses, func(p netip.Prefix) bool { return p.Addr() == from }) {
			return nil
		}
	}
	return attributes{}.nested(ctTupleOrig, orig).bytes(ctID, id)
}

func (t Table) publishes(to netip.Addr, port uint16) bool {
	return slices.ContainsFunc(t.Ports, func(p network.Port) bool {
		return p.Protocol == network.UDP && port >= p.HostPort && int(port) < int(p.HostPort)+p.Len() &&
			(!p.Host.IsValid() || p.Host.IsUnspecified() || p.Host == to)
	})
}

// addresses are the source and the destination of a tuple.
func addresses(tuple []byte, six bool) (from, to netip.Addr) {
	ip, _ := attribute(tuple, ctTupleIP)
	source := uint16(ctIP4Source)
	if six {
		source = ctIP6Source
	}
	b, _ := attribute(ip, source)
	from, _ = netip.AddrFromSlice(b)
	b, _ = attribute(ip, source+1)
	to, _ = netip.AddrFromSlice(b)
	return from, to
}

// datagramPort is the destination port of a tuple of UDP.
func datagramPort(tuple []byte) (uint16, bool) {
	proto, _ := attribute(tuple, ctTupleProto)
	number, _ := attribute(proto, ctProtoNumber)
	port, _ := attribute(proto, ctProtoTo)
	if len(number) != 1 || number[0] != unix.IPPROTO_UDP || len(port) != 2 {
		return 0, false
	}
	return binary.BigEndian.Uint16(port), true
}

func ctFamily(a netip.Addr) (family byte, source uint16) {
	if a.Is4() {
		return unix.AF_INET, ctIP4Source
	}
	return unix.AF_INET6, ctIP6Source
}

func ctMessage(kind, flags uint16, a netip.Addr, data attributes) []byte {
	family, _ := ctFamily(a)
	b := &batch{sequence: 1}
	b.header(unix.NFNL_SUBSYS_CTNETLINK<<8|kind, unix.NLM_F_REQUEST|flags, family, 0, data)
	return b.buf
}

// tracked asks for the connections with an address as the source of a tuple:
// what names each, for its deletion. Kernels before 5.8 do not filter, and
// those since leave out just the IPv6 address asked for (seen on 6.18).
func tracked(fd int, a netip.Addr, tuple uint16) (found []attributes, err error) {
	_, source := ctFamily(a)
	var only [3]uint32
	only[tuple] = filterSource
	flag := func(kind uint16) attributes {
		return attributes{}.bytes(kind, binary.NativeEndian.AppendUint32(nil, only[kind]))
	}
	var query attributes
	if a.Is4() {
		query = query.nested(tuple, attributes{}.nested(ctTupleIP, attributes{}.bytes(source, a.AsSlice()))).
			nested(ctFilter, append(flag(filterOrig), flag(filterReply)...))
	}
	err = dump(fd, ctMessage(ctMessageGet, unix.NLM_F_DUMP, a, query), func(_ byte, data []byte) {
		if name := connection(data, a, tuple); name != nil {
			found = append(found, name)
		}
	})
	return found, err
}

// eachMessage calls f with the family and the attributes of everything in a
// part of a dump.
func eachMessage(b []byte, f func(byte, []byte)) (done bool, err error) {
	const body = unix.SizeofNlMsghdr + sizeofNfgenmsg
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return true, errors.New("the kernel's answer is malformed")
		}
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if size < unix.SizeofNlMsghdr+4 {
				return true, errors.New("the kernel's answer is malformed")
			}
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])))
			if errno == 0 || errno == unix.EOPNOTSUPP || errno == unix.EINVAL {
				return true, nil // the kernel was built without it
			}
			return true, errno
		default:
			if size >= body {
				f(b[unix.SizeofNlMsghdr], b[body:size])
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}

// connection is what names a connection, if an address is the source of one of
// its tuples.
func connection(data []byte, a netip.Addr, tuple uint16) attributes {
	orig, _ := attribute(data, ctTupleOrig)
	id, _ := attribute(data, ctID)
	which, _ := attribute(data, tuple)
	ip, _ := attribute(which, ctTupleIP)
	_, source := ctFamily(a)
	address, ok := attribute(ip, source)
	if !ok || !bytes.Equal(address, a.AsSlice()) {
		return nil
	}
	return attributes{}.nested(ctTupleOrig, orig).bytes(ctID, id)
}

// attribute is the value of the first attribute of a kind.
func attribute(b []byte, kind uint16) ([]byte, bool) {
	for len(b) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return nil, false
		}
		if binary.NativeEndian.Uint16(b[2:])&attributeMask == kind {
			return b[unix.SizeofNlAttr:size], true
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil, false
}

func untrack(fd int, a netip.Addr, found []attributes) error {
	buf := make([]byte, 4<<10)
	for _, name := range found {
		if err := unix.Sendto(fd, ctMessage(ctMessageDelete, unix.NLM_F_ACK, a, name), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err != nil {
			return err
		}
		if _, err := eachMessage(buf[:n], func(byte, []byte) {}); err != nil && err != unix.ENOENT {
			return err // not that it has ended meanwhile
		}
	}
	return nil
}
