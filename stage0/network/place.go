// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/internal/neighbours"
	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/netns/bridge"
	"github.com/gantryrun/gantry/netns/cni"
	"github.com/gantryrun/gantry/netns/lease"
	"github.com/gantryrun/gantry/netns/network"
	"github.com/gantryrun/gantry/netns/nft"
	"github.com/gantryrun/gantry/netns/publish"
	"github.com/gantryrun/gantry/stage1/launch"
)

// Pod is who is to be put on networks.
type Pod struct {
	UUID  string
	Dir   string   // its directory, as long as it runs
	Names []string // by which the pods of its networks are to reach it, its hostname among them
	Joins []network.Join
	Ports []network.Port
	DNS   cni.DNS // what was asked for, for plugins that want it
}

// Placed is a pod that has its addresses and ports, and nothing of the kernel's
// but the bound ports.
type Placed struct {
	env      Env
	pod      Pod
	networks []Network
	record   Record
	ports    *publish.Ports
	used     []netip.Addr // of its addresses, those that were another pod's before
	plugs    []Plugged    // its places on networks of plugins
}

// Place chooses everything a pod has on its networks, and records it. The undo
// stack gives it back.
func (e Env) Place(pod Pod, u *undo.Stack) (*Placed, error) {
	p := &Placed{env: e, pod: pod, record: Record{Version: RecordVersion}}
	files, err := e.files()
	if err != nil {
		return nil, err
	}
	for _, j := range pod.Joins {
		n, err := e.find(files, j.Network)
		if err != nil {
			return nil, fmt.Errorf("--net: %w", err)
		}
		p.networks = append(p.networks, n)
	}
	if p.ports, err = p.bind(); err != nil {
		return nil, err
	}
	u.Push(p.ports.Close)
	p.record.Ports = p.ports.Ports
	for i, j := range pod.Joins {
		a, err := p.place(p.networks[i], j, u)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", j.Network, err)
		}
		p.record.Attachments = append(p.record.Attachments, a)
	}
	return p, p.record.write(pod.Dir)
}

func (p *Placed) bind() (*publish.Ports, error) {
	if len(p.pod.Ports) > 0 && !slices.ContainsFunc(p.networks, func(n Network) bool { return n.Bridge == nil || !n.Bridge.Internal }) {
		return nil, &internal{p.pod.Joins[0].Network}
	}
	ports, err := publish.Bind(p.pod.Ports)
	var o *publish.Occupied
	if errors.As(err, &o) {
		return nil, p.env.occupied(o)
	}
	return ports, err
}

// place chooses a pod's addresses on one network.
func (p *Placed) place(n Network, j network.Join, u *undo.Stack) (Attachment, error) {
	a := Attachment{Network: n.Name, Interface: j.Interface, MAC: j.MAC}
	if n.Bridge == nil {
		return p.plugged(n, j)
	}
	if len(j.Args) > 0 {
		return a, fmt.Errorf("%s=%s: it has no such option: ip, ip6, mac, alias and interface are those of a network of gantry's own", j.Args[0][0], j.Args[0][1])
	}
	a.Bridge, a.Names = n.Bridge.Bridge, p.names(j)
	for _, asked := range j.Addresses {
		if !n.Bridge.Has(asked.Is6()) {
			return a, fmt.Errorf("ip=%s: it has no addresses of that family", asked)
		}
	}
	if n.Bridge.Has(true) && !bridge.IPv6() {
		return a, hint.With(errors.New("it has IPv6 addresses, and this host has no IPv6"), "boot without ipv6.disable=1, or take the IPv6 subnet out of "+n.File)
	}
	for _, s := range n.Bridge.Subnets {
		addr, err := p.lease(n, s, j)
		if err != nil {
			return a, err
		}
		u.Push(func() { _ = p.env.leases(n.Name).Free(addr, p.pod.UUID) })
		if p.env.leases(n.Name).Used(addr) {
			p.used = append(p.used, addr)
		}
		a.Addresses = append(a.Addresses, s.Prefix(addr))
		if !n.Bridge.Internal {
			a.Gateways = append(a.Gateways, s.Gateway)
		}
	}
	// With an address nobody removes the network; before, somebody may have.
	if _, err := os.Stat(n.File); n.File != "" && errors.Is(err, fs.ErrNotExist) {
		return a, errors.New("it has just been removed")
	}
	if a.MAC == "" {
		a.MAC = bridge.MAC(a.Addresses).String()
	}
	return a, nil
}

func (p *Placed) lease(n Network, s network.Subnet, j network.Join) (netip.Addr, error) {
	leases := p.env.leases(n.Name)
	for _, asked := range j.Addresses {
		if asked.Is6() != s.Subnet.Addr().Is6() {
			continue
		}
		if !s.Gives(asked) {
			return netip.Addr{}, fmt.Errorf("ip=%s: it is not an address of %s for a pod (the gateway is %s)", asked, s.Subnet, s.Gateway)
		}
		return asked, advise(leases.This(asked, p.pod.UUID), n.Name)
	}
	a, err := leases.Next(lease.Range{First: s.First, Last: s.Last, Not: []netip.Addr{s.Gateway}}, p.pod.UUID)
	return a, advise(err, n.Name)
}

// names are those by which others on a network reach the pod.
func (p *Placed) names(j network.Join) []string {
	return unique(append(slices.Clone(p.pod.Names), j.Aliases...))
}

func unique(names []string) []string {
	var out []string
	for _, n := range names {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// Record is what the pod has.
func (p *Placed) Record() Record { return p.record }

// Attach puts the namespace on the networks: bridges and interfaces one after
// the other, for they share a lock of the kernel's, and the pod's rules and its
// neighbours beside them.
func (p *Placed) Attach(ctx context.Context, ns *os.File) (*launch.Attached, error) {
	var u undo.Stack
	defer u.Run()
	rules := make(chan error, 1)
	t := p.table()
	var table *os.File
	go func() {
		var err error
		table, err = p.rules(t)
		rules <- err
	}()
	err := p.interfaces(ctx, ns)
	if err == nil {
		u.Push(func() { p.unplug(ns) })
		err = p.join(&u)
	}
	if rerr := <-rules; err == nil {
		err = rerr
	}
	if table != nil {
		u.Push(func() { _ = table.Close() })
	}
	if err != nil {
		return nil, err
	}
	a := &launch.Attached{Links: p.record.links(p.pod.UUID), Unlink: p.unlink(), Hosts: p.hosts()}
	if len(p.plugs) > 0 {
		a.Release = Unpluggers(p.env.Libexec, p.pod.Dir)
	}
	if table != nil {
		a.Table, a.Drop = table, t.Drop()
	}
	for _, s := range p.ports.Sockets {
		if to, ok := p.target(s.Address.Addr(), s.Container); ok {
			a.Forward = append(a.Forward, launch.Forward{File: s.File, UDP: s.UDP, To: to})
		}
	}
	undo := u
	a.Undo = undo.Run
	u.Release()
	return a, nil
}

// AttachIfPossible is Attach for a network nobody asked for: a host that cannot
// have it is told of, and the pod runs without.
func (p *Placed) AttachIfPossible(note func(error)) func(context.Context, *os.File) (*launch.Attached, error) {
	return func(ctx context.Context, ns *os.File) (*launch.Attached, error) {
		a, err := p.Attach(ctx, ns)
		var missing *bridge.Missing
		if errors.As(err, &missing) || errors.Is(err, nft.ErrUnsupported) {
			note(err)
			return &launch.Attached{Unlink: p.unlink()}, nil
		}
		return a, err
	}
}

// interfaces attaches the networks; those of plugins first when the first is
// one, which then has the way out.
func (p *Placed) interfaces(ctx context.Context, ns *os.File) error {
	if p.networks[0].Bridge == nil {
		if err := p.plug(ctx, ns); err != nil {
			return err
		}
		return p.bridges(ctx, ns)
	}
	if err := p.bridges(ctx, ns); err != nil {
		return err
	}
	return p.plug(ctx, ns)
}

func (p *Placed) bridges(ctx context.Context, ns *os.File) error {
	for i, a := range p.record.Attachments {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := p.networks[i].Bridge
		if b == nil {
			continue
		}
		var gateways []netip.Prefix
		for _, s := range b.Subnets {
			gateways = append(gateways, s.Prefix(s.Gateway))
		}
		index, err := bridge.Bridge{Name: b.Bridge, Gateways: gateways, MTU: b.MTU, Forward: !b.Internal, Owner: p.env.place(a.Network)}.Up()
		if err != nil {
			return fmt.Errorf("network %s: %w", a.Network, err)
		}
		mac, err := net.ParseMAC(a.MAC)
		if err != nil {
			return err
		}
		port := bridge.Port{
			Bridge: index, Host: hostEnd(p.pod.UUID, i), Interface: a.Interface, MAC: mac,
			Addresses: a.Addresses, MTU: b.MTU,
		}
		if i == 0 {
			port.Gateways = a.Gateways
		} else {
			port.Gateways, port.Answers = p.otherGateways(i), a.Gateways
		}
		if err := port.Attach(ns); err != nil {
			return fmt.Errorf("network %s: %w", a.Network, err)
		}
	}
	return nil
}

// otherGateways are those of a family that no network before has a way out for.
func (p *Placed) otherGateways(i int) []netip.Addr {
	var out []netip.Addr
	for _, g := range p.record.Attachments[i].Gateways {
		has := slices.ContainsFunc(p.record.Attachments[:i], func(a Attachment) bool {
			return slices.ContainsFunc(a.Gateways, func(o netip.Addr) bool { return o.Is4() == g.Is4() })
		})
		if !has {
			out = append(out, g)
		}
	}
	return out
}

// hostEnd names the host's end of a pod's n-th pair.
func hostEnd(uuid string, n int) string { return fmt.Sprintf("%s%.8s%d", bridge.PortPrefix, uuid, n) }

// table is what the pod has in the host's nftables.
func (p *Placed) table() nft.Table {
	t := nft.Table{Name: "gantry-" + strings.ReplaceAll(p.pod.UUID, "-", "")[:12], Ports: p.record.Ports}
	for i, a := range p.record.Attachments {
		b := p.networks[i].Bridge
		if b == nil {
			continue // its plugins have rules of their own
		}
		t.Attachments = append(t.Attachments, nft.Attachment{
			Bridge: b.Bridge, Addresses: a.Addresses, Masquerade: !b.Internal, Internal: b.Internal, Open: b.Open,
		})
	}
	return t
}

// rules makes the pod's table, if it needs one. What the kernel knows of
// addresses that were somebody else's is forgotten first, and then what it knows
// of ports that were.
func (p *Placed) rules(t nft.Table) (*os.File, error) {
	if len(t.Attachments) == 0 {
		return nil, nil
	}
	if err := nft.Forget(p.used...); err != nil {
		return nil, err
	}
	f, err := nft.Open(t)
	if err != nil {
		return nil, err
	}
	if err := t.ForgetOthers(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// target is where in the pod a port of the host leads, by the address it is
// bound to.
func (p *Placed) target(host netip.Addr, port uint16) (netip.AddrPort, bool) {
	var other netip.Addr
	for i, a := range p.record.Attachments {
		if b := p.networks[i].Bridge; b != nil && b.Internal {
			continue // published is what is on the others
		}
		for _, prefix := range a.Addresses {
			if prefix.Addr().Is4() == host.Is4() {
				return netip.AddrPortFrom(prefix.Addr(), port), true
			}
			if !other.IsValid() {
				other = prefix.Addr()
			}
		}
	}
	return netip.AddrPortFrom(other, port), other.IsValid()
}

// join makes the pod known to the others of its networks, and them to it.
func (p *Placed) join(u *undo.Stack) error {
	for _, a := range p.record.Attachments {
		var text strings.Builder
		for _, prefix := range a.Addresses {
			if len(a.Names) > 0 {
				fmt.Fprintf(&text, "%s\t%s\n", prefix.Addr(), strings.Join(a.Names, " "))
			}
		}
		if n := text.Len(); n > neighbours.MaxMember {
			err := fmt.Errorf("join network %s: the pod's names, for each of its %d addresses, have %d bytes in /etc/hosts, more than %d", a.Network, len(a.Addresses), n, neighbours.MaxMember)
			return hint.With(err, "give it fewer names by --network-alias")
		}
		dir := p.env.members(a.Network)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("join network %s: %w", a.Network, err)
		}
		member := filepath.Join(dir, p.pod.UUID)
		if err := os.WriteFile(member, []byte(text.String()), 0o600); err != nil {
			return fmt.Errorf("join network %s: %w", a.Network, err)
		}
		u.Push(func() {
			_ = os.Remove(member)
			_ = p.env.sync(a.Network)
		})
		if err := p.env.sync(a.Network); err != nil {
			return fmt.Errorf("join network %s: %w", a.Network, err)
		}
	}
	return nil
}

// unlink are the files that go with the pod.
func (p *Placed) unlink() []string {
	var all []string
	for _, a := range p.record.Attachments {
		for _, prefix := range a.Addresses {
			all = append(all, p.env.leases(a.Network).Link(prefix.Addr()))
		}
		all = append(all, filepath.Join(p.env.members(a.Network), p.pod.UUID))
	}
	return all
}

// hosts are the networks whose pods are told when this one has ended.
func (p *Placed) hosts() []launch.Hosts {
	var all []launch.Hosts
	for _, a := range p.record.Attachments {
		all = append(all, launch.Hosts{Network: a.Network, Members: p.env.members(a.Network)})
	}
	return all
}
