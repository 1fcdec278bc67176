// SPDX-License-Identifier: Apache-2.0

// Package bridge puts pods on bridges of the host: the bridge itself, which is
// the network's and stays, and the pair of interfaces that leads to a pod, which
// goes with the pod's namespace.
package bridge

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns"
)

// Bridge is one interface of the host.
type Bridge struct {
	Name     string
	Gateways []netip.Prefix // its addresses
	MTU      int            // 0: the kernel's
	Forward  bool           // packets may leave it
	Owner    string         // the network it is of, which alone takes it down; empty: nobody's
}

// markPrefix begins the alias (ip-link(8)) of a bridge that has an owner.
const markPrefix = "gantry: "

// aliasSize is IFALIASZ of linux/if.h, with the zero at the end.
const aliasSize = 256

// mark is the alias of an owner's bridge.
func mark(owner string) string {
	if len(markPrefix+owner) < aliasSize {
		return markPrefix + owner
	}
	return fmt.Sprintf("%s%x", markPrefix, sha256.Sum256([]byte(owner)))
}

// IPv6 tells whether this host has it: with ipv6.disable=1 it has not.
func IPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6/conf")
	return err == nil
}

// Up makes the bridge what it is to be, whoever made it. Several may do it at
// once.
func (b Bridge) Up() (index int, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return 0, fmt.Errorf("open route netlink socket: %w", err)
	}
	defer h.Close()
	link, err := b.ensure(h)
	if err != nil {
		return 0, err
	}
	index = link.Attrs().Index
	if link.Attrs().Flags&net.FlagUp != 0 && b.addressed(h, link) {
		return index, b.forward()
	}
	if err := b.quieten(); err != nil {
		return 0, err
	}
	for _, g := range b.Gateways {
		if err := h.AddrReplace(link, addr(g)); err != nil {
			return 0, fmt.Errorf("give bridge %s the address %s: %w", b.Name, g, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return 0, fmt.Errorf("set bridge %s up: %w", b.Name, err)
	}
	return index, b.forward()
}

func (b Bridge) ensure(h *netlink.Handle) (netlink.Link, error) {
	for {
		link, err := h.LinkByName(b.Name)
		if err == nil {
			if link.Type() != "bridge" {
				return nil, fmt.Errorf("the interface %s of this host is no bridge but %s: give the network another bridge name", b.Name, link.Type())
			}
			return link, b.ours(link.Attrs().Alias)
		}
		var missing netlink.LinkNotFoundError
		if !errors.As(err, &missing) {
			return nil, fmt.Errorf("find bridge %s: %w", b.Name, err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = b.Name, b.MTU
		// A MAC address of its own: else it changes with the first port that leaves.
		attrs.HardwareAddr = MAC(b.Gateways)
		err = h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
		if errors.Is(err, unix.EEXIST) {
			continue // somebody else's launch made it
		}
		if err != nil {
			return nil, unable("bridge", fmt.Errorf("make bridge %s: %w", b.Name, err))
		}
		if b.Owner != "" {
			err = h.LinkSetAlias(&netlink.Bridge{LinkAttrs: attrs}, mark(b.Owner))
		}
		if err != nil {
			return nil, fmt.Errorf("name the owner of bridge %s: %w", b.Name, err)
		}
	}
}

// ours refuses the bridge of another network: it has other addresses, and goes
// with that one. An administrator's own may be used.
func (b Bridge) ours(alias string) error {
	other, owned := strings.CutPrefix(alias, markPrefix)
	if !owned || b.Owner == "" || alias == mark(b.Owner) {
		return nil
	}
	return &Taken{b.Name, other}
}

// Taken is returned for a bridge that is another network's.
type Taken struct{ Name, Owner string }

func (t *Taken) Error() string {
	return fmt.Sprintf("the bridge %s of this host is that of %s", t.Name, t.Owner)
}

// Hint says what to do.
func (t *Taken) Hint() string { return "give the network another name for its bridge" }

// Missing is returned when the kernel has no such kind of interface, or we may
// not make one.
type Missing struct {
	Kind string
	Err  error
}

func (m *Missing) Error() string { return m.Err.Error() }

// unable is Missing if the error says that.
func unable(kind string, err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		return &Missing{kind, err}
	}
	return err
}

// Unwrap returns the kernel's word.
func (m *Missing) Unwrap() error { return m.Err }

// Hint says what to do.
func (m *Missing) Hint() string {
	if errors.Is(m.Err, unix.EOPNOTSUPP) {
		return "this kernel lacks the module " + m.Kind + ": load it with 'modprobe " + m.Kind + "', or use --net=none or --net=host"
	}
	return "networks need CAP_NET_ADMIN: use --net=none or --net=host without it"
}

func (b Bridge) addressed(h *netlink.Handle, link netlink.Link) bool {
	have, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return false
	}
	for _, g := range b.Gateways {
		found := false
		for _, a := range have {
			ip, ok := netip.AddrFromSlice(a.IP)
			ones, _ := a.Mask.Size()
			found = found || ok && ip.Unmap() == g.Addr() && ones == g.Bits()
		}
		if !found {
			return false
		}
	}
	return true
}

// quieten keeps the bridge from believing routers among the pods, and from
// telling pods of shorter ways.
func (b Bridge) quieten() error {
	err := sysctl("net/ipv4/conf/"+b.Name+"/send_redirects", "0")
	if b.has(true) {
		err = errors.Join(err, sysctl("net/ipv6/conf/"+b.Name+"/disable_ipv6", "0"), sysctl("net/ipv6/conf/"+b.Name+"/accept_ra", "0"))
	} else if err6 := sysctl("net/ipv6/conf/"+b.Name+"/disable_ipv6", "1"); !errors.Is(err6, fs.ErrNotExist) {
		err = errors.Join(err, err6)
	}
	if err != nil {
		return fmt.Errorf("set up bridge %s: %w", b.Name, err)
	}
	return nil
}

func (b Bridge) has(six bool) bool {
	for _, g := range b.Gateways {
		if g.Addr().Is6() == six {
			return true
		}
	}
	return false
}

// forward has the host forward what comes from the bridge. An IPv6 host that
// forwards stops listening to routers unless it is told to go on, and would lose
// its own way out.
func (b Bridge) forward() error {
	if !b.Forward {
		return nil
	}
	if b.has(false) {
		if err := turnOn("net/ipv4/ip_forward"); err != nil {
			return err
		}
	}
	if !b.has(true) {
		return nil
	}
	const all = "net/ipv6/conf/all/forwarding"
	if is(all, "1") {
		return nil
	}
	names, err := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, name := range names {
		name = strings.TrimPrefix(name, "/proc/sys/")
		if is(name, "1") {
			if err := sysctl(name, "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return turnOn(all)
}

func turnOn(name string) error {
	if is(name, "1") {
		return nil
	}
	if err := sysctl(name, "1"); err != nil {
		return fmt.Errorf("turn on forwarding: %w", err)
	}
	return nil
}

func is(name, value string) bool {
	b, err := os.ReadFile("/proc/sys/" + name)
	return err == nil && strings.TrimSpace(string(b)) == value
}

// sysctl writes to the calling thread's network namespace.
func sysctl(name, value string) error {
	if is(name, value) {
		return nil
	}
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0)
}

// MAC is a locally administered address made of an IP address: whoever gets the
// same address again has the same MAC, and nobody's cache is wrong.
func MAC(addresses []netip.Prefix) net.HardwareAddr {
	for _, p := range addresses {
		if p.Addr().Is4() {
			a := p.Addr().As4()
			return net.HardwareAddr{0x0a, 0x58, a[0], a[1], a[2], a[3]}
		}
	}
	for _, p := range addresses {
		a := p.Addr().As16()
		return net.HardwareAddr{0x0a, 0x59, a[12], a[13], a[14], a[15]}
	}
	return nil
}

func addr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // it is ours: we gave it, and nobody waits for it
	}
	return a
}

// Port is a pod's place on a bridge.
type Port struct {
	Bridge    int    // index
	Host      string // name of the host's end
	Interface string // name in the pod
	MAC       net.HardwareAddr
	Addresses []netip.Prefix
	Gateways  []netip.Addr // default routes; none: what leaves the subnet goes nowhere
	Answers   []netip.Addr // gateways of what leaves from the addresses of this port, when the default route is another's
	MTU       int
}

// Attach makes the pair and sets up the end in the pod.
func (p Port) Attach(pod *os.File) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open route netlink socket: %w", err)
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = p.Host, p.MTU
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: p.Interface, PeerHardwareAddr: p.MAC, PeerNamespace: netlink.NsFd(int(pod.Fd())),
	}
	if err := h.LinkAdd(veth); err != nil {
		return unable("veth", fmt.Errorf("make the interface %s of the pod: %w", p.Interface, err))
	}
	if _, err := netns.Inside(pod, func(h *netlink.Handle) (struct{}, error) { return struct{}{}, p.inside(h) }); err != nil {
		return fmt.Errorf("set up the interface %s of the pod: %w", p.Interface, err)
	}
	link, err := h.LinkByName(p.Host)
	if err == nil {
		// No address of its own: it is the bridge's.
		if err6 := sysctl("net/ipv6/conf/"+p.Host+"/disable_ipv6", "1"); err6 != nil && !errors.Is(err6, fs.ErrNotExist) {
			err = err6
		}
	}
	if err == nil {
		err = h.LinkSetMasterByIndex(link, p.Bridge)
	}
	if err == nil && filters() {
		err = h.LinkSetHairpin(link, true)
	}
	if err == nil {
		err = h.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("put %s on its bridge: %w", p.Host, err)
	}
	return nil
}

// filters tells whether bridged packets pass the host's rules: then a pod
// reaches itself through the host's address only by a port that sends back.
func filters() bool {
	return is("net/bridge/bridge-nf-call-iptables", "1") || is("net/bridge/bridge-nf-call-ip6tables", "1")
}

// inside runs on a thread in the pod's namespace.
func (p Port) inside(h *netlink.Handle) error {
	link, err := h.LinkByName(p.Interface)
	if err != nil {
		return err
	}
	six := false
	for _, a := range p.Addresses {
		six = six || a.Addr().Is6()
	}
	// Other pods are no routers (CVE-2020-10749).
	name := "net/ipv6/conf/" + p.Interface + "/"
	if err := errors.Join(sysctl(name+"accept_ra", "0"), sysctl(name+"disable_ipv6", map[bool]string{true: "0", false: "1"}[six])); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, a := range p.Addresses {
		if err := h.AddrAdd(link, addr(a)); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	for _, g := range p.Gateways {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: g.AsSlice()}
		if err := h.RouteAdd(route); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add a default route by %s: %w", g, err)
		}
	}
	for _, g := range p.Answers {
		if err := p.answer(h, link.Attrs().Index, g); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EAFNOSUPPORT) {
			return fmt.Errorf("route answers by %s: %w", g, err)
		}
	}
	return nil
}

// answerTables is the first of the routing tables for answers; below are those
// of the kernel's.
const answerTables = 1000

// answer has what leaves from an address of this port leave by it: who comes in
// by a published port would be answered by the network of the default route,
// which a host that looks where packets come from (rp_filter) drops.
func (p Port) answer(h *netlink.Handle, index int, gateway netip.Addr) error {
	table, family := answerTables+index, netlink.FAMILY_V4
	if gateway.Is6() {
		family = netlink.FAMILY_V6
	}
	for _, a := range p.Addresses {
		if a.Addr().Is6() != gateway.Is6() {
			continue
		}
		subnet := addr(a.Masked()).IPNet
		if err := h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: subnet, Scope: netlink.SCOPE_LINK, Table: table}); err != nil {
			return err
		}
		rule := netlink.NewRule()
		rule.Family, rule.Table, rule.Src = family, table, addr(netip.PrefixFrom(a.Addr(), a.Addr().BitLen())).IPNet
		if err := h.RuleAdd(rule); err != nil {
			return err
		}
	}
	return h.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice(), Table: table})
}

// Unlink is a message of rtnetlink for each interface that deletes it.
func Unlink(names []string) []byte {
	var all []byte
	for _, name := range names {
		m := nl.NewNetlinkRequest(unix.RTM_DELLINK, 0)
		m.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		m.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
		all = append(all, m.Serialize()...)
		all = append(all, make([]byte, -len(all)&(unix.NLMSG_ALIGNTO-1))...)
	}
	return all
}

// PortPrefix begins the name of the host's end of every pair.
const PortPrefix = "gv"

// Remove deletes the bridge of an owner that no pod is on, and tells whether
// there was one. The ends of pairs to pods that are gone may still be there: the
// kernel takes namespaces down in its own time. With an interface of somebody
// else on it, it stays.
func Remove(owner string) (bool, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return false, fmt.Errorf("open route netlink socket: %w", err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return false, fmt.Errorf("list interfaces: %w", err)
	}
	at := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Type() == "bridge" && l.Attrs().Alias == mark(owner) })
	if at < 0 {
		return false, nil
	}
	link := links[at]
	name := link.Attrs().Name
	for _, l := range links {
		switch {
		case l.Attrs().MasterIndex != link.Attrs().Index:
		case l.Type() != "veth" || !strings.HasPrefix(l.Attrs().Name, PortPrefix):
			return false, nil
		default:
			if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
				return false, fmt.Errorf("delete %s of bridge %s: %w", l.Attrs().Name, name, err)
			}
		}
	}
	if err := h.LinkDel(link); err != nil {
		return false, fmt.Errorf("delete bridge %s: %w", name, err)
	}
	return true, nil
}

// shortest is the length of a route that leads somewhere in particular: no range
// of private IPv4 addresses is larger. VPNs write default routes as 0.0.0.0/1 and
// 128.0.0.0/1, or 2000::/3, to come before the host's own.
const shortest = 8

// Routes are the prefixes this host has routes to, but for default ones.
func Routes() ([]netip.Prefix, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink socket: %w", err)
	}
	defer h.Close()
	routes, err := h.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var all []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		ones, _ := r.Dst.Mask.Size()
		if ok && ones >= shortest {
			all = append(all, netip.PrefixFrom(a.Unmap(), ones).Masked())
		}
	}
	return all, nil
}
