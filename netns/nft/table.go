// SPDX-License-Identifier: Apache-2.0

// Package nft gives a pod its nftables table: published ports, masquerade and
// isolation from other networks. The table is owned by a socket (Linux 5.12):
// nobody else can change it, "nft flush ruleset" passes it over, and it goes
// when the socket is closed, however its holder dies.
//
// What a table is, is decided by Messages, which touches nothing.
package nft

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns/network"
)

// Table is what a pod has in the host's nftables.
type Table struct {
	Name        string
	Attachments []Attachment
	Ports       []network.Port // with the numbers of the host's ports; the first attachment's address of the family gets them
}

// Attachment is a pod's place on one bridge.
type Attachment struct {
	Bridge     string
	Addresses  []netip.Prefix // the pod's, with the length of its subnet
	Masquerade bool           // what leaves the bridge has the host's address
	Internal   bool           // nothing leaves the bridge
	Open       bool           // reachable from other networks
}

// The chains of a table. Those that hook into the kernel are named for where.
const (
	gateChain        = "gate"    // only what is for this host, and not for its loopback
	publishChain     = "publish" // published ports
	guardChain       = "guard"   // only what was asked for
	preroutingChain  = "prerouting"
	outputChain      = "output"
	postroutingChain = "postrouting"
	forwardChain     = "forward"
)

// Messages is the batch that makes the table, in one transaction.
func (t Table) Messages() ([]byte, error) {
	if len(t.Name) == 0 || len(t.Name) >= unix.NFT_NAME_MAXLEN {
		return nil, fmt.Errorf("name a table %q: the kernel takes 1 to %d bytes", t.Name, unix.NFT_NAME_MAXLEN-1)
	}
	for _, a := range t.Attachments {
		if len(a.Bridge) == 0 || len(a.Bridge) >= unix.IFNAMSIZ {
			return nil, fmt.Errorf("name a bridge %q: the kernel takes 1 to %d bytes", a.Bridge, unix.IFNAMSIZ-1)
		}
	}
	b := newBatch(t.Name)
	b.table()
	if len(t.Ports) > 0 {
		t.publish(b)
	}
	t.postrouting(b)
	t.forward(b)
	return b.end(), nil
}

// Drop is the batch that deletes the table, for its owner.
func (t Table) Drop() []byte {
	b := newBatch(t.Name)
	b.message(unix.NFT_MSG_DELTABLE, 0, attributes{}.text(unix.NFTA_TABLE_NAME, b.name))
	return b.end()
}

// publish redirects what comes in for the host's published ports. Only traffic
// for an address of the host is touched (CVE-2025-67499), and none for its
// loopback: a packet from a neighbour for 127.0.0.1 has not been refused yet
// when it is here (CVE-2020-8558), and an answer to a redirected one from ::1
// would not find back. Link-local addresses are not forwarded between. For all
// of these there is the proxy.
func (t Table) publish(b *batch) {
	b.chain(publishChain, nil)
	b.chain(gateChain, nil)
	for _, local := range []string{"127.0.0.0/8", "::1/128", "fe80::/10"} {
		prefix := netip.MustParsePrefix(local)
		b.rule(gateChain, source(prefix), verdict(unix.NFT_RETURN, ""))
		b.rule(gateChain, destination(prefix), verdict(unix.NFT_RETURN, ""))
	}
	b.rule(gateChain, toThisHost(), verdict(unix.NFT_JUMP, publishChain))
	// A look at the port spares the connections of others all of that.
	ours := append(toPorts(t.span()), verdict(unix.NFT_JUMP, gateChain)...)
	b.chain(preroutingChain, &hook{kind: "nat", number: unix.NF_INET_PRE_ROUTING, priority: priorityDstnat})
	b.rule(preroutingChain, ours)
	b.chain(outputChain, &hook{kind: "nat", number: unix.NF_INET_LOCAL_OUT, priority: priorityDstnat})
	b.rule(outputChain, ours)
	for _, p := range t.Ports {
		for _, v6 := range []bool{false, true} {
			to, ok := t.target(v6)
			if ok && p.HostPort != 0 && (!p.Host.IsValid() || p.Host.Is6() == v6) && !p.Host.IsLoopback() {
				redirect(b, p, to)
			}
		}
	}
}

// span is from the first to the last published port.
func (t Table) span() (first, last uint16) {
	first = ^first
	for _, p := range t.Ports {
		first, last = min(first, p.HostPort), max(last, p.HostPort+uint16(p.Len()-1))
	}
	return first, last
}

// target is the address published ports lead to.
func (t Table) target(v6 bool) (netip.Addr, bool) {
	for _, a := range t.Attachments {
		for _, prefix := range a.Addresses {
			if !a.Internal && prefix.Addr().Is6() == v6 {
				return prefix.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

// redirect makes one rule for a range that keeps its numbers, else one each.
func redirect(b *batch, p network.Port, to netip.Addr) {
	match := func(p network.Port) []expression {
		who := family(to)
		if p.Host.IsValid() && !p.Host.IsUnspecified() {
			who = destination(netip.PrefixFrom(p.Host, p.Host.BitLen()))
		}
		return slices.Concat(who, of(p.Protocol), toPorts(p.HostPort, p.HostPort+uint16(p.Len()-1)))
	}
	if p.Len() > 1 && p.HostPort == p.Container {
		b.rule(publishChain, match(p), dnat(to, 0))
		return
	}
	for i := range p.Len() {
		one := p.At(i)
		b.rule(publishChain, match(one), dnat(to, one.Container))
	}
}

// postrouting gives packets a source that answers find back to: the host's for
// those that leave, and the bridge's for those that come from the pod's own
// subnet by a published port, whose answers would go straight to the client
// from an address it does not know.
func (t Table) postrouting(b *batch) {
	b.chain(postroutingChain, &hook{kind: "nat", number: unix.NF_INET_POST_ROUTING, priority: prioritySrcnat})
	for _, a := range t.Attachments {
		for _, prefix := range a.Addresses {
			pod := alone(prefix)
			if a.Masquerade && !a.Internal {
				b.rule(postroutingChain, source(pod), outside(unix.NFT_META_OIFNAME, a.Bridge), masquerade())
			}
			b.rule(postroutingChain, destination(pod), source(prefix.Masked()), redirected(), masquerade())
		}
	}
}

// forward lets in what the pod asked for and what was published, and nothing
// else that comes from elsewhere than its own bridge. Every packet that the
// host forwards passes here, for every pod: one rule tells that it is not ours.
func (t Table) forward(b *batch) {
	b.chain(guardChain, nil)
	b.rule(guardChain, known(), verdict(accept, ""))
	b.rule(guardChain, redirected(), verdict(accept, ""))
	b.rule(guardChain, verdict(drop, ""))
	b.chain(forwardChain, &hook{kind: "filter", number: unix.NF_INET_FORWARD, priority: priorityFilter})
	for _, a := range t.Attachments {
		if a.Internal {
			// By the bridge: a pod with CAP_NET_ADMIN gives itself other addresses.
			in, out := by(unix.NFT_META_IIFNAME, a.Bridge), by(unix.NFT_META_OIFNAME, a.Bridge)
			b.rule(forwardChain, in, outside(unix.NFT_META_OIFNAME, a.Bridge), verdict(drop, ""))
			b.rule(forwardChain, out, outside(unix.NFT_META_IIFNAME, a.Bridge), verdict(drop, ""))
			continue
		}
		for _, prefix := range a.Addresses {
			if !a.Open {
				in := append(destination(alone(prefix)), outside(unix.NFT_META_IIFNAME, a.Bridge)...)
				b.rule(forwardChain, in, verdict(unix.NFT_JUMP, guardChain))
			}
		}
	}
}

func alone(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
}
