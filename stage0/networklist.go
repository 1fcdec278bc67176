// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage0/network"
	"github.com/gantryrun/gantry/stage0/pod"
)

// Network is one network as network ls and inspect show it.
type Network struct {
	Name     string            `json:"name"`
	Driver   string            `json:"driver"`         // bridge, or the type of the first plugin
	File     string            `json:"file,omitempty"` // empty: built in
	Bridge   string            `json:"bridge,omitempty"`
	Subnets  []NetworkSubnet   `json:"subnets"`
	Internal bool              `json:"internal,omitempty"`
	Isolate  bool              `json:"isolate"` // from pods of other networks
	MTU      int               `json:"mtu,omitempty"`
	Created  time.Time         `json:"created,omitzero"`
	Labels   map[string]string `json:"labels,omitempty"`
	// Plugins are those of a network that others describe, Config its list.
	Plugins []string        `json:"plugins,omitempty"`
	Config  any             `json:"config,omitempty"`
	Pods    []NetworkMember `json:"pods"`
	Problem string          `json:"problem,omitempty"`
}

// NetworkSubnet is one range of addresses.
type NetworkSubnet struct {
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
	First   netip.Addr   `json:"rangeStart,omitzero"`
	Last    netip.Addr   `json:"rangeEnd,omitzero"`
}

// NetworkMember is a running pod on a network.
type NetworkMember struct {
	UUID      string         `json:"uuid"`
	Name      string         `json:"name,omitempty"`
	Interface string         `json:"interface"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	MAC       string         `json:"mac,omitempty"`
}

// NetworkSettings are what network create takes.
type NetworkSettings = network.Settings

// CreateNetwork writes a network down. With ignore one that exists is left as it
// is.
func CreateNetwork(e Env, name string, s NetworkSettings, ignore bool) error {
	if e.Rootless {
		return hint.With(fmt.Errorf("network %s: bridges take the host's root", name), "an ordinary user's pod is on --net=pasta (the default), none or host")
	}
	err := e.networks().Create(name, s)
	var exists *network.Exists
	if ignore && errors.As(err, &exists) {
		return nil
	}
	return err
}

// ListNetworks returns the networks that pass every filter: name=, label=,
// driver=, dangling=. A file that cannot be read is one with its Problem.
func ListNetworks(e Env, filter []string) ([]Network, error) {
	keep, err := selection(filter, networkQuestions())
	if err != nil {
		return nil, err
	}
	if e.Rootless {
		one, err := e.pastaNetwork()
		return slices.DeleteFunc([]Network{one}, func(n Network) bool { return !keep(n) }), err
	}
	all, problems, err := e.networks().List()
	if err != nil {
		return nil, err
	}
	members, err := e.networkMembers()
	if err != nil {
		return nil, err
	}
	out := []Network{}
	for _, n := range all {
		if one := describe(n, members[n.Name]); keep(one) {
			out = append(out, one)
		}
	}
	if len(filter) > 0 {
		return out, nil
	}
	for _, p := range problems {
		out = append(out, Network{Subnets: []NetworkSubnet{}, Pods: []NetworkMember{}, Problem: p.Error()})
	}
	return out, nil
}

// InspectNetworks returns everything known of networks.
func InspectNetworks(e Env, names []string) ([]Network, error) {
	if e.Rootless {
		return e.inspectPasta(names)
	}
	members, err := e.networkMembers()
	if err != nil {
		return nil, err
	}
	out := []Network{}
	for _, name := range names {
		n, err := e.networks().Find(name)
		if err != nil {
			return nil, err
		}
		one := describe(n, members[name])
		if n.List != nil {
			one.Config = n.List.Bytes
		}
		out = append(out, one)
	}
	return out, nil
}

func describe(n network.Network, pods []NetworkMember) Network {
	made := n.Made()
	out := Network{Name: n.Name, File: n.File, Subnets: []NetworkSubnet{}, Created: made.Created, Labels: made.Labels, Pods: pods}
	if out.Pods == nil {
		out.Pods = []NetworkMember{}
	}
	if b := n.Bridge; b != nil {
		out.Driver, out.Bridge, out.Internal, out.Isolate, out.MTU = "bridge", b.Bridge, b.Internal, !b.Open, b.MTU
		for _, s := range b.Subnets {
			out.Subnets = append(out.Subnets, NetworkSubnet(s))
		}
		return out
	}
	out.Plugins = n.List.Types()
	out.Driver = out.Plugins[0]
	for _, p := range n.Subnets() {
		out.Subnets = append(out.Subnets, NetworkSubnet{Subnet: p})
	}
	return out
}

// networkMembers are the running pods by their networks.
func (e Env) networkMembers() (map[string][]NetworkMember, error) {
	out := map[string][]NetworkMember{}
	err := e.pods().List(func(p *pod.Pod) error {
		if state, err := p.State(); err != nil || state != pod.Running {
			return nil //nolint:nilerr // it has gone meanwhile
		}
		r, err := network.ReadRecord(p.Path())
		if err != nil {
			return nil //nolint:nilerr // it is on none, or has gone meanwhile
		}
		m, err := p.Manifest()
		if err != nil {
			return nil //nolint:nilerr // it has gone meanwhile
		}
		for _, a := range r.Attachments {
			out[a.Network] = append(out[a.Network], NetworkMember{p.UUID, m.Name, a.Interface, a.Addresses, a.MAC})
		}
		return nil
	})
	return out, err
}

// NetworkInUse is returned for a network that pods are on.
type NetworkInUse struct {
	Name string
	Pods []NetworkMember
}

func (u *NetworkInUse) Error() string {
	return fmt.Sprintf("the network %s is in use by %s", u.Name, u.names())
}

// Hint says how it becomes free.
func (u *NetworkInUse) Hint() string {
	return fmt.Sprintf("'gantry stop %s', or 'gantry network rm --force %s', which removes the pods too", u.names(), u.Name)
}

func (u *NetworkInUse) names() string {
	var names []string
	for _, p := range u.Pods {
		if p.Name != "" {
			names = append(names, p.Name)
		} else {
			names = append(names, pod.Short(p.UUID))
		}
	}
	return strings.Join(names, " ")
}

// RemoveNetworks deletes networks that create made, and returns those that are
// gone. With force the pods on them are removed first, and one that does not
// exist is no error.
func RemoveNetworks(ctx context.Context, e Env, names []string, force bool) ([]string, error) {
	var removed []string
	var errs []error
	for _, name := range names {
		gone, err := e.removeNetwork(ctx, name, force)
		if gone {
			removed = append(removed, name)
		}
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

func (e Env) removeNetwork(ctx context.Context, name string, force bool) (bool, error) {
	n, err := e.networks().Find(name)
	var missing *network.NotFound
	if force && errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := e.networks().Deletable(n); err != nil {
		return false, err
	}
	members, err := e.networkMembers()
	if err != nil {
		return false, err
	}
	if pods := members[name]; len(pods) > 0 {
		if !force {
			return false, &NetworkInUse{name, pods}
		}
		for _, p := range pods {
			if err := remove(ctx, e, p.UUID, RemoveOptions{Force: true}); err != nil && !errors.Is(err, pod.ErrNotFound) {
				return false, err
			}
		}
	}
	err = e.networks().Delete(n)
	return err == nil, err
}

// PruneNetworks deletes the networks that create made and no pod is on.
func PruneNetworks(ctx context.Context, e Env, filter []string) ([]string, error) {
	names, err := UnusedNetworks(e, filter)
	if err != nil {
		return nil, err
	}
	return RemoveNetworks(ctx, e, names, false)
}

// UnusedNetworks are those that prune deletes.
func UnusedNetworks(e Env, filter []string) ([]string, error) {
	all, err := ListNetworks(e, append(slices.Clone(filter), "dangling=true"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range all {
		if !n.Created.IsZero() {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// NetworkFinding is one thing CheckNetworks looked at.
type NetworkFinding = network.Finding

// CheckNetworks looks whether networks, all if none is named, can be joined and
// whether the pods on them are still attached as they were.
func CheckNetworks(ctx context.Context, e Env, names []string) ([]NetworkFinding, error) {
	var all []network.Network
	if len(names) == 0 {
		var problems []error
		var err error
		if all, problems, err = e.networks().List(); err != nil || len(problems) > 0 {
			return nil, errors.Join(append(problems, err)...)
		}
	}
	for _, name := range names {
		n, err := e.networks().Find(name)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return e.networks().Check(ctx, all)
}

func networkQuestions() map[string]question[Network] {
	return map[string]question[Network]{
		"name":     named(func(n Network) string { return n.Name }),
		"driver":   exactly(func(n Network) string { return n.Driver }),
		"label":    labelled(func(n Network) map[string]string { return n.Labels }),
		"dangling": dangling(func(n Network) int { return len(n.Pods) }),
	}
}
