// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// BridgeType is the plugin type that gantry has itself.
const BridgeType = "gantry-bridge"

// Bridge is a network on a bridge of the host, as the element of a
// configuration list with type gantry-bridge describes it.
type Bridge struct {
	Type     string   `json:"type"`
	Bridge   string   `json:"bridge,omitempty"`   // the interface; empty: derived from the name
	Subnets  []Subnet `json:"subnets"`            // at most one of each family
	Internal bool     `json:"internal,omitempty"` // nothing leaves it, and it has no gateway
	Open     bool     `json:"open,omitempty"`     // reachable from other networks
	MTU      int      `json:"mtu,omitempty"`      // 0: the kernel's
}

// Subnet is one range of addresses.
type Subnet struct {
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway,omitzero"` // the bridge's; zero: the first
	First   netip.Addr   `json:"rangeStart,omitzero"`
	Last    netip.Addr   `json:"rangeEnd,omitzero"`
}

// ParseBridge reads the element of a list, whose bridge is iface unless it says
// otherwise, and completes it. A field it does not know is refused: where the
// word internal is misspelt, what must not leave would.
func ParseBridge(name, iface string, element []byte) (Bridge, error) {
	b := Bridge{Bridge: iface}
	d := json.NewDecoder(bytes.NewReader(element))
	d.DisallowUnknownFields()
	err := d.Decode(&b)
	if err == nil {
		return b, b.Complete(name)
	}
	if field, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
		return b, fmt.Errorf("%s is no field of it; there are bridge, internal, mtu, open, subnets, and in each of these gateway, rangeEnd, rangeStart, subnet", field)
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return b, fmt.Errorf("%s: it is a JSON %s, not what belongs there", wrong.Field, wrong.Value)
	}
	return b, err
}

// leastMTU6 is what IPv6 takes of every link (RFC 8200); with less the kernel has
// no IPv6 there.
const leastMTU6 = 1280

// Complete fills in what was left out, and says what cannot be.
func (b *Bridge) Complete(name string) error {
	if b.Bridge == "" {
		b.Bridge = BridgeName(name)
	}
	if err := (&Join{}).setInterface(b.Bridge); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if b.MTU != 0 && (b.MTU < 68 || b.MTU > 65535) {
		return fmt.Errorf("mtu: %d is not between 68 and 65535", b.MTU)
	}
	if len(b.Subnets) == 0 || len(b.Subnets) > 2 {
		return fmt.Errorf("subnets: there are %d, not one or two", len(b.Subnets))
	}
	if len(b.Subnets) == 2 && b.Subnets[0].Subnet.Addr().Is4() == b.Subnets[1].Subnet.Addr().Is4() {
		return errors.New("subnets: two of one family")
	}
	for i := range b.Subnets {
		if err := b.Subnets[i].complete(); err != nil {
			return fmt.Errorf("subnets[%d]: %w", i, err)
		}
	}
	if b.MTU != 0 && b.MTU < leastMTU6 && b.Has(true) {
		return fmt.Errorf("mtu: %d is below %d, the least for IPv6", b.MTU, leastMTU6)
	}
	// IPv4 first: it is what people look for.
	slices.SortStableFunc(b.Subnets, func(x, y Subnet) int { return x.Subnet.Addr().BitLen() - y.Subnet.Addr().BitLen() })
	return nil
}

// BridgeName is a network's interface unless it says otherwise: its own name
// where that fits, else a part of it and a hash.
func BridgeName(name string) string {
	if name == DefaultName {
		return "gantry0"
	}
	if full := "gb-" + name; len(full) <= maxInterface {
		return full
	}
	sum := uint32(2166136261) // FNV-1a
	for _, c := range []byte(name) {
		sum = (sum ^ uint32(c)) * 16777619
	}
	return fmt.Sprintf("gb-%.3s-%08x", name, sum)
}

func (s *Subnet) complete() error {
	p := s.Subnet
	if !p.IsValid() {
		return errors.New("subnet: it is missing")
	}
	if p.Addr().Zone() != "" || p.Addr().Is4In6() {
		return fmt.Errorf("subnet: %s is not one", p)
	}
	if p != p.Masked() {
		return fmt.Errorf("subnet: %s has bits beyond its length: %s", p, p.Masked())
	}
	if what := special(p); what != "" {
		return fmt.Errorf("subnet: %s has %s, which no pod can have", p, what)
	}
	if spare := p.Addr().BitLen() - p.Bits(); spare < 2 {
		return fmt.Errorf("subnet: %s has no room for a gateway and a pod", p)
	}
	first, last := bounds(p)
	if !s.Gateway.IsValid() {
		s.Gateway = first
	}
	if !s.First.IsValid() {
		s.First = first
	}
	if !s.Last.IsValid() {
		s.Last = last
	}
	for _, a := range []struct {
		field string
		addr  netip.Addr
	}{{"gateway", s.Gateway}, {"rangeStart", s.First}, {"rangeEnd", s.Last}} {
		if !p.Contains(a.addr) || a.addr.Less(first) || last.Less(a.addr) {
			return fmt.Errorf("%s: %s is not an address of %s", a.field, a.addr, p)
		}
	}
	if s.Last.Less(s.First) {
		return fmt.Errorf("rangeEnd: %s comes before rangeStart %s", s.Last, s.First)
	}
	return nil
}

// special says which addresses of a prefix no pod can have (RFC 6890).
func special(p netip.Prefix) string {
	for _, s := range [][2]string{
		{"0.0.0.0/8", "unspecified addresses"},
		{"::/128", "unspecified addresses"},
		{"127.0.0.0/8", "addresses of the loopback"},
		{"::1/128", "addresses of the loopback"},
		{"169.254.0.0/16", "link-local addresses"},
		{"fe80::/10", "link-local addresses"},
		{"224.0.0.0/4", "multicast addresses"},
		{"ff00::/8", "multicast addresses"},
		{"240.0.0.0/4", "reserved addresses"},
	} {
		if netip.MustParsePrefix(s[0]).Overlaps(p) {
			return s[1]
		}
	}
	return ""
}

// bounds are the first and the last address a host of the subnet can have. The
// last of an IPv6 subnet, which has no broadcast, is where its addresses end
// that are given one after the other.
func bounds(p netip.Prefix) (first, last netip.Addr) {
	base := p.Addr().AsSlice()
	end := slices.Clone(base)
	for i := p.Bits(); i < 8*len(end); i++ {
		end[i/8] |= 0x80 >> (i % 8)
	}
	last, _ = netip.AddrFromSlice(end)
	if p.Addr().Is4() {
		last = last.Prev()
	}
	return p.Addr().Next(), last
}

// Prefix is an address with the length of its subnet.
func (s Subnet) Prefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, s.Subnet.Bits()) }

// Gives tells whether a pod may have an address of the subnet, also one beyond
// the range that is given from.
func (s Subnet) Gives(a netip.Addr) bool {
	first, last := bounds(s.Subnet)
	return s.Subnet.Contains(a) && !a.Less(first) && !last.Less(a) && a != s.Gateway
}

// Has tells whether the network has addresses of a family.
func (b Bridge) Has(six bool) bool {
	return slices.ContainsFunc(b.Subnets, func(s Subnet) bool { return s.Subnet.Addr().Is6() == six })
}
