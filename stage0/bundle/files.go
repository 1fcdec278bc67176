// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gantryrun/gantry/netns/network"
)

// podFiles are the names of the generated files, below /etc in the pod.
func (b *builder) podFiles() []string {
	files := []string{"hostname", "resolv.conf"}
	if !b.Options.NoHosts {
		files = append(files, "hosts")
	}
	if b.Options.Timezone != "" {
		files = append(files, "localtime")
	}
	return files
}

// files generates hostname, hosts and resolv.conf.
func (b *builder) files() error {
	b.r.Files["hostname"] = []byte(b.name + "\n")
	resolv, err := b.resolvConf()
	if err != nil {
		return err
	}
	b.r.Files["resolv.conf"] = resolv
	if b.Options.NoHosts {
		if len(b.Options.AddHosts) > 0 {
			return fmt.Errorf("--no-hosts and --add-host contradict each other")
		}
		return nil
	}
	b.r.Files["hosts"], err = b.hosts()
	return err
}

// hosts begins with what the user adds. With the host's network the host's
// own entries follow; a pod of its own knows only itself.
func (b *builder) hosts() ([]byte, error) {
	var out strings.Builder
	for _, h := range b.Options.AddHosts {
		name, ip, ok := strings.Cut(h, ":")
		addr, err := netip.ParseAddr(strings.Trim(ip, "[]"))
		if !ok || name == "" || err != nil || strings.ContainsAny(name, " \t#") || clean("", name) != nil {
			return nil, fmt.Errorf("--add-host %q: write NAME:IP", h)
		}
		fmt.Fprintf(&out, "%s\t%s\n", addr, name)
	}
	if b.host && len(b.Host.Hosts) > 0 {
		out.Write(b.Host.Hosts)
		return []byte(out.String()), nil
	}
	out.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if !b.networked { // else its addresses follow, with those of its neighbours
		fmt.Fprintf(&out, "127.0.0.1\t%s\n", b.name)
	}
	return []byte(out.String()), nil
}

// resolvConf is the host's with --net=host and on a network, unless the user
// names servers; without a network it is empty but for what was asked.
func (b *builder) resolvConf() ([]byte, error) {
	o := b.Options
	asked := network.Resolv{Search: o.DNSSearch, Options: o.DNSOption}
	for _, s := range o.DNSSearch {
		if s == "" || strings.ContainsAny(s, " \t") || clean("", s) != nil {
			return nil, fmt.Errorf("--dns-search %q: write a domain", s)
		}
	}
	for _, s := range o.DNS {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("--dns %q: write an IP address", s)
		}
		asked.Servers = append(asked.Servers, addr)
	}
	for _, s := range o.DNSOption {
		if s == "" || strings.ContainsAny(s, " \t") || clean("", s) != nil {
			return nil, fmt.Errorf("--dns-option %q: write one option", s)
		}
	}
	switch {
	case b.host:
		return asked.Over(b.Host.ResolvConf), nil
	case b.networked || b.joined:
		return asked.Over(reachable(b.Host.ResolvConf)), nil
	}
	return asked.Over(nil), nil
}

// reachable leaves out of a resolv.conf the servers that a pod cannot reach.
func reachable(text []byte) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		if f := strings.Fields(string(line)); len(f) > 0 && !unreachable(f) {
			out = append(out, line...)
		}
	}
	return out
}

// unreachable tells a line about a name server that a pod cannot reach: it
// listens on the host's loopback, or is behind an interface of the host's.
func unreachable(line []string) bool {
	if line[0] != "nameserver" || len(line) < 2 {
		return false
	}
	a, err := netip.ParseAddr(line[1])
	return err == nil && (a.IsLoopback() || a.Zone() != "")
}
