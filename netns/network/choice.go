// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Kind is what a pod has for a network.
type Kind string

// The kinds.
const (
	Default Kind = ""      // nothing was said
	None    Kind = "none"  // a namespace of its own with only lo
	Host    Kind = "host"  // the caller's network
	Pod     Kind = "pod"   // the namespace of another pod
	Path    Kind = "ns"    // a namespace somebody made
	Named   Kind = "named" // networks by name
)

// Choice is what --net says.
type Choice struct {
	Kind  Kind   `json:"kind"`
	Name  string `json:"name,omitempty"`  // of Pod and Path
	Joins []Join `json:"joins,omitempty"` // of Named, in the order of the interfaces
}

// Join is one network a pod is on, and what is asked for there.
type Join struct {
	Network   string       `json:"network"`
	Interface string       `json:"interface,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	MAC       string       `json:"mac,omitempty"`
	Aliases   []string     `json:"aliases,omitempty"`
	Args      [][2]string  `json:"args,omitempty"` // for plugins: CNI_ARGS
}

// Shorthand is what flags say about the one network a pod is on.
type Shorthand struct {
	IP, IP6, MAC string
	Aliases      []string
}

// DefaultName is the network of who names none.
const DefaultName = "default"

// maxJoins bounds the networks of one pod.
const maxJoins = 64

// ParseChoice reads the values of --net: none, host, pod:NAME, ns:PATH, or
// NAME[:key=value[,key=value…]][,NAME…]. podman's private and bridge are the
// default network, its container:NAME is pod:NAME.
func ParseChoice(values []string, s Shorthand) (Choice, error) {
	var c Choice
	for _, v := range values {
		if err := c.add(v); err != nil {
			return Choice{}, fmt.Errorf("--net %q: %w", v, err)
		}
	}
	if len(c.Joins) > maxJoins {
		return Choice{}, fmt.Errorf("--net: %d networks: a pod can be on %d", len(c.Joins), maxJoins)
	}
	if err := c.apply(s); err != nil {
		return Choice{}, err
	}
	return c, c.distinct()
}

func (c *Choice) add(v string) error {
	kind, rest, has := strings.Cut(v, ":")
	one := Choice{Kind: Default}
	switch {
	case v == "":
		return errors.New("it is empty: name a network, or none or host")
	case v == "none":
		one.Kind = None
	case v == "host":
		one.Kind = Host
	case (kind == "pod" || kind == "container") && has:
		one = Choice{Kind: Pod, Name: rest}
	case kind == "ns" && has:
		one = Choice{Kind: Path, Name: rest}
	case kind == "slirp4netns":
		return errors.New("slirp4netns is not supported: an ordinary user has pasta")
	}
	if one.Kind != Default {
		if (one.Kind == Pod || one.Kind == Path) && one.Name == "" {
			return fmt.Errorf("%s: of what?", kind)
		}
		if c.Kind != Default {
			return errors.New("it cannot be combined with another network")
		}
		*c = one
		return nil
	}
	if c.Kind != Default && c.Kind != Named {
		return errors.New("it cannot be combined with another network")
	}
	c.Kind = Named
	return c.named(v)
}

// named reads a list of networks. A part with a "=" before any ":" is another
// option of the network before it.
func (c *Choice) named(v string) error {
	for i, part := range strings.Split(v, ",") {
		head, option, has := strings.Cut(part, ":")
		if key, _, is := strings.Cut(head, "="); is && i > 0 {
			_ = key
			if err := c.Joins[len(c.Joins)-1].option(part); err != nil {
				return err
			}
			continue
		}
		switch head {
		case "bridge", "private":
			head = DefaultName
		case "none", "host":
			return fmt.Errorf("%s cannot be combined with another network", head)
		}
		if err := CheckName(head); err != nil {
			return err
		}
		c.Joins = append(c.Joins, Join{Network: head})
		if has {
			if err := c.Joins[len(c.Joins)-1].option(option); err != nil {
				return err
			}
		}
	}
	return nil
}

func (j *Join) option(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" || value == "" {
		return fmt.Errorf("%q: write KEY=VALUE", text)
	}
	switch key {
	case "ip", "ip6", "ip4":
		a, err := parseIP(value)
		if err != nil {
			return err
		}
		j.Addresses = append(j.Addresses, a)
	case "mac":
		return j.setMAC(value)
	case "alias":
		return j.addAlias(value)
	case "interface_name", "interface":
		return j.setInterface(value)
	default:
		if strings.ContainsAny(key+value, ";\n") {
			return fmt.Errorf("%q: ';' separates the arguments of plugins", text)
		}
		j.Args = append(j.Args, [2]string{key, value})
	}
	return nil
}

func parseIP(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return netip.Addr{}, fmt.Errorf("%q is not an address a pod can have", s)
	}
	return a.Unmap(), nil
}

func (j *Join) setMAC(s string) error {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("%q is not a MAC address, as in 92:d0:c6:0a:29:33", s)
	}
	if mac[0]&1 != 0 {
		return fmt.Errorf("%q is a group's MAC address: the first byte must be even", s)
	}
	if !slices.ContainsFunc(mac, func(b byte) bool { return b != 0 }) {
		return fmt.Errorf("%q is no interface's MAC address", s) // the kernel takes none like it
	}
	j.MAC = mac.String()
	return nil
}

// maxAliases bounds the bytes of a pod's aliases on a network: they are in the
// hosts file of each of its pods, a time for each address.
const maxAliases = 4096

func (j *Join) addAlias(s string) error {
	if err := CheckHost(s); err != nil {
		return err
	}
	if n := len(strings.Join(j.Aliases, " ")) + len(s); n > maxAliases {
		return fmt.Errorf("%q is too much: the aliases of a pod on a network have at most %d letters together", s, maxAliases)
	}
	j.Aliases = append(j.Aliases, s)
	return nil
}

// maxInterface is IFNAMSIZ without the NUL.
const maxInterface = 15

func (j *Join) setInterface(s string) error {
	bad := func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' || r == ':' || r == '%' }
	if len(s) > maxInterface || s == "." || s == ".." || s == "lo" || s == "all" || s == "default" || strings.ContainsFunc(s, bad) {
		return fmt.Errorf("%q cannot be the name of an interface: up to %d letters, digits, '-', '_' and '.'", s, maxInterface)
	}
	j.Interface = s
	return nil
}

// apply gives what the flags say to the one network.
func (c *Choice) apply(s Shorthand) error {
	if s.IP == "" && s.IP6 == "" && s.MAC == "" && len(s.Aliases) == 0 {
		return nil
	}
	if c.Kind == Default {
		*c = Choice{Kind: Named, Joins: []Join{{Network: DefaultName}}}
	}
	flag := func(name, value string, do func(string) error) error {
		if value == "" {
			return nil
		}
		if c.Kind != Named {
			return fmt.Errorf("%s needs a network by name", name)
		}
		if len(c.Joins) > 1 {
			return fmt.Errorf("%s: with several networks write it to one of them, as in --net NAME:ip=…", name)
		}
		if err := do(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	address := func(six bool) func(string) error {
		return func(v string) error {
			a, err := parseIP(v)
			if err == nil && a.Is6() != six {
				err = fmt.Errorf("%q is of the other family", v)
			}
			c.Joins[0].Addresses = append(c.Joins[0].Addresses, a)
			return err
		}
	}
	err := errors.Join(
		flag("--ip", s.IP, address(false)),
		flag("--ip6", s.IP6, address(true)),
		flag("--mac-address", s.MAC, func(v string) error { return c.Joins[0].setMAC(v) }),
	)
	for _, a := range s.Aliases {
		if err != nil {
			return err
		}
		err = flag("--network-alias", a, func(v string) error { return c.Joins[0].addAlias(v) })
	}
	return err
}

// distinct refuses what is asked for twice, and names the interfaces that are
// not named.
func (c *Choice) distinct() error {
	var names, networks []string
	for _, j := range c.Joins {
		if slices.Contains(networks, j.Network) {
			return fmt.Errorf("--net: the network %s twice", j.Network)
		}
		networks = append(networks, j.Network)
		if j.Interface != "" && slices.Contains(names, j.Interface) {
			return fmt.Errorf("--net: the interface %s twice", j.Interface)
		}
		names = append(names, j.Interface)
		for i, a := range j.Addresses {
			for _, b := range j.Addresses[:i] {
				if a.Is4() == b.Is4() {
					return fmt.Errorf("--net %s: two addresses of one family, %s and %s", j.Network, b, a)
				}
			}
		}
	}
	n := 0
	for i := range c.Joins {
		if c.Joins[i].Interface != "" {
			continue
		}
		for slices.Contains(names, fmt.Sprintf("eth%d", n)) {
			n++
		}
		c.Joins[i].Interface = fmt.Sprintf("eth%d", n)
		n++
	}
	return nil
}

// CheckName says why a network cannot be called that.
func CheckName(s string) error {
	if s == "" {
		return errors.New("a network has a name")
	}
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if len(s) > 128 || !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return fmt.Errorf("%q cannot be the name of a network: up to 128 letters, digits, '_', '.' and '-', a letter or digit first", s)
		}
	}
	return nil
}

// CheckHost says why a host cannot be called that.
func CheckHost(s string) error {
	for _, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && c != '.' && c != '_' && c != '-' {
			return fmt.Errorf("%q is not a host name", s)
		}
	}
	if s == "" || len(s) > 253 || s[0] == '-' || s[0] == '.' {
		return fmt.Errorf("%q is not a host name", s)
	}
	return nil
}
