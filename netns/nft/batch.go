// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// flagOwner is NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h, since 5.12.
const flagOwner = 2

const sizeofNfgenmsg = 4

// Priorities, as "nft" names them.
const (
	priorityDstnat = -100
	priorityFilter = 0
	prioritySrcnat = 100
)

// attributes are netlink attributes, encoded.
type attributes []byte

func (a attributes) bytes(kind uint16, value []byte) attributes {
	a = binary.NativeEndian.AppendUint16(a, uint16(unix.SizeofNlAttr+len(value)))
	a = binary.NativeEndian.AppendUint16(a, kind)
	a = append(a, value...)
	return append(a, make([]byte, -len(value)&3)...)
}

func (a attributes) text(kind uint16, s string) attributes {
	return a.bytes(kind, append([]byte(s), 0))
}

// u32 is in network order, as all numbers of nfnetlink.
func (a attributes) u32(kind uint16, n uint32) attributes {
	return a.bytes(kind, binary.BigEndian.AppendUint32(nil, n))
}

func (a attributes) nested(kind uint16, inner attributes) attributes {
	return a.bytes(kind|unix.NLA_F_NESTED, inner)
}

// hook is where a base chain is called.
type hook struct {
	kind     string
	number   uint32
	priority int32
}

// batch is a transaction on one table.
type batch struct {
	name     string
	buf      []byte
	sequence uint32
	last     int // where the last message begins
}

func newBatch(table string) *batch {
	b := &batch{name: table, buf: make([]byte, 0, 16<<10)}
	b.bound(unix.NFNL_MSG_BATCH_BEGIN)
	return b
}

// bound begins or ends a batch: such a message names the subsystem it is for.
func (b *batch) bound(kind uint16) {
	b.header(kind, unix.NLM_F_REQUEST, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
}

func (b *batch) message(kind, flags uint16, a attributes) {
	b.last = len(b.buf)
	b.header(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_REQUEST|flags, unix.NFPROTO_INET, 0, a)
}

func (b *batch) header(kind, flags uint16, family byte, resource uint16, a attributes) {
	length := unix.SizeofNlMsghdr + sizeofNfgenmsg + len(a)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, uint32(length))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, flags)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, b.sequence)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, 0)
	b.buf = append(b.buf, family, unix.NFNETLINK_V0)
	b.buf = binary.BigEndian.AppendUint16(b.buf, resource)
	b.buf = append(b.buf, a...)
	b.sequence++
}

// end closes the batch. The last message asks for an answer: whoever read that
// has read every error before.
func (b *batch) end() []byte {
	flags := b.buf[b.last+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	b.bound(unix.NFNL_MSG_BATCH_END)
	return b.buf
}

func (b *batch) table() {
	b.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		attributes{}.text(unix.NFTA_TABLE_NAME, b.name).u32(unix.NFTA_TABLE_FLAGS, flagOwner))
}

// chain adds one; with a hook its policy is to accept.
func (b *batch) chain(name string, h *hook) {
	a := attributes{}.text(unix.NFTA_CHAIN_TABLE, b.name).text(unix.NFTA_CHAIN_NAME, name)
	if h != nil {
		a = a.nested(unix.NFTA_CHAIN_HOOK, attributes{}.u32(unix.NFTA_HOOK_HOOKNUM, h.number).
			u32(unix.NFTA_HOOK_PRIORITY, uint32(h.priority))).
			u32(unix.NFTA_CHAIN_POLICY, accept).text(unix.NFTA_CHAIN_TYPE, h.kind)
	}
	b.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a)
}

func (b *batch) rule(chain string, parts ...[]expression) {
	var list attributes
	for _, e := range slices.Concat(parts...) {
		one := attributes{}.text(unix.NFTA_EXPR_NAME, e.name)
		one = one.nested(unix.NFTA_EXPR_DATA, e.data)
		list = list.nested(unix.NFTA_LIST_ELEM, one)
	}
	b.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND,
		attributes{}.text(unix.NFTA_RULE_TABLE, b.name).text(unix.NFTA_RULE_CHAIN, chain).nested(unix.NFTA_RULE_EXPRESSIONS, list))
}
