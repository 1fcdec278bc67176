// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gantryrun/gantry/netns/cni"
	"github.com/gantryrun/gantry/netns/network"
)

// Unable is returned when something is asked for by name that no plugin of a
// network takes.
type Unable struct{ What, Capability string }

func (u *Unable) Error() string {
	return fmt.Sprintf("%s: none of its plugins has the capability %s", u.What, u.Capability)
}

// Hint says which plugin has it.
func (u *Unable) Hint() string {
	switch u.Capability {
	case "portMappings":
		return `add {"type": "portmap", "capabilities": {"portMappings": true}} to its plugins, or publish on a network of gantry's own`
	case "bandwidth":
		return `add {"type": "bandwidth", "capabilities": {"bandwidth": true}} to its plugins`
	}
	return ""
}

// Wanted is what a pod asks of a network of plugins beside its Join.
type Wanted struct {
	Ports []network.Port
	DNS   cni.DNS
}

// Attachment is all that ADD and DEL are told of a pod on a network of plugins.
// What is asked for and no plugin can do is refused here, before anything is
// made.
func (p Plugins) Attachment(l cni.List, cache, pod string, j network.Join, w Wanted) (cni.Attachment, error) {
	a := cni.Attachment{
		Network: l.Name, List: l.Bytes, Pod: pod, IfName: j.Interface,
		Path: p.Path, Cache: cache, Timeout: p.Timeout, Shared: l.Shared,
	}
	if len(w.Ports) > 0 && !l.Has("portMappings") {
		return a, &Unable{"publish " + w.Ports[0].String(), "portMappings"}
	}
	for _, port := range w.Ports {
		more, err := mappings(port)
		if err != nil {
			return a, err
		}
		a.Capabilities.PortMappings = append(a.Capabilities.PortMappings, more...)
	}
	if l.Has("aliases") {
		a.Capabilities.Aliases = j.Aliases
	}
	if l.Has("dns") && !empty(w.DNS) {
		a.Capabilities.DNS = &w.DNS
	}
	askMAC(&a, l, j)
	askAddresses(&a, l, j)
	return a, askRest(&a, l, j)
}

func empty(d cni.DNS) bool { return len(d.Servers)+len(d.Searches)+len(d.Options) == 0 }

// mappings is one published port, or each of a range.
func mappings(port network.Port) ([]cni.PortMapping, error) {
	if port.HostPort == 0 {
		return nil, fmt.Errorf("publish %s: its plugins cannot choose a port: give one, as in 8080:%d", port, port.Container)
	}
	var out []cni.PortMapping
	for i := range port.Len() {
		one := port.At(i)
		m := cni.PortMapping{HostPort: one.HostPort, ContainerPort: one.Container, Protocol: one.Protocol}
		if one.Host.IsValid() {
			m.HostIP = one.Host.String()
		}
		out = append(out, m)
	}
	return out, nil
}

// askMAC and askAddresses ask by capability, or as plugins were asked before
// there were capabilities: by arguments. Whether it was heard is read back from
// the result.
func askMAC(a *cni.Attachment, l cni.List, j network.Join) {
	switch {
	case j.MAC == "":
	case l.Has("mac"):
		a.Capabilities.MAC = j.MAC
	default:
		a.Args = append(a.Args, [2]string{"MAC", j.MAC})
	}
}

func askAddresses(a *cni.Attachment, l cni.List, j network.Join) {
	for _, address := range j.Addresses {
		if l.Has("ips") {
			a.Capabilities.IPs = append(a.Capabilities.IPs, withLength(l, address))
		} else {
			a.Args = append(a.Args, [2]string{"IP", address.String()})
		}
	}
}

// withLength gives an address the length of the subnet it is in, if the list
// has one: some plugins want it, all take it.
func withLength(l cni.List, address netip.Addr) string {
	for _, p := range l.Plugins {
		for _, subnet := range Subnets(p.Bytes) {
			if subnet.Contains(address) {
				return netip.PrefixFrom(address, subnet.Bits()).String()
			}
		}
	}
	return address.String()
}

// Subnets are those an element of a list mentions as "subnet", wherever its
// IPAM plugin has them.
func Subnets(element []byte) []netip.Prefix {
	var v any
	if json.Unmarshal(element, &v) != nil {
		return nil
	}
	var out []netip.Prefix
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for key, e := range v {
				if text, ok := e.(string); ok && key == "subnet" {
					if p, err := netip.ParsePrefix(text); err == nil {
						out = append(out, p.Masked())
					}
				}
				walk(e)
			}
		}
	}
	walk(v)
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// askRest passes what --net NAME:key=value says that is none of gantry's: rates,
// and arguments of plugins, who must not mind those of the others.
func askRest(a *cni.Attachment, l cni.List, j network.Join) error {
	var b cni.Bandwidth
	rates := map[string]*uint64{
		"ingressRate": &b.IngressRate, "ingressBurst": &b.IngressBurst,
		"egressRate": &b.EgressRate, "egressBurst": &b.EgressBurst,
	}
	for _, arg := range j.Args {
		rate := rates[arg[0]]
		if rate == nil {
			a.Args = append(a.Args, arg)
			continue
		}
		if !l.Has("bandwidth") {
			return &Unable{arg[0] + "=" + arg[1], "bandwidth"}
		}
		n, err := strconv.ParseUint(arg[1], 10, 64)
		if err != nil || n == 0 {
			return fmt.Errorf("%s=%s is not a number of bits", arg[0], arg[1])
		}
		*rate = n
		a.Capabilities.Bandwidth = &b
	}
	if len(a.Args) > 0 && !slices.ContainsFunc(a.Args, func(kv [2]string) bool { return kv[0] == "IgnoreUnknown" }) {
		a.Args = append([][2]string{{"IgnoreUnknown", "1"}}, a.Args...)
	}
	return nil
}

// Plugged is a pod on a network of plugins: what was asked for, and the result.
type Plugged struct {
	Join   network.Join
	On     cni.Attachment
	Result *cni.Result
}

// Plug attaches the namespace to networks of plugins, one after the other.
// Before the first plugin runs, what DEL needs is recorded in the pod's
// directory. On failure all of it is taken back.
func Plug(ctx context.Context, libexec, podDir string, ns *os.File, all []Plugged) error {
	record := make([]cni.Attachment, len(all))
	for i := range all {
		all[i].On.NetNS = ns.Name()
		record[i] = all[i].On
	}
	if err := cni.WriteRecord(podDir, record); err != nil {
		return err
	}
	for i := range all {
		answer, err := cni.Call(ctx, libexec, cni.Request{Operation: cni.Add, On: all[i].On, Record: filepath.Join(podDir, cni.RecordFile)})
		if err == nil {
			all[i].Result = answer.Result
			err = heard(all[i])
		}
		if err != nil {
			// A failed ADD may have left something, as may those before it.
			undone := Unplug(context.WithoutCancel(ctx), libexec, podDir, ns)
			if undone != nil && undone.Error() == "detach: "+err.Error() {
				undone = nil // what stands in the way of both is told once
			}
			return errors.Join(err, undone)
		}
	}
	return nil
}

// heard reads back what was asked for by name.
func heard(p Plugged) error {
	for _, want := range p.Join.Addresses {
		if !slices.ContainsFunc(p.Result.IPs, func(ip cni.IP) bool { return ip.Address.Addr() == want }) {
			return fmt.Errorf("network %s: its plugins gave another address than %s, which was asked for (%s)", p.On.Network, want, addresses(p.Result))
		}
	}
	if p.Join.MAC == "" {
		return nil
	}
	for _, i := range p.Result.Interfaces {
		if i.Sandbox != "" && strings.EqualFold(i.MAC, p.Join.MAC) {
			return nil
		}
	}
	return fmt.Errorf("network %s: its plugins gave another MAC address than %s, which was asked for", p.On.Network, p.Join.MAC)
}

func addresses(r *cni.Result) string {
	text := make([]string, len(r.IPs))
	for i, ip := range r.IPs {
		text[i] = ip.Address.Addr().String()
	}
	if len(text) == 0 {
		return "none"
	}
	return strings.Join(text, " ")
}

// Unpluggers is the program, with its arguments, that detaches a pod from its
// networks of plugins by what is recorded. Its standard input is the namespace,
// while there is one.
func Unpluggers(libexec, podDir string) []string {
	return []string{filepath.Join(libexec, cni.Executable), "del", "--pod", podDir}
}

// unplugBound is for a program that bounds itself: sixty-four networks of
// plugins that hang would take longer.
const unplugBound = 2 * time.Minute

// Unplug runs it. Without a record there is nothing to do; ns is nil when the
// namespace is gone.
func Unplug(ctx context.Context, libexec, podDir string, ns *os.File) error {
	if _, err := os.Lstat(filepath.Join(podDir, cni.RecordFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, unplugBound)
	defer cancel()
	argv := Unpluggers(libexec, podDir)
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if ns != nil {
		c.Stdin = ns
	}
	var said bytes.Buffer
	c.Stderr = &said
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = time.Second
	if err := c.Run(); err != nil {
		text := strings.TrimSpace(strings.ReplaceAll(said.String(), cni.Executable+": ", ""))
		if text == "" {
			text = err.Error()
		}
		return fmt.Errorf("detach: %s", text)
	}
	return nil
}

// CollectPlugged takes back what plugins hold for pods that are gone, on the
// networks that were ever joined.
func (e Env) CollectPlugged(ctx context.Context) error {
	used, err := os.ReadDir(filepath.Join(e.cache(), "used"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := ReadPlugins(e.Config)
	if err != nil {
		return err
	}
	var errs []error
	for _, u := range used {
		n, err := e.Find(u.Name())
		if err != nil || n.List == nil {
			continue // its pods' records are all that is left of it
		}
		on := cni.Attachment{Network: n.Name, List: n.List.Bytes, Path: p.Path, Cache: e.cache(), Timeout: p.Timeout, Shared: n.List.Shared}
		_, err = cni.Call(ctx, e.Libexec, cni.Request{Operation: cni.GC, On: on, Pods: e.Pods})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
