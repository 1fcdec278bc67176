// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns/network"
)

// expression is one instruction of nftables' machine: its name, and its
// attributes as encoded. Each loads register 1 and compares it, or acts.
type expression struct {
	name string
	data attributes
}

// What x/sys does not name (linux/netfilter/nf_conntrack_common.h).
const (
	accept        = 1
	drop          = 0
	ctStateKnown  = 2 | 4 // established, related
	ctStatusDNAT  = 1 << 5
	addressLocal  = unix.RTN_LOCAL
	rangeSpecific = 1 << 1 // NF_NAT_RANGE_PROTO_SPECIFIED
)

// meta and ct load a key; both name the register first and the key second.
func meta(key uint32) expression {
	return expression{"meta", attributes{}.u32(unix.NFTA_META_DREG, unix.NFT_REG_1).u32(unix.NFTA_META_KEY, key)}
}

func conntrack(key uint32) expression {
	return expression{"ct", attributes{}.u32(unix.NFTA_CT_DREG, unix.NFT_REG_1).u32(unix.NFTA_CT_KEY, key)}
}

func payload(base, offset, length uint32) expression {
	return expression{"payload", attributes{}.u32(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1).
		u32(unix.NFTA_PAYLOAD_BASE, base).u32(unix.NFTA_PAYLOAD_OFFSET, offset).u32(unix.NFTA_PAYLOAD_LEN, length)}
}

func compare(op uint32, value []byte) expression {
	return expression{"cmp", attributes{}.u32(unix.NFTA_CMP_SREG, unix.NFT_REG_1).u32(unix.NFTA_CMP_OP, op).
		nested(unix.NFTA_CMP_DATA, attributes{}.bytes(unix.NFTA_DATA_VALUE, value))}
}

func mask(bits []byte) expression {
	return expression{"bitwise", attributes{}.u32(unix.NFTA_BITWISE_SREG, unix.NFT_REG_1).u32(unix.NFTA_BITWISE_DREG, unix.NFT_REG_1).
		u32(unix.NFTA_BITWISE_LEN, uint32(len(bits))).
		nested(unix.NFTA_BITWISE_MASK, attributes{}.bytes(unix.NFTA_DATA_VALUE, bits)).
		nested(unix.NFTA_BITWISE_XOR, attributes{}.bytes(unix.NFTA_DATA_VALUE, make([]byte, len(bits))))}
}

func immediate(register uint32, value []byte) expression {
	return expression{"immediate", attributes{}.u32(unix.NFTA_IMMEDIATE_DREG, register).
		nested(unix.NFTA_IMMEDIATE_DATA, attributes{}.bytes(unix.NFTA_DATA_VALUE, value))}
}

// verdict ends a rule; chain is for a jump.
func verdict(code int, chain string) []expression {
	v := attributes{}.u32(unix.NFTA_VERDICT_CODE, uint32(int32(code)))
	if chain != "" {
		v = v.text(unix.NFTA_VERDICT_CHAIN, chain)
	}
	return []expression{{"immediate", attributes{}.u32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT).
		nested(unix.NFTA_IMMEDIATE_DATA, attributes{}.nested(unix.NFTA_DATA_VERDICT, v))}}
}

// family matches packets of an address's family.
func family(a netip.Addr) []expression {
	number := byte(unix.NFPROTO_IPV4)
	if a.Is6() {
		number = unix.NFPROTO_IPV6
	}
	return []expression{meta(unix.NFT_META_NFPROTO), compare(unix.NFT_CMP_EQ, []byte{number})}
}

func source(p netip.Prefix) []expression {
	return address(p, 12, 8)
}

func destination(p netip.Prefix) []expression {
	return address(p, 16, 24)
}

// address matches the address at an offset of the IPv4 or the IPv6 header, by
// as few instructions as nft itself, and so that it prints as a prefix.
func address(p netip.Prefix, at4, at6 uint32) []expression {
	at := at4
	if p.Addr().Is6() {
		at = at6
	}
	bits, value := p.Bits(), p.Masked().Addr().AsSlice()
	if bits == 0 {
		return family(p.Addr())
	}
	whole := bits%8 == 0
	if whole {
		value = value[:bits/8]
	}
	out := append(family(p.Addr()), payload(unix.NFT_PAYLOAD_NETWORK_HEADER, at, uint32(len(value))))
	if !whole {
		ones := net.CIDRMask(bits, p.Addr().BitLen())
		out = append(out, mask(ones))
	}
	return append(out, compare(unix.NFT_CMP_EQ, value))
}

// by matches packets by the name of the interface they came or leave by.
func by(key uint32, name string) []expression {
	return []expression{meta(key), compare(unix.NFT_CMP_EQ, interfaceName(name))}
}

// outside matches packets whose interface is another one.
func outside(key uint32, name string) []expression {
	return []expression{meta(key), compare(unix.NFT_CMP_NEQ, interfaceName(name))}
}

func interfaceName(name string) []byte {
	value := make([]byte, unix.IFNAMSIZ)
	copy(value, name)
	return value
}

// toThisHost matches packets whose destination is an address of this host.
func toThisHost() []expression {
	return []expression{
		{"fib", attributes{}.u32(unix.NFTA_FIB_DREG, unix.NFT_REG_1).
			u32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE).u32(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)},
		compare(unix.NFT_CMP_EQ, binary.NativeEndian.AppendUint32(nil, addressLocal)),
	}
}

func of(protocol string) []expression {
	number := byte(unix.IPPROTO_TCP)
	if protocol == network.UDP {
		number = unix.IPPROTO_UDP
	}
	return []expression{meta(unix.NFT_META_L4PROTO), compare(unix.NFT_CMP_EQ, []byte{number})}
}

// toPorts matches the destination port of TCP and UDP.
func toPorts(first, last uint16) []expression {
	port := payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)
	if first == last {
		return []expression{port, compare(unix.NFT_CMP_EQ, bigEndian(first))}
	}
	return []expression{port, compare(unix.NFT_CMP_GTE, bigEndian(first)), compare(unix.NFT_CMP_LTE, bigEndian(last))}
}

func bigEndian(n uint16) []byte {
	return binary.BigEndian.AppendUint16(nil, n)
}

// known matches packets of connections that exist, and errors about them.
func known() []expression {
	return bits(unix.NFT_CT_STATE, ctStateKnown)
}

// redirected matches packets of connections that came by a published port.
func redirected() []expression {
	return bits(unix.NFT_CT_STATUS, ctStatusDNAT)
}

func bits(key, wanted uint32) []expression {
	return []expression{
		conntrack(key), mask(binary.NativeEndian.AppendUint32(nil, wanted)),
		compare(unix.NFT_CMP_NEQ, make([]byte, 4)),
	}
}

// dnat changes the destination; port 0 keeps the port.
func dnat(to netip.Addr, port uint16) []expression {
	number := uint32(unix.NFPROTO_IPV4)
	if to.Is6() {
		number = unix.NFPROTO_IPV6
	}
	data := attributes{}.u32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT).u32(unix.NFTA_NAT_FAMILY, number).
		u32(unix.NFTA_NAT_REG_ADDR_MIN, unix.NFT_REG_1)
	out := []expression{immediate(unix.NFT_REG_1, to.AsSlice())}
	if port != 0 {
		data = data.u32(unix.NFTA_NAT_REG_PROTO_MIN, unix.NFT_REG_2).u32(unix.NFTA_NAT_FLAGS, rangeSpecific)
		out = append(out, immediate(unix.NFT_REG_2, bigEndian(port)))
	}
	return append(out, expression{"nat", data})
}

func masquerade() []expression {
	return []expression{{"masq", nil}}
}
