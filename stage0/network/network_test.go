// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"testing"

	"github.com/gantryrun/gantry/netns/network"
)

// builtIn is the IPv4 subnet that the default network of an installation has.
func builtIn(t *testing.T, e Env) netip.Prefix {
	t.Helper()
	n, err := e.Find(network.DefaultName)
	if err != nil {
		t.Fatal(err)
	}
	return n.Bridge.Subnets[0].Subnet
}

// A network nobody has been on since the boot has no route that tells of it: the
// default one took its addresses.
func TestDefaultKeepsOffDescribedNetworks(t *testing.T) {
	first := builtIn(t, environment(t))
	e := environment(t)
	write(t, e.Config[1]+"/net.d/back.conflist", `{"name":"back","plugins":[{"type":"gantry-bridge","subnets":[{"subnet":"`+first.String()+`"}]}]}`)
	write(t, e.Config[1]+"/net.d/broken.conflist", `{`)
	if got := builtIn(t, e); got.Overlaps(first) {
		t.Errorf("default has %s, and back %s", got, first)
	}
}
