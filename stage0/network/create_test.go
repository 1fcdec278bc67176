// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func in(prefix, who string) use { return use{netip.MustParsePrefix(prefix), who} }

func TestBridgeFromSettings(t *testing.T) {
	taken := []use{in("10.45.0.0/24", "the network shop has it"), in("10.45.1.0/25", "this host has a route"), in("192.0.2.0/24", "this host has a route to 192.0.2.0/24")}
	for _, c := range []struct {
		name string
		s    Settings
		want string // JSON, or the error when it does not begin with {
	}{
		{"nothing given", Settings{}, `{"type":"gantry-bridge","subnets":[{"subnet":"10.45.2.0/24"}]}`},
		{"subnet", Settings{Subnets: []string{"10.61.0.7/24"}}, `{"type":"gantry-bridge","subnets":[{"subnet":"10.61.0.0/24"}]}`},
		{"all of it", Settings{
			Subnets: []string{"10.61.0.0/24", "fd00:1::/64"}, Gateways: []string{"fd00:1::5", "10.61.0.9"}, Ranges: []string{"10.61.0.128/25"},
			Internal: true, Options: []string{"mtu=1400", "isolate=false"}, Interface: "br7",
		}, `{"type":"gantry-bridge","bridge":"br7","subnets":[{"subnet":"10.61.0.0/24","gateway":"10.61.0.9","rangeStart":"10.61.0.128","rangeEnd":"10.61.0.254"},{"subnet":"fd00:1::/64","gateway":"fd00:1::5"}],"internal":true,"open":true,"mtu":1400}`},
		{"first to last", Settings{Subnets: []string{"10.61.0.0/24"}, Ranges: []string{"10.61.0.10-10.61.0.20"}}, `{"type":"gantry-bridge","subnets":[{"subnet":"10.61.0.0/24","rangeStart":"10.61.0.10","rangeEnd":"10.61.0.20"}]}`},
		{"whole range", Settings{Subnets: []string{"10.61.0.0/24"}, Ranges: []string{"10.61.0.0/24"}}, `{"type":"gantry-bridge","subnets":[{"subnet":"10.61.0.0/24","rangeStart":"10.61.0.1","rangeEnd":"10.61.0.254"}]}`},
		{"isolate", Settings{Subnets: []string{"10.61.0.0/24"}, Options: []string{"isolate=strict"}}, `{"type":"gantry-bridge","subnets":[{"subnet":"10.61.0.0/24"}]}`},

		{"taken by a network", Settings{Subnets: []string{"10.45.0.128/25"}}, "--subnet 10.45.0.128/25: the network shop has it"},
		{"taken by the host", Settings{Subnets: []string{"192.0.0.0/16"}}, "--subnet 192.0.0.0/16: this host has a route to 192.0.2.0/24"},
		{"no subnet", Settings{Subnets: []string{"10.61.0.0"}}, `--subnet "10.61.0.0" is not ADDRESS/LENGTH`},
		{"two of a family", Settings{Subnets: []string{"10.61.0.0/24", "10.62.0.0/24"}}, "subnets: two of one family"},
		{"too small", Settings{Subnets: []string{"10.61.0.0/31"}}, "subnets[0]: subnet: 10.61.0.0/31 has no room for a gateway and a pod"},
		{"foreign gateway", Settings{Gateways: []string{"1.2.3.4"}}, "--gateway 1.2.3.4 is in none of the subnets"},
		{"no gateway", Settings{Gateways: []string{"first"}}, `--gateway "first" is not an IP address`},
		{"two gateways", Settings{Subnets: []string{"10.61.0.0/24"}, Gateways: []string{"10.61.0.1", "10.61.0.2"}}, "--gateway 10.61.0.2: 10.61.0.0/24 has the gateway 10.61.0.1 already"},
		{"foreign range", Settings{Subnets: []string{"10.61.0.0/24"}, Ranges: []string{"10.61.0.0/16"}}, "--ip-range 10.61.0.0/16 is in none of the subnets"},
		{"backwards", Settings{Subnets: []string{"10.61.0.0/24"}, Ranges: []string{"10.61.0.9-10.61.0.1"}}, `--ip-range "10.61.0.9-10.61.0.1": it ends before it begins`},
		{"no range", Settings{Ranges: []string{"many"}}, `--ip-range "many": it is neither ADDRESS/LENGTH nor FIRST-LAST`},
		{"no mtu", Settings{Options: []string{"mtu=big"}}, `--opt mtu=big: "big" is no number of bytes`},
		{"small mtu", Settings{Options: []string{"mtu=9"}}, "mtu: 9 is not between 68 and 65535"},
		{"small mtu for IPv6", Settings{IPv6: true, Options: []string{"mtu=1000"}}, "mtu: 1000 is below 1280, the least for IPv6"},
		{"loopback", Settings{Subnets: []string{"127.0.0.0/24"}}, "subnets[0]: subnet: 127.0.0.0/24 has addresses of the loopback, which no pod can have"},
		{"isolate maybe", Settings{Options: []string{"isolate=maybe"}}, "--opt isolate=maybe: use true, strict (the same) or false"},
		{"vlan", Settings{Options: []string{"vlan=3"}}, "--opt vlan=3 is not supported: there are mtu= and isolate="},
		{"long interface", Settings{Interface: "a-name-that-is-too-long"}, `bridge: "a-name-that-is-too-long" cannot be the name of an interface: up to 15 letters, digits, '-', '_' and '.'`},
	} {
		b, err := c.s.bridge("x", taken)
		got, _ := json.Marshal(b)
		if err != nil {
			got = []byte(err.Error())
		}
		if string(got) != c.want {
			t.Errorf("%s:\n %s\nwant\n %s", c.name, got, c.want)
		}
	}
}

func TestIPv6IsChosenAtRandom(t *testing.T) {
	one, err := Settings{IPv6: true}.bridge("x", nil)
	two, err2 := Settings{IPv6: true}.bridge("x", nil)
	if err != nil || err2 != nil || len(one.Subnets) != 2 {
		t.Fatal(one, err, err2)
	}
	a, b := one.Subnets[1].Subnet, two.Subnets[1].Subnet
	if a == b || a.Bits() != 64 || !netip.MustParsePrefix("fd00::/8").Contains(a.Addr()) {
		t.Errorf("%s and %s", a, b)
	}
}

// environment is an installation that is nobody's.
func environment(t *testing.T) Env {
	t.Helper()
	dir := t.TempDir()
	e := Env{
		Config: []string{dir + "/usr", dir + "/etc"}, Dir: dir + "/boot/networks", Pods: dir + "/pods", State: dir + "/state", Tag: dir,
		Alive: func(string) bool { return false },
	}
	for _, d := range []string{"usr/net.d", "etc/net.d", "etc/cni.d"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir+"/etc/cni.d/a.conf", "[Plugins]\nLists="+dir+"/shared\n")
	return e
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What is created is found, and only what was created is deleted.
func TestCreateAndDelete(t *testing.T) {
	e := environment(t)
	dir := filepath.Dir(e.Config[1])
	write(t, dir+"/usr/net.d/vendor.conflist", `{"name":"vendor","plugins":[{"type":"gantry-bridge","subnets":[{"subnet":"10.70.0.0/24"}]}]}`)
	write(t, dir+"/shared/10.conflist", `{"name":"theirs","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.71.0.0/24"}]]}}]}`)
	if err := e.Create("shop", Settings{Subnets: []string{"10.72.0.0/24"}, Labels: []string{"app=shop", "bare"}}); err != nil {
		t.Fatal(err)
	}
	n, err := e.Find("shop")
	if err != nil || n.Bridge == nil || n.Made().Created.IsZero() || n.Made().Labels["app"] != "shop" {
		t.Fatalf("%+v %+v, %v", n, n.Made(), err)
	}
	for name, s := range map[string]Settings{
		"the network shop exists already":         {},
		"the network vendor has 10.70.0.0/24":     {Subnets: []string{"10.70.0.0/16"}},
		"the network theirs has 10.71.0.0/24":     {Subnets: []string{"10.71.0.0/16"}},
		"the network shop has 10.72.0.0/24":       {Subnets: []string{"10.72.0.0/16"}},
		"the network shop has the bridge ":        {Interface: n.Bridge.Bridge},
		`--label "=x": a label has a name`:        {Labels: []string{"=x"}},
		"cannot be the name of a network: up to ": {},
	} {
		as := "other"
		switch {
		case strings.Contains(name, "exists"):
			as = "shop"
		case strings.Contains(name, "cannot be"):
			as = "../x"
		}
		if err := e.Create(as, s); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]string{"default": "it is built in", "vendor": "did not make it", "theirs": "did not make it", "shop": ""} {
		n, err := e.Find(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := e.Deletable(n); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if err := e.Delete(n); err != nil {
		t.Error(err)
	}
	if _, err := e.Find("shop"); err == nil {
		t.Error("it is still there")
	}
	left, _ := filepath.Glob(e.Config[1] + "/net.d/*")
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A file is another network's by the name inside: create wrote over it, or over
// its layer's, and that network was gone.
func TestCreateSparesTheFileOfAnotherNetwork(t *testing.T) {
	const other = `{"name":"other","plugins":[{"type":"gantry-bridge","subnets":[{"subnet":"10.70.0.0/24"}]}]}`
	for _, layer := range []int{0, 1} {
		e := environment(t)
		file := e.Config[layer] + "/net.d/shop.conflist"
		write(t, file, other)
		err := e.Create("shop", Settings{Subnets: []string{"10.72.0.0/24"}})
		if want := "create network shop: " + file + ` describes the network "other"`; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		if n, err := e.Find("other"); err != nil || n.File != file {
			t.Errorf("%+v, %v", n, err)
		}
	}
	// One that is masked already is nobody's.
	e := environment(t)
	write(t, e.Config[0]+"/net.d/shop.conflist", other)
	write(t, e.Config[1]+"/net.d/shop.conflist", "")
	if err := e.Create("shop", Settings{Subnets: []string{"10.72.0.0/24"}}); err != nil {
		t.Error(err)
	}
	if n, err := e.Find("shop"); err != nil || n.Made().Created.IsZero() {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestReadPlugins(t *testing.T) {
	for text, want := range map[string]string{
		"[Plugins]\nPath=/a:/b/\nTimeout=3s\nLists=\n": "",
		"[Plugins]\nPath=bin\n":                        `line 2: Path=: "bin" is not absolute`,
		"[Plugins]\nTimeout=soon\n":                    "line 2: Timeout=: ",
		"[Plugins]\nTimeout=0s\n":                      "line 2: Timeout=: 0s gives no plugin any time",
		"[Plugins]\nPaths=/a\n":                        "line 2: Paths= is unknown: there are Path=, Lists= and Timeout=",
		"[Other]\nPath=/a\n":                           "line 1: section [Other] is unknown",
	} {
		dir := t.TempDir()
		write(t, dir+"/cni.d/x.conf", text)
		p, err := ReadPlugins([]string{dir})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if want == "" && (strings.Join(p.Path, " ") != "/a /b" || len(p.Lists) > 0 || p.Timeout.Seconds() != 3) {
			t.Errorf("%+v", p)
		}
	}
}
