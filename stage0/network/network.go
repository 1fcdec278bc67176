// SPDX-License-Identifier: Apache-2.0

// Package network puts pods on networks by name: it finds what a name means in
// the configuration, chooses addresses and ports before the launch, attaches
// the pod's namespace during it, and knows what is to be given back. What a
// network has of this boot is a directory of small files; there is no table and
// nobody who keeps one.
package network

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/netns/bridge"
	"github.com/gantryrun/gantry/netns/cni"
	"github.com/gantryrun/gantry/netns/lease"
	"github.com/gantryrun/gantry/netns/network"
)

// ConfigDir is the subdirectory of every layer of the configuration with the
// networks.
const ConfigDir = "net.d"

// Env is what networks need of an installation.
type Env struct {
	Config  []string // layers of the configuration, low to high
	Dir     string   // of this boot: a directory for each network
	Pods    string   // the directory of phases
	State   string   // what outlives a boot: results of plugins
	Libexec string
	Tag     string // tells bridges of installations apart; empty for the one of the system
	// Alive tells whether a pod still has what is its.
	Alive func(uuid string) bool
}

// Network is what a name means.
type Network struct {
	Name   string          `json:"name"`
	File   string          `json:"file,omitempty"` // empty: built in
	Bridge *network.Bridge `json:"bridge,omitempty"`
	List   *cni.List       `json:"list,omitempty"` // of plugins of others
}

// NotFound is returned for a network nobody describes.
type NotFound struct {
	Name   string
	Known  []string
	Broken error // files that may describe it, and cannot be read
}

func (n *NotFound) Error() string {
	text := fmt.Sprintf("there is no network %q", n.Name)
	if n.Broken != nil {
		text += fmt.Sprintf(", unless it is in a file that cannot be read: %v", n.Broken)
	}
	return text
}

// Hint says which there are.
func (n *NotFound) Hint() string {
	if len(n.Known) == 0 {
		return fmt.Sprintf("'gantry network create %s' makes one", n.Name)
	}
	return fmt.Sprintf("there are %s; 'gantry network create %s' makes one", strings.Join(n.Known, ", "), n.Name)
}

// Find returns the network of a name.
func (e Env) Find(name string) (Network, error) {
	files, err := e.files()
	if err != nil {
		return Network{}, err
	}
	return e.find(files, name)
}

func (e Env) find(files []cni.File, name string) (Network, error) {
	if name == network.DefaultName && e.builtIn(files) {
		b, err := e.defaultBridge(files)
		return Network{Name: name, Bridge: &b}, err
	}
	list, err := cni.Find(files, name)
	switch {
	case err == nil && !list.Shared:
		return e.fromList(list)
	case err != nil && !errors.Is(err, cni.ErrNotFound):
		return Network{}, err
	}
	for _, f := range files {
		if unnamed(f, name) && (err != nil || !f.Shared) {
			return Network{}, f.Problem
		}
	}
	if err == nil {
		return e.fromList(list)
	}
	var known []string
	if !e.Masked() {
		known = append(known, network.DefaultName)
	}
	for _, f := range files {
		if f.Name != "" && f.Problem == nil && f.Name != network.DefaultName {
			known = append(known, f.Name)
		}
	}
	slices.Sort(known)
	return Network{}, &NotFound{name, known, cni.Broken(files)}
}

// unnamed tells whether a file that cannot be read is a network's: it does not
// say its name but by the file's.
func unnamed(f cni.File, name string) bool {
	return f.Name == "" && f.Problem != nil && strings.TrimSuffix(filepath.Base(f.File), filepath.Ext(f.File)) == name
}

// builtIn tells whether the default network is gantry's: a file of its own
// configuration replaces it, and none that other programs use too.
func (e Env) builtIn(files []cni.File) bool {
	return !e.Masked() && !slices.ContainsFunc(files, func(f cni.File) bool {
		return !f.Shared && (f.Name == network.DefaultName || unnamed(f, network.DefaultName))
	})
}

// List returns every network that can be read, the built-in one among them, and
// what is wrong with the others.
func (e Env) List() (all []Network, problems []error, err error) {
	files, err := e.files()
	if err != nil {
		return nil, nil, err
	}
	var names []string
	if !e.Masked() {
		names = append(names, network.DefaultName)
	}
	for _, f := range files {
		if f.Problem != nil {
			problems = append(problems, f.Problem)
		} else if f.Name != network.DefaultName {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		n, err := e.find(files, name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		all = append(all, n)
	}
	return all, problems, nil
}

// Masked tells whether the administrator took the built-in network away: the
// last default.conflist of the layers is empty.
func (e Env) Masked() bool {
	for _, dir := range slices.Backward(e.Config) {
		fi, err := os.Stat(filepath.Join(dir, ConfigDir, network.DefaultName+".conflist"))
		if err == nil {
			return fi.Size() == 0
		}
	}
	return false
}

func (e Env) files() ([]cni.File, error) {
	var layers []string
	for _, dir := range e.Config {
		layers = append(layers, filepath.Join(dir, ConfigDir))
	}
	plugins, err := ReadPlugins(e.Config)
	if err != nil {
		return nil, err
	}
	return cni.Load(layers, plugins.Lists, read)
}

// read believes a file of root's that nobody else can write.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR {
		return nil, nil // a link to /dev/null masks
	}
	if st.Mode&0o022 != 0 || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s: somebody else can write it (user %d, mode %04o)", path, st.Uid, st.Mode&0o7777)
	}
	if st.Size > cni.MaxFile {
		return nil, fmt.Errorf("%s: it has more than %d bytes", path, cni.MaxFile)
	}
	b := make([]byte, st.Size)
	n, err := f.Read(b)
	if st.Size > 0 && err != nil {
		return nil, err
	}
	return b[:n], nil
}

// fromList tells a network of ours from one of other plugins.
func (e Env) fromList(l cni.List) (Network, error) {
	n := Network{Name: l.Name, File: l.File}
	if len(l.Plugins) != 1 || l.Plugins[0].Type != network.BridgeType {
		if slices.Contains(l.Types(), network.BridgeType) {
			return n, fmt.Errorf("%s: plugins: %s stands alone: it cannot be chained with others", l.File, network.BridgeType)
		}
		n.List = &l
		return n, nil
	}
	b, err := network.ParseBridge(l.Name, e.bridgeName(l.Name), l.Plugins[0].Bytes)
	if err != nil {
		return n, &cni.FieldError{File: l.File, Field: "plugins[0]", Err: err}
	}
	n.Bridge = &b
	return n, nil
}

// bridgeName is that of the network alone on the system's installation, and has
// another in each other one: two would give the same addresses twice.
func (e Env) bridgeName(name string) string {
	if e.Tag == "" {
		return network.BridgeName(name)
	}
	sum := sha256.Sum256([]byte(e.Tag + "/" + name))
	return "gb" + hex.EncodeToString(sum[:6])
}

// place is the directory of a network.
func (e Env) place(name string) string { return filepath.Join(e.Dir, name) }

func (e Env) leases(name string) lease.Dir {
	return lease.Dir{Path: filepath.Join(e.place(name), "lease"), Alive: e.Alive}
}

func (e Env) members(name string) string { return filepath.Join(e.place(name), "members") }

// defaultBridge is the network nobody has to configure. Its IPv4 subnet is the
// first of a row that this host has no route into and no other network has,
// chosen when it is used for the first time since the boot.
func (e Env) defaultBridge(files []cni.File) (network.Bridge, error) {
	name := network.DefaultName
	b := network.Bridge{Type: network.BridgeType, Bridge: e.bridgeName(name)}
	file := filepath.Join(e.place(name), "subnets.json")
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		data, err = e.chooseSubnets(file, files)
	}
	if err != nil {
		return b, fmt.Errorf("choose addresses of the network %s: %w", name, err)
	}
	err = json.Unmarshal(data, &b.Subnets)
	if !bridge.IPv6() {
		b.Subnets = slices.DeleteFunc(b.Subnets, func(s network.Subnet) bool { return s.Subnet.Addr().Is6() })
	}
	if err == nil {
		err = b.Complete(name)
	}
	if err != nil {
		err = fmt.Errorf("read %s, the addresses of the network %s: %w", file, name, err)
		return b, hint.With(err, "remove the file when no pod is on the network: others are chosen then")
	}
	return b, nil
}

// chooseSubnets writes the choice by a link that fails if somebody else's is
// there, which then is everybody's.
func (e Env) chooseSubnets(file string, files []cni.File) ([]byte, error) {
	taken, err := bridge.Routes()
	if err != nil {
		return nil, err
	}
	// A network nobody has used since the boot has no route yet.
	four, ok := freeSubnet(append(taken, e.described(files)...))
	if !ok {
		return nil, errors.New("this host has routes or networks in every subnet that could be used: describe the network in /etc/gantry/" + ConfigDir + "/default.conflist")
	}
	data, err := json.Marshal([]network.Subnet{{Subnet: four}, {Subnet: e.localSubnet()}})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	temp, err := os.CreateTemp(filepath.Dir(file), ".subnets")
	if err != nil {
		return nil, err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	if err = errors.Join(err, temp.Close()); err != nil {
		return nil, err
	}
	take := os.Link
	if fi, err := os.Stat(file); err == nil && fi.Size() == 0 {
		take = os.Rename // nobody's choice, but a file that somebody emptied
	}
	if err := take(temp.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.ReadFile(file)
}

// described are the subnets of the networks of files. One that cannot be read
// keeps nobody from the default network.
func (e Env) described(files []cni.File) []netip.Prefix {
	var all []netip.Prefix
	for _, f := range files {
		if f.Problem != nil {
			continue
		}
		if n, err := e.fromList(f.List); err == nil {
			all = append(all, n.Subnets()...)
		}
	}
	return all
}

// freeSubnet is the first IPv4 subnet for pods where nothing is taken. podman
// has 10.88 and what follows, Docker 172.17 and what follows.
func freeSubnet(taken []netip.Prefix) (netip.Prefix, bool) {
	overlaps := func(p netip.Prefix) bool {
		return slices.ContainsFunc(taken, func(t netip.Prefix) bool { return t.Overlaps(p) })
	}
	for second := 44; second < 88; second++ {
		if p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(second), 0, 0}), 16); !overlaps(p) {
			return p, true
		}
	}
	for third := range 256 {
		if p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(third), 0}), 24); !overlaps(p) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// localSubnet is a unique local one (RFC 4193) that stays the same on this
// machine.
func (e Env) localSubnet() netip.Prefix {
	id, _ := os.ReadFile("/etc/machine-id") // a machine without one has another each boot
	if len(id) == 0 {
		id, _ = os.ReadFile("/proc/sys/kernel/random/boot_id")
	}
	sum := sha256.Sum256(append([]byte("gantry network default "+e.Tag+" "), id...))
	a := [16]byte{0: 0xfd}
	copy(a[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}
