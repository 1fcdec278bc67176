// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/gantryrun/gantry/netns/cni"
	"github.com/gantryrun/gantry/netns/network"
)

// cache is where results of plugins are kept between ADD and DEL.
func (e Env) cache() string { return filepath.Join(e.State, "cni") }

// plugged is a pod's place on a network of plugins, who choose its addresses.
// Its ports are theirs to publish when it is on no network of gantry's own.
func (p *Placed) plugged(n Network, j network.Join) (Attachment, error) {
	a := Attachment{Network: n.Name, Interface: j.Interface, MAC: j.MAC, Names: p.names(j), Plugins: n.List.Types()}
	plugins, err := ReadPlugins(p.env.Config)
	if err != nil {
		return a, err
	}
	w := Wanted{DNS: p.pod.DNS}
	if !slices.ContainsFunc(p.networks, func(n Network) bool { return n.Bridge != nil }) {
		w.Ports = p.record.Ports
	}
	on, err := plugins.Attachment(*n.List, p.env.cache(), p.pod.UUID, j, w)
	if err != nil {
		return a, err
	}
	p.plugs = append(p.plugs, Plugged{Join: j, On: on})
	return a, nil
}

// plug attaches the namespace to every network of plugins, and writes down what
// they chose and what they say of names.
func (p *Placed) plug(ctx context.Context, ns *os.File) error {
	if len(p.plugs) == 0 {
		return nil
	}
	if err := Plug(ctx, p.env.Libexec, p.pod.Dir, ns, p.plugs); err != nil {
		return err
	}
	for _, plug := range p.plugs {
		i := slices.IndexFunc(p.record.Attachments, func(a Attachment) bool { return a.Network == plug.On.Network })
		p.record.Attachments[i].chosen(plug)
	}
	if err := p.record.write(p.pod.Dir); err != nil {
		return err
	}
	return p.resolve()
}

// unplug takes it back.
func (p *Placed) unplug(ns *os.File) {
	if len(p.plugs) > 0 {
		_ = Unplug(context.Background(), p.env.Libexec, p.pod.Dir, ns)
	}
}

// chosen is what a result says of the pod's interface.
func (a *Attachment) chosen(p Plugged) {
	for _, ip := range p.Result.IPs {
		a.Addresses = append(a.Addresses, ip.Address)
		out := func(r cni.Route) bool { return r.Dst.Bits() == 0 && r.Dst.Addr().Is4() == ip.Address.Addr().Is4() }
		if ip.Gateway.IsValid() && slices.ContainsFunc(p.Result.Routes, out) {
			a.Gateways = append(a.Gateways, ip.Gateway)
		}
	}
	for _, i := range p.Result.Interfaces {
		if i.Sandbox != "" && i.Name == a.Interface && i.MAC != "" {
			a.MAC = i.MAC
		}
	}
	slices.SortStableFunc(a.Addresses, func(x, y netip.Prefix) int { return x.Addr().BitLen() - y.Addr().BitLen() })
}
