// SPDX-License-Identifier: Apache-2.0

package network

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gantryrun/gantry/internal/atomicfile"
	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/netns/bridge"
	"github.com/gantryrun/gantry/netns/cni"
	"github.com/gantryrun/gantry/netns/network"
)

// Settings are what network create takes, as people write it.
type Settings struct {
	Subnets   []string // ADDRESS/LENGTH
	Gateways  []string // each of one of the subnets
	Ranges    []string // of one of the subnets: ADDRESS/LENGTH or FIRST-LAST
	IPv6      bool     // an IPv6 subnet, too
	Internal  bool
	Options   []string // mtu=, isolate=
	Interface string   // the bridge
	Labels    []string // NAME=VALUE
}

// listFile is what create writes: a list of one plugin, and what people want to
// find again.
type listFile struct {
	CNIVersion string           `json:"cniVersion"`
	Name       string           `json:"name"`
	Gantry     Made             `json:"gantry"`
	Plugins    []network.Bridge `json:"plugins"`
}

// Made is what a list says of its making, if network create made it.
type Made struct {
	Created time.Time         `json:"created,omitzero"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// Exists is returned for a name that a network has already.
type Exists struct{ Name, File string }

func (e *Exists) Error() string {
	if e.File == "" {
		return fmt.Sprintf("the network %s exists already: it is built in", e.Name)
	}
	return fmt.Sprintf("the network %s exists already: %s", e.Name, e.File)
}

// Hint says where to look.
func (e *Exists) Hint() string { return fmt.Sprintf("'gantry network inspect %s' shows it", e.Name) }

// Create writes a network into the highest layer of the configuration. Nothing
// of the host's changes until a pod is on it.
func (e Env) Create(name string, s Settings) error {
	if err := network.CheckName(name); err != nil {
		return err
	}
	unlock, err := e.exclusive()
	if err != nil {
		return err
	}
	defer unlock()
	// A name only others' programs know may be taken: ours then counts.
	n, err := e.Find(name)
	var missing *NotFound
	switch {
	case err == nil && (n.List == nil || !n.List.Shared):
		return &Exists{name, n.File}
	case err != nil && !errors.As(err, &missing):
		return err
	}
	if err := e.fileIsFree(name); err != nil {
		return err
	}
	taken, err := e.taken(name)
	if err != nil {
		return err
	}
	b, err := s.bridge(name, taken)
	if err != nil {
		return err
	}
	if err := e.bridgeIsFree(name, b.Bridge); err != nil {
		return err
	}
	labels, err := s.labels()
	if err != nil {
		return err
	}
	return e.write(listFile{
		CNIVersion: "1.1.0", Name: name, Plugins: []network.Bridge{b},
		Gantry: Made{Created: time.Now().UTC().Truncate(time.Second), Labels: labels},
	})
}

// bridgeIsFree keeps two networks from one interface.
func (e Env) bridgeIsFree(name, bridge string) error {
	all, _, err := e.List()
	if err != nil {
		return err
	}
	if bridge == "" {
		bridge = e.bridgeName(name)
	}
	for _, n := range all {
		if n.Name != name && n.Bridge != nil && n.Bridge.Bridge == bridge {
			return hint.With(fmt.Errorf("the network %s has the bridge %s", n.Name, bridge), "give this one another name for its bridge: --interface-name")
		}
	}
	return nil
}

// listName is the file of a network that create makes.
func listName(network string) string { return network + ".conflist" }

// fileIsFree refuses the name of a network whose file describes another one:
// what counts is the name inside. An empty file only masks.
func (e Env) fileIsFree(name string) error {
	for _, dir := range slices.Backward(e.Config) {
		file := filepath.Join(dir, ConfigDir, listName(name))
		data, err := read(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case len(data) == 0:
			return nil
		}
		l, _ := cni.Parse(file, data, nil) // the name comes back of a wrong one, too
		err = fmt.Errorf("create network %s: %s describes the network %q", name, file, l.Name)
		return hint.With(err, "choose another name, or rename the file")
	}
	return nil
}

// top is the directory that create writes to.
func (e Env) top() string { return filepath.Join(e.Config[len(e.Config)-1], ConfigDir) }

func (e Env) write(l listFile) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(e.top(), 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(e.top())
	if err != nil {
		return err
	}
	defer root.Close()
	data = append(data, '\n')
	err = atomicfile.Create(root, listName(l.Name), data, 0o644)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	// It masks, or somebody has written it meanwhile.
	if err := e.fileIsFree(l.Name); err != nil {
		return err
	}
	return atomicfile.Write(root, listName(l.Name), data, 0o644)
}

// use is a range of addresses somebody has.
type use struct {
	prefix netip.Prefix
	who    string
}

// taken are the ranges of this host and of the other networks.
func (e Env) taken(name string) ([]use, error) {
	all, _, err := e.List()
	if err != nil {
		return nil, err
	}
	var out []use
	for _, n := range all {
		if n.Name == name {
			continue
		}
		for _, p := range n.Subnets() {
			out = append(out, use{p, "the network " + n.Name + " has " + p.String()})
		}
	}
	routes, err := bridge.Routes()
	if err != nil {
		return nil, err
	}
	for _, p := range routes {
		out = append(out, use{p, "this host has a route to " + p.String()})
	}
	return out, nil
}

// Subnets are the addresses of a network, as far as its file says.
func (n Network) Subnets() []netip.Prefix {
	var out []netip.Prefix
	if n.Bridge != nil {
		for _, s := range n.Bridge.Subnets {
			out = append(out, s.Subnet)
		}
	}
	if n.List != nil {
		for _, p := range n.List.Plugins {
			out = append(out, Subnets(p.Bytes)...)
		}
	}
	return out
}

func overlapping(p netip.Prefix, taken []use) string {
	for _, u := range taken {
		if u.prefix.Overlaps(p) {
			return u.who
		}
	}
	return ""
}

// bridge is the network that is asked for, its addresses chosen where none are.
func (s Settings) bridge(name string, taken []use) (network.Bridge, error) {
	b := network.Bridge{Type: network.BridgeType, Bridge: s.Interface, Internal: s.Internal}
	if err := s.options(&b); err != nil {
		return b, err
	}
	for _, text := range s.Subnets {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return b, fmt.Errorf("--subnet %q is not ADDRESS/LENGTH", text)
		}
		p = p.Masked() // as podman has it
		if who := overlapping(p, taken); who != "" {
			return b, fmt.Errorf("--subnet %s: %s", text, who)
		}
		b.Subnets = append(b.Subnets, network.Subnet{Subnet: p})
	}
	if err := s.choose(&b, taken); err != nil {
		return b, err
	}
	if err := s.gateways(&b); err != nil {
		return b, err
	}
	if err := s.ranges(&b); err != nil {
		return b, err
	}
	whole := b // what follows from the rest is not written down
	whole.Subnets = slices.Clone(b.Subnets)
	return b, whole.Complete(name)
}

// choose adds subnets that nobody has where none are given.
func (s Settings) choose(b *network.Bridge, taken []use) error {
	if len(s.Subnets) == 0 {
		p, ok := free(taken)
		if !ok {
			return errors.New("every subnet from 10.45.0.0/24 to 10.87.255.0/24 is in use: give one by --subnet")
		}
		b.Subnets = append(b.Subnets, network.Subnet{Subnet: p})
	}
	if s.IPv6 && !b.Has(true) {
		// RFC 4193: a random one is nobody else's.
		a := [16]byte{0: 0xfd}
		rand.Read(a[1:8])
		b.Subnets = append(b.Subnets, network.Subnet{Subnet: netip.PrefixFrom(netip.AddrFrom16(a), 64)})
	}
	return nil
}

// free is the first /24 of those between the default network's and podman's.
func free(taken []use) (netip.Prefix, bool) {
	for second := 45; second < 88; second++ {
		for third := range 256 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(second), byte(third), 0}), 24)
			if overlapping(p, taken) == "" {
				return p, true
			}
		}
	}
	return netip.Prefix{}, false
}

func (s Settings) gateways(b *network.Bridge) error {
	for _, text := range s.Gateways {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("--gateway %q is not an IP address", text)
		}
		i := slices.IndexFunc(b.Subnets, func(n network.Subnet) bool { return n.Subnet.Contains(a) })
		if i < 0 {
			return fmt.Errorf("--gateway %s is in none of the subnets", text)
		}
		if b.Subnets[i].Gateway.IsValid() {
			return fmt.Errorf("--gateway %s: %s has the gateway %s already", text, b.Subnets[i].Subnet, b.Subnets[i].Gateway)
		}
		b.Subnets[i].Gateway = a
	}
	return nil
}

func (s Settings) ranges(b *network.Bridge) error {
	for _, text := range s.Ranges {
		first, last, err := parseRange(text)
		if err != nil {
			return fmt.Errorf("--ip-range %q: %w", text, err)
		}
		i := slices.IndexFunc(b.Subnets, func(n network.Subnet) bool { return n.Subnet.Contains(first) && n.Subnet.Contains(last) })
		if i < 0 {
			return fmt.Errorf("--ip-range %s is in none of the subnets", text)
		}
		n := &b.Subnets[i]
		// The address of the subnet itself, and that of broadcasts, are nobody's.
		if first == n.Subnet.Addr() {
			first = first.Next()
		}
		if last.Is4() && !n.Subnet.Contains(last.Next()) {
			last = last.Prev()
		}
		n.First, n.Last = first, last
	}
	return nil
}

// parseRange reads ADDRESS/LENGTH or FIRST-LAST.
func parseRange(text string) (first, last netip.Addr, err error) {
	if low, high, ok := strings.Cut(text, "-"); ok {
		first, err = netip.ParseAddr(low)
		if err == nil {
			last, err = netip.ParseAddr(high)
		}
		if err == nil && last.Less(first) {
			err = errors.New("it ends before it begins")
		}
		return first, last, err
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return first, last, errors.New("it is neither ADDRESS/LENGTH nor FIRST-LAST")
	}
	p = p.Masked()
	end := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(end); i++ {
		end[i/8] |= 0x80 >> (i % 8)
	}
	last, _ = netip.AddrFromSlice(end)
	return p.Addr(), last, nil
}

func (s Settings) options(b *network.Bridge) error {
	for _, o := range s.Options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "mtu", "com.docker.network.driver.mtu":
			n, err := strconv.Atoi(value)
			if err != nil || n <= 0 {
				return fmt.Errorf("--opt %s: %q is no number of bytes", o, value)
			}
			b.MTU = n
		case "isolate":
			switch value {
			case "true", "strict":
			case "false":
				b.Open = true
			default:
				return fmt.Errorf("--opt %s: use true, strict (the same) or false", o)
			}
		default:
			return fmt.Errorf("--opt %s is not supported: there are mtu= and isolate=", o)
		}
	}
	return nil
}

func (s Settings) labels() (map[string]string, error) {
	if len(s.Labels) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, l := range s.Labels {
		name, value, _ := strings.Cut(l, "=")
		if name == "" {
			return nil, fmt.Errorf("--label %q: a label has a name", l)
		}
		m[name] = value
	}
	return m, nil
}

// Made reads what create wrote down; of a file it did not write it is zero.
func (n Network) Made() Made {
	var l struct {
		Gantry Made `json:"gantry"`
	}
	if n.File != "" && n.Bridge != nil {
		if data, err := read(n.File); err == nil {
			_ = json.Unmarshal(data, &l)
		}
	}
	return l.Gantry
}

// Deletable says why a network is not gantry's to delete.
func (e Env) Deletable(n Network) error {
	switch {
	case n.File == "":
		return &Kept{n.Name, "it is built in", "an own " + filepath.Join(e.top(), n.Name+".conflist") + " replaces it"}
	case filepath.Dir(n.File) != e.top() || n.Made().Created.IsZero():
		return &Kept{n.Name, "'gantry network create' did not make it: " + n.File, "remove the file, if it is nobody else's; an empty " + filepath.Join(e.top(), filepath.Base(n.File)) + " masks one of a lower layer"}
	}
	return nil
}

// Delete removes what create wrote, and what the host has of the network. The
// caller has seen that it may, and that no pod is on it.
func (e Env) Delete(n Network) error {
	unlock, err := e.exclusive()
	if err != nil {
		return err
	}
	defer unlock()
	// To be locked: else who is the first on the network at this moment is not seen.
	if err := os.MkdirAll(e.leases(n.Name).Path, 0o700); err != nil {
		return err
	}
	free, err := e.leases(n.Name).WhileFree(func() error { return e.delete(n) })
	if err == nil && !free {
		err = fmt.Errorf("the network %s has just got a pod", n.Name)
	}
	return err
}

// delete removes the description first: where that fails the network stays
// whole. A bridge that then cannot be deleted is gc's, by the directory that is
// left.
func (e Env) delete(n Network) error {
	if err := os.Remove(n.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := bridge.Remove(e.place(n.Name)); err != nil {
		return err
	}
	return os.RemoveAll(e.place(n.Name))
}

// Kept is returned for a network that is not gantry's to delete.
type Kept struct{ Name, Why, Instead string }

func (k *Kept) Error() string { return fmt.Sprintf("the network %s stays: %s", k.Name, k.Why) }

// Hint says what can be done instead.
func (k *Kept) Hint() string { return k.Instead }

// exclusive keeps those apart who change which networks there are.
func (e Env) exclusive() (func(), error) {
	if err := os.MkdirAll(filepath.Dir(e.Dir), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(e.Dir+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock.Exclusive(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock the networks: %w", err)
	}
	return func() { _ = f.Close() }, nil
}
