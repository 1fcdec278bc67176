// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// A choice is shown by the JSON that is kept of it.
func TestChoicesOfPodmanAndOurs(t *testing.T) {
	for _, c := range []struct {
		in   string // values of --net, by spaces
		s    Shorthand
		want string
	}{
		{want: `{"kind":""}`},
		{in: "none", want: `{"kind":"none"}`},
		{in: "host", want: `{"kind":"host"}`},
		{in: "pod:web", want: `{"kind":"pod","name":"web"}`},
		{in: "container:web", want: `{"kind":"pod","name":"web"}`},
		{in: "ns:/run/netns/a:b", want: `{"kind":"ns","name":"/run/netns/a:b"}`},
		{in: "bridge", want: `{"kind":"named","joins":[{"network":"default","interface":"eth0"}]}`},
		{in: "private", want: `{"kind":"named","joins":[{"network":"default","interface":"eth0"}]}`},
		{in: "back,front", want: `{"kind":"named","joins":[{"network":"back","interface":"eth0"},{"network":"front","interface":"eth1"}]}`},
		{in: "back front", want: `{"kind":"named","joins":[{"network":"back","interface":"eth0"},{"network":"front","interface":"eth1"}]}`},
		{
			in:   "back:ip=10.1.0.9,ip6=fd01::9,mac=92-D0-C6-0A-29-33,alias=db,alias=store,front:interface_name=lan0",
			want: `{"kind":"named","joins":[{"network":"back","interface":"eth0","addresses":["10.1.0.9","fd01::9"],"mac":"92:d0:c6:0a:29:33","aliases":["db","store"]},{"network":"front","interface":"lan0"}]}`,
		},
		{in: "a:interface=eth0 b", want: `{"kind":"named","joins":[{"network":"a","interface":"eth0"},{"network":"b","interface":"eth1"}]}`},
		{in: "a b:interface=eth0", want: `{"kind":"named","joins":[{"network":"a","interface":"eth1"},{"network":"b","interface":"eth0"}]}`},
		{in: "a:ip=::ffff:10.1.0.9", want: `{"kind":"named","joins":[{"network":"a","interface":"eth0","addresses":["10.1.0.9"]}]}`},
		{in: "cali:IP6=fd01::9,K=V", want: `{"kind":"named","joins":[{"network":"cali","interface":"eth0","args":[["IP6","fd01::9"],["K","V"]]}]}`},
		{
			s:    Shorthand{IP: "10.1.0.9", IP6: "fd01::9", MAC: "92:d0:c6:0a:29:33", Aliases: []string{"db"}},
			want: `{"kind":"named","joins":[{"network":"default","interface":"eth0","addresses":["10.1.0.9","fd01::9"],"mac":"92:d0:c6:0a:29:33","aliases":["db"]}]}`,
		},
		{in: "back", s: Shorthand{Aliases: []string{"db", "store"}}, want: `{"kind":"named","joins":[{"network":"back","interface":"eth0","aliases":["db","store"]}]}`},
	} {
		got, err := ParseChoice(strings.Fields(c.in), c.s)
		if err != nil {
			t.Errorf("%s %+v: %v", c.in, c.s, err)
			continue
		}
		text, err := json.Marshal(got)
		if err != nil || string(text) != c.want {
			t.Errorf("%s %+v\n got %s (%v)\nwant %s", c.in, c.s, text, err, c.want)
		}
	}
}

func TestChoicesThatAreRefused(t *testing.T) {
	long := strings.Repeat("x", 240)
	for _, c := range []struct {
		in   []string
		s    Shorthand
		want string
	}{
		{in: []string{""}, want: `--net "": it is empty: name a network, or none or host`},
		{in: []string{"a,"}, want: `--net "a,": a network has a name`},
		{in: []string{"none,a"}, want: `--net "none,a": none cannot be combined with another network`},
		{in: []string{"none", "a"}, want: `--net "a": it cannot be combined with another network`},
		{in: []string{"a", "host"}, want: `--net "host": it cannot be combined with another network`},
		{in: []string{"none", "none"}, want: `--net "none": it cannot be combined with another network`},
		{in: []string{"pod:"}, want: `--net "pod:": pod: of what?`},
		{in: []string{"ns:"}, want: `--net "ns:": ns: of what?`},
		{in: []string{"slirp4netns"}, want: `--net "slirp4netns": slirp4netns is not supported: an ordinary user has pasta`},
		{in: []string{"slirp4netns:mtu=1"}, want: `slirp4netns is not supported`},
		{in: []string{"../a"}, want: `"../a" cannot be the name of a network`},
		{in: []string{"a b"}, want: `"a b" cannot be the name of a network`},
		{in: []string{"ip=10.1.0.9"}, want: `"ip=10.1.0.9" cannot be the name of a network`},
		{in: []string{"a:ip"}, want: `"ip": write KEY=VALUE`},
		{in: []string{"a:ip="}, want: `"ip=": write KEY=VALUE`},
		{in: []string{"a:ip=10.1.0"}, want: `"10.1.0" is not an address a pod can have`},
		{in: []string{"a:ip=0.0.0.0"}, want: `"0.0.0.0" is not an address a pod can have`},
		{in: []string{"a:ip=127.0.0.1"}, want: `"127.0.0.1" is not an address a pod can have`},
		{in: []string{"a:ip=224.0.0.1"}, want: `"224.0.0.1" is not an address a pod can have`},
		{in: []string{"a:ip6=fe80::1%eth0"}, want: `"fe80::1%eth0" is not an address a pod can have`},
		{in: []string{"a:ip=10.1.0.9,ip=10.1.0.10"}, want: `--net a: two addresses of one family, 10.1.0.9 and 10.1.0.10`},
		{in: []string{"a:mac=92:d0"}, want: `"92:d0" is not a MAC address`},
		{in: []string{"a:mac=93:d0:c6:0a:29:33"}, want: `"93:d0:c6:0a:29:33" is a group's MAC address`},
		{in: []string{"a:mac=00:00:00:00:00:00"}, want: `"00:00:00:00:00:00" is no interface's MAC address`},
		{s: Shorthand{MAC: "00-00-00-00-00-00"}, want: `--mac-address: "00-00-00-00-00-00" is no interface's MAC address`},
		{s: Shorthand{MAC: "01:00:5e:00:00:01"}, want: `--mac-address: "01:00:5e:00:00:01" is a group's MAC address`},
		{s: Shorthand{Aliases: slices.Repeat([]string{long}, 80)}, want: `--network-alias: "` + long + `" is too much: the aliases of a pod on a network have at most 4096 letters together`},
		{in: []string{"a:alias=" + long + strings.Repeat(",alias="+long, 79)}, want: `is too much: the aliases`},
		{in: []string{"a:alias=-x"}, want: `"-x" is not a host name`},
		{in: []string{"a:interface=lo"}, want: `"lo" cannot be the name of an interface`},
		{in: []string{"a:interface=a/b"}, want: `"a/b" cannot be the name of an interface`},
		{in: []string{"a:interface=sixteen-letters-"}, want: `cannot be the name of an interface: up to 15`},
		{in: []string{"a:K=V;IP=1"}, want: `"K=V;IP=1": ';' separates the arguments of plugins`},
		{in: []string{"a,a"}, want: `--net: the network a twice`},
		{in: []string{"default", "bridge"}, want: `--net: the network default twice`},
		{in: []string{"a:interface=x,b:interface=x"}, want: `--net: the interface x twice`},
		{in: []string{strings.TrimSuffix(strings.Repeat("a,", 65), ",")}, want: "--net: 65 networks: a pod can be on 64"},
		{in: []string{"host"}, s: Shorthand{IP: "10.1.0.9"}, want: "--ip needs a network by name"},
		{in: []string{"none"}, s: Shorthand{MAC: "92:d0:c6:0a:29:33"}, want: "--mac-address needs a network by name"},
		{in: []string{"pod:a"}, s: Shorthand{Aliases: []string{"x"}}, want: "--network-alias needs a network by name"},
		{in: []string{"a,b"}, s: Shorthand{IP6: "fd01::9"}, want: "--ip6: with several networks write it to one of them, as in --net NAME:ip=…"},
		{s: Shorthand{IP: "fd01::9"}, want: `--ip: "fd01::9" is of the other family`},
		{s: Shorthand{IP6: "10.1.0.9"}, want: `--ip6: "10.1.0.9" is of the other family`},
		{in: []string{"a:ip=10.1.0.8"}, s: Shorthand{IP: "10.1.0.9"}, want: "two addresses of one family, 10.1.0.8 and 10.1.0.9"},
	} {
		got, err := ParseChoice(c.in, c.s)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %+v: %v (%+v), want %s", c.in, c.s, err, got, c.want)
		}
	}
}

// Whatever is typed: no panic, and what is taken has for each network a name
// and an interface of its own.
func FuzzParseChoice(f *testing.F) {
	for _, s := range []string{"none", "pod:x", "a:ip=10.0.0.1,mac=92:d0:c6:0a:29:33,b", "a,a", "=", ":", ",=,", "a:,=b", "ns:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		c, err := ParseChoice([]string{in}, Shorthand{})
		if err != nil {
			return
		}
		if (c.Kind == Named) != (len(c.Joins) > 0) {
			t.Fatalf("%q: %+v", in, c)
		}
		seen := map[string]bool{}
		for _, j := range c.Joins {
			if CheckName(j.Network) != nil || j.Interface == "" || seen[j.Interface] {
				t.Fatalf("%q: %+v", in, c)
			}
			seen[j.Interface] = true
		}
	})
}
