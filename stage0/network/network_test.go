// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"os"
	"path/filepath"
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

// A name that both have is gantry's, the built-in one too: a list of another
// program's replaced it for every pod.
func TestDefaultIsNotThatOfOtherPrograms(t *testing.T) {
	const theirs = `{"name":"default","plugins":[{"type":"bridge","ipam":{"type":"host-local","subnet":"10.71.0.0/24"}}]}`
	for _, text := range []string{theirs, "{"} {
		e := environment(t)
		write(t, filepath.Dir(e.Config[0])+"/shared/default.conflist", text)
		if n, err := e.Find(network.DefaultName); err != nil || n.Bridge == nil {
			t.Errorf("%+v, %v", n, err)
		}
		all, _, err := e.List()
		if err != nil || len(all) != 1 || all[0].Bridge == nil {
			t.Errorf("%+v, %v", all, err)
		}
		// One in its own configuration does, whatever its file is called.
		write(t, e.Config[0]+"/net.d/10-site.conflist", theirs)
		if n, err := e.Find(network.DefaultName); err != nil || n.List == nil || n.List.Shared {
			t.Errorf("%+v, %v", n, err)
		}
		write(t, e.Config[1]+"/net.d/default.conflist", "{")
		write(t, e.Config[1]+"/net.d/10-site.conflist", "")
		if n, err := e.Find(network.DefaultName); err == nil {
			t.Errorf("the broken file is passed over: %+v", n)
		}
	}
}
