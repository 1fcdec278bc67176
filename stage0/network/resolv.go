// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantryrun/gantry/netns/cni"
	"github.com/gantryrun/gantry/netns/network"
)

// resolve writes what plugins say of names into the pod's resolv.conf, which its
// app reads only after them. In place: it is mounted as this very file.
func (p *Placed) resolve() error {
	said := resolved(p.plugs, p.pod.DNS)
	if len(said.Servers)+len(said.Search)+len(said.Options) == 0 {
		return nil
	}
	name := filepath.Join(p.pod.Dir, "resolv.conf")
	old, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, said.Over(old), 0o644)
	}
	if err != nil {
		return fmt.Errorf("take over the name servers of plugins: %w", err)
	}
	return nil
}

// resolved is what the first result that says something says, but for what was
// asked for by flags.
func resolved(plugs []Plugged, asked cni.DNS) network.Resolv {
	var r network.Resolv
	for _, p := range plugs {
		d := p.Result.DNS
		if len(asked.Servers)+len(r.Servers) == 0 {
			r.Servers = slices.DeleteFunc(slices.Clone(d.Nameservers), func(a netip.Addr) bool { return !a.IsValid() }) // ""
		}
		if len(asked.Searches)+len(r.Search) == 0 {
			r.Search = words(d.Search)
		}
		if len(asked.Searches)+len(r.Search) == 0 {
			r.Search = words([]string{d.Domain}) // what is searched where no list is
		}
		if len(asked.Options)+len(r.Options) == 0 {
			r.Options = words(d.Options)
		}
	}
	return r
}

// words keeps what a plugin says on one line.
func words(all []string) []string { return strings.Fields(strings.Join(all, " ")) }
