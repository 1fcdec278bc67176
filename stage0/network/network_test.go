// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"os"
	"strings"
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

// A file of this boot that was damaged kept everybody from the default network
// until the next one, and nothing said which file.
func TestDefaultWithADamagedChoice(t *testing.T) {
	e := environment(t)
	file := e.Dir + "/default/subnets.json"
	write(t, file, "")
	four := builtIn(t, e)
	if data, err := os.ReadFile(file); err != nil || !strings.Contains(string(data), four.String()) {
		t.Errorf("%s was chosen, and %q written (%v)", four, data, err)
	}
	for _, text := range []string{"{", "[]", `[{"subnet":"10.44.0.0/16"`} {
		write(t, file, text)
		_, err := e.Find(network.DefaultName)
		if err == nil || !strings.Contains(err.Error(), "read "+file+", the addresses of the network default: ") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
