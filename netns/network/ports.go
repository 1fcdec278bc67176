// SPDX-License-Identifier: Apache-2.0

// Package network is what networks and published ports are, as people write
// them and as files describe them. It is pure.
package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Protocols a port can be published for, as in /etc/protocols.
const (
	TCP = "tcp"
	UDP = "udp"
)

// maxPorts bounds what one pod publishes: each port is a listening socket for
// each family.
const maxPorts = 4096

// Port is one published port, or a range of them.
type Port struct {
	Host      netip.Addr `json:"hostIP,omitzero"`    // the zero value: every address of the host, of both families
	HostPort  uint16     `json:"hostPort,omitempty"` // 0: the kernel chooses
	Container uint16     `json:"containerPort"`
	Count     uint16     `json:"count,omitempty"` // so many from these on; 0 is 1
	Protocol  string     `json:"protocol"`
}

// Len is the number of ports.
func (p Port) Len() int { return max(int(p.Count), 1) }

// At is the i-th of a range, by itself.
func (p Port) At(i int) Port {
	if p.HostPort != 0 {
		p.HostPort += uint16(i)
	}
	p.Container += uint16(i)
	p.Count = 0
	return p
}

// String is the port as ParsePort reads it.
func (p Port) String() string {
	text := ports(p.Container, p.Len()) + "/" + p.Protocol
	host := ""
	if p.HostPort != 0 {
		host = ports(p.HostPort, p.Len())
	}
	switch {
	case p.Host.Is6():
		return "[" + p.Host.String() + "]:" + host + ":" + text
	case p.Host.IsValid():
		return p.Host.String() + ":" + host + ":" + text
	case host != "":
		return host + ":" + text
	}
	return text
}

// Bound names the host's side, for people.
func (p Port) Bound() string {
	address := "*"
	if p.Host.Is6() {
		address = "[" + p.Host.String() + "]"
	} else if p.Host.IsValid() {
		address = p.Host.String()
	}
	return address + ":" + ports(p.HostPort, p.Len())
}

func ports(first uint16, count int) string {
	text := strconv.Itoa(int(first))
	if count > 1 {
		text += "-" + strconv.Itoa(int(first)+count-1)
	}
	return text
}

// ParsePort reads podman's --publish: [[HOSTIP:][HOSTPORT]:]CONTAINERPORT[/tcp|udp].
func ParsePort(text string) (Port, error) {
	p, err := parsePort(text)
	if err != nil {
		return Port{}, fmt.Errorf("publish %q: %w", text, err)
	}
	return p, nil
}

func parsePort(text string) (p Port, err error) {
	rest, protocol, named := strings.Cut(text, "/")
	p.Protocol = TCP
	if named {
		if p.Protocol, err = parseProtocol(protocol); err != nil {
			return p, err
		}
	}
	rest, container := cutLast(rest)
	first, count, err := parsePorts(container)
	if err != nil {
		return p, fmt.Errorf("container port: %w", err)
	}
	p.Container = first
	if p.Container == 0 {
		return p, fmt.Errorf("container port: 0 is no port")
	}
	if count > maxPorts {
		return p, fmt.Errorf("%d ports at once: a pod publishes at most %d", count, maxPorts)
	}
	if count > 1 {
		p.Count = uint16(count)
	}
	if rest == "" {
		return p, nil // CONTAINERPORT, and :CONTAINERPORT
	}
	address, host := rest, ""
	if !strings.HasSuffix(rest, "]") {
		if address, host = cutLast(rest); address == "" && strings.HasPrefix(rest, ":") {
			return p, fmt.Errorf("host address: empty")
		}
	}
	if address != "" {
		if p.Host, err = parseHost(address); err != nil {
			return p, err
		}
	}
	return p, p.parseHostPorts(host)
}

// cutLast is what comes before and after the last colon. A first part that
// ends in one has nothing after it: the caller sees "127.0.0.1:" as that.
func cutLast(s string) (before, after string) {
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		return s[:i], s[i+1:]
	}
	return "", s
}

func (p *Port) parseHostPorts(text string) error {
	if text == "" {
		return nil
	}
	first, count, err := parsePorts(text)
	if err != nil {
		return fmt.Errorf("host port: %w", err)
	}
	p.HostPort = first
	if p.HostPort == 0 && count > 1 {
		return fmt.Errorf("host port: 0 is no port")
	}
	if p.HostPort != 0 && count != p.Len() {
		return fmt.Errorf("%d host ports for %d container ports", count, p.Len())
	}
	return nil
}

func parseProtocol(text string) (string, error) {
	switch strings.ToLower(text) {
	case TCP:
		return TCP, nil
	case UDP:
		return UDP, nil
	case "sctp":
		return "", fmt.Errorf("protocol sctp is not published: tcp and udp are")
	}
	return "", fmt.Errorf("protocol %q is unknown: there are tcp and udp", text)
}

func parseHost(text string) (netip.Addr, error) {
	bare, bracketed := strings.CutPrefix(text, "[")
	if bracketed {
		var closed bool
		if bare, closed = strings.CutSuffix(bare, "]"); !closed {
			return netip.Addr{}, fmt.Errorf("host address %s: no closing bracket", text)
		}
	}
	a, err := netip.ParseAddr(bare)
	switch {
	case err != nil && strings.Contains(text, ":") && !bracketed:
		return a, fmt.Errorf("host address %q: an IPv6 address stands in brackets", text)
	case err != nil:
		return a, fmt.Errorf("host address %q is not an IP address", text)
	case a.Is6() && !bracketed:
		return a, fmt.Errorf("host address %s: an IPv6 address stands in brackets: [%s]", text, a)
	case a.Is4() && bracketed:
		return a, fmt.Errorf("host address %s: only an IPv6 address stands in brackets", text)
	case a.Zone() != "":
		return a, fmt.Errorf("host address %s has a zone: name the address alone", text)
	case a.Is4In6():
		return a, fmt.Errorf("host address %s is an IPv4 address in an IPv6 one: write %s", text, a.Unmap())
	case a.IsMulticast():
		return a, fmt.Errorf("host address %s is a multicast address", text)
	}
	return a, nil
}

// parsePorts reads PORT or FIRST-LAST.
func parsePorts(text string) (first uint16, count int, err error) {
	low, high, isRange := strings.Cut(text, "-")
	first, err = parseNumber(low)
	if err != nil || !isRange {
		return first, 1, err
	}
	last, err := parseNumber(high)
	switch {
	case err != nil:
		return 0, 0, err
	case first == 0:
		return 0, 0, fmt.Errorf("%q: 0 is no port", text)
	case last < first:
		return 0, 0, fmt.Errorf("%q ends before it begins", text)
	}
	return first, int(last) - int(first) + 1, nil
}

func parseNumber(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || len(text) > 1 && text[0] == '0' {
		return 0, fmt.Errorf("%q is not a port: they are numbers up to 65535", text)
	}
	return uint16(n), nil
}

// ParsePorts reads every --publish, adds what an image exposes and is not
// published yet (--publish-all), and refuses what contradicts itself.
func ParsePorts(publish, exposed []string) ([]Port, error) {
	var all []Port
	total := 0
	for _, text := range publish {
		p, err := ParsePort(text)
		if err != nil {
			return nil, err
		}
		for _, other := range all {
			if err := p.contradicts(other); err != nil {
				return nil, err
			}
		}
		all, total = append(all, p), total+p.Len()
	}
	for _, text := range exposed {
		more, err := parseExposed(text, all)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
		for _, p := range more {
			total += p.Len()
		}
	}
	if total > maxPorts {
		return nil, fmt.Errorf("publish %d ports: a pod publishes at most %d", total, maxPorts)
	}
	return all, nil
}

// parseExposed reads a port of an image's EXPOSE, which knows nothing of hosts,
// and leaves out what is published.
func parseExposed(text string, published []Port) ([]Port, error) {
	if strings.ContainsAny(text, ":[]") {
		return nil, fmt.Errorf("publish what the image exposes: %q is not a port", text)
	}
	p, err := ParsePort(text)
	if err != nil {
		return nil, fmt.Errorf("publish what the image exposes: %w", err)
	}
	var out []Port
	for i := range p.Len() {
		one := p.At(i)
		taken := func(q Port) bool {
			return q.Protocol == one.Protocol && one.Container >= q.Container && int(one.Container) < int(q.Container)+q.Len()
		}
		if !slices.ContainsFunc(published, taken) {
			out = append(out, one)
		}
	}
	return out, nil
}

// contradicts tells whether two of them would be one port of the host.
func (p Port) contradicts(q Port) error {
	if p.Protocol != q.Protocol || p.HostPort == 0 || q.HostPort == 0 || !Meet(p.Host, q.Host) {
		return nil
	}
	first := max(int(p.HostPort), int(q.HostPort))
	if first >= min(int(p.HostPort)+p.Len(), int(q.HostPort)+q.Len()) {
		return nil
	}
	return fmt.Errorf("publish %s and %s: port %d/%s of the host is asked for twice", q, p, first, p.Protocol)
}

// Meet tells whether a socket bound to one address keeps others from the other.
func Meet(a, b netip.Addr) bool {
	switch {
	case a == b || !a.IsValid() || !b.IsValid():
		return true
	case a.Is4() != b.Is4():
		return false
	}
	return a.IsUnspecified() || b.IsUnspecified()
}
