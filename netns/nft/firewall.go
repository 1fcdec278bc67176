// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Firewall is a chain of somebody else that drops what is forwarded. A pod's
// table cannot overrule it: a packet is dropped if anybody drops it.
type Firewall struct {
	Of     string // who made it, if one can tell: Docker, ufw, firewalld
	Family string // as nft writes it; "legacy" for iptables before nftables
	Table  string
	Chain  string
}

// Firewalls lists them, of the calling thread's network namespace.
func Firewalls() ([]Firewall, error) {
	fd, err := socket()
	if errors.Is(err, ErrUnsupported) {
		return legacy(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("list firewalls: %w", err)
	}
	defer unix.Close(fd)
	b := &batch{}
	b.header(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETCHAIN, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, unix.AF_UNSPEC, 0, nil)
	var chains []chain
	err = dump(fd, b.buf, func(family byte, data []byte) {
		chains = append(chains, parseChain(family, data))
	})
	if err != nil {
		return nil, fmt.Errorf("list firewalls: %w", err)
	}
	return append(droppers(chains), legacy()...), nil
}

// chain is what matters of one.
type chain struct {
	family      byte
	table, name string
	forward     bool // it filters what is forwarded
	drops       bool // by its policy
}

func parseChain(family byte, data []byte) chain {
	text := func(kind uint16) string {
		b, _ := attribute(data, kind)
		return strings.TrimRight(string(b), "\x00")
	}
	hook, hooked := attribute(data, unix.NFTA_CHAIN_HOOK)
	number, _ := attribute(hook, unix.NFTA_HOOK_HOOKNUM)
	policy, _ := attribute(data, unix.NFTA_CHAIN_POLICY)
	return chain{
		family: family, table: text(unix.NFTA_CHAIN_TABLE), name: text(unix.NFTA_CHAIN_NAME),
		forward: hooked && isNumber(number, unix.NF_INET_FORWARD) && text(unix.NFTA_CHAIN_TYPE) == "filter" && inFamilies(family),
		drops:   isNumber(policy, drop),
	}
}

func isNumber(b []byte, n uint32) bool {
	return len(b) == 4 && binary.BigEndian.Uint32(b) == n
}

func inFamilies(family byte) bool {
	return family == unix.NFPROTO_IPV4 || family == unix.NFPROTO_IPV6 || family == unix.NFPROTO_INET
}

// droppers decides which chains drop. firewalld's accepts by policy and rejects
// by its last rule.
func droppers(chains []chain) (out []Firewall) {
	for _, c := range chains {
		if !c.forward || strings.HasPrefix(c.table, "gantry-") || !c.drops && c.table != "firewalld" {
			continue
		}
		families := map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}
		out = append(out, Firewall{Of: maker(chains, c), Family: families[c.family], Table: c.table, Chain: c.name})
	}
	return out
}

func maker(chains []chain, of chain) string {
	has := func(name string) bool {
		return slices.ContainsFunc(chains, func(c chain) bool { return c.family == of.family && c.table == of.table && c.name == name })
	}
	switch {
	case of.table == "firewalld":
		return "firewalld"
	case has("DOCKER-USER"):
		return "Docker"
	case has("ufw-before-forward"), has("ufw6-before-forward"):
		return "ufw"
	}
	return ""
}

// legacy tells whether iptables filters without nftables. What its policy is
// only its own program says.
func legacy() []Firewall {
	b, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil || !slices.Contains(strings.Fields(string(b)), "filter") {
		return nil
	}
	return []Firewall{{Family: "legacy", Table: "filter", Chain: "FORWARD"}}
}

// dump asks and hands over each answer.
func dump(fd int, query []byte, f func(family byte, data []byte)) error {
	if err := unix.Sendto(fd, query, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return err
		}
		if done, err := eachMessage(buf[:n], f); done || err != nil {
			return err
		}
	}
}
