// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/netns/cni"
	"github.com/gantryrun/gantry/netns/network"
)

// TestAttachment is how what a pod asks for reaches plugins: by the capability
// that one has, else by arguments, else not at all.
func TestAttachment(t *testing.T) {
	const bridge = `{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.9.0.0/24"}],[{"subnet":"fd00:9::/64"}]]}`
	all := bridge + `,"capabilities":{"ips":true,"mac":true,"aliases":true,"dns":true,"bandwidth":true,"portMappings":true}}`
	join := network.Join{
		Network: "lan", Interface: "eth0", MAC: "02:00:00:00:00:01", Aliases: []string{"db"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.7"), netip.MustParseAddr("fd00:9::7")},
	}
	port := network.Port{HostPort: 8080, Container: 80, Count: 2, Protocol: "tcp", Host: netip.MustParseAddr("192.0.2.1")}
	dns := cni.DNS{Servers: []string{"192.0.2.53"}}
	rates := network.Join{Network: "lan", Interface: "eth0", Args: [][2]string{{"ingressRate", "8000"}, {"K8S_POD_NAME", "web"}}}
	for _, c := range []struct {
		name, plugin string
		join         network.Join
		want         Wanted
		capabilities string // or the error
		args         string
	}{
		{"by capability", all, join, Wanted{Ports: []network.Port{port}, DNS: dns}, `{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.1"},{"hostPort":8081,"containerPort":81,"protocol":"tcp","hostIP":"192.0.2.1"}],"dns":{"servers":["192.0.2.53"]},"aliases":["db"],"mac":"02:00:00:00:00:01","ips":["10.9.0.7/24","fd00:9::7/64"]}`, ``},
		{"by arguments", bridge + `}`, join, Wanted{DNS: dns}, `{}`, `IgnoreUnknown=1 MAC=02:00:00:00:00:01 IP=10.9.0.7 IP=fd00:9::7`},
		{"rates", all, rates, Wanted{}, `{"bandwidth":{"ingressRate":8000}}`, `IgnoreUnknown=1 K8S_POD_NAME=web`},
		{"nothing", all, network.Join{Network: "lan", Interface: "eth0"}, Wanted{}, `{}`, ``},
		{"ports refused", bridge + `}`, network.Join{}, Wanted{Ports: []network.Port{port}}, `publish 192.0.2.1:8080-8081:80-81/tcp: none of its plugins has the capability portMappings`, ``},
		{"rates refused", bridge + `}`, rates, Wanted{}, `ingressRate=8000: none of its plugins has the capability bandwidth`, ``},
		{"no rate", all, network.Join{Args: [][2]string{{"egressRate", "fast"}}}, Wanted{}, `egressRate=fast is not a number of bits`, ``},
	} {
		l, err := cni.Parse("lan.conflist", []byte(`{"cniVersion":"1.0.0","name":"lan","plugins":[`+c.plugin+`]}`), nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := Plugins{Path: []string{"/p"}}.Attachment(l, "/cache", "uuid", c.join, c.want)
		got, _ := json.Marshal(a.Capabilities)
		if err != nil {
			got = []byte(err.Error())
		}
		if string(got) != c.capabilities {
			t.Errorf("%s:\n %s\nwant\n %s", c.name, got, c.capabilities)
		}
		var args []string
		for _, kv := range a.Args {
			args = append(args, kv[0]+"="+kv[1])
		}
		if err == nil && strings.Join(args, " ") != c.args {
			t.Errorf("%s: CNI_ARGS %v, want %s", c.name, args, c.args)
		}
	}
}

// TestHeard reads back what was asked for by name.
func TestHeard(t *testing.T) {
	result := &cni.Result{
		Interfaces: []cni.Interface{{Name: "veth0", MAC: "02:00:00:00:00:01"}, {Name: "eth0", MAC: "02:00:00:00:00:02", Sandbox: "/n"}},
		IPs:        []cni.IP{{Address: netip.MustParsePrefix("10.9.0.7/24")}},
	}
	for want, join := range map[string]network.Join{
		"": {Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.7")}, MAC: "02:00:00:00:00:02"},
		"network lan: its plugins gave another address than 10.9.0.8, which was asked for (10.9.0.7)":   {Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.8")}},
		"network lan: its plugins gave another MAC address than 02:00:00:00:00:01, which was asked for": {MAC: "02:00:00:00:00:01"},
	} {
		err := heard(Plugged{Join: join, On: cni.Attachment{Network: "lan"}, Result: result})
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := heard(Plugged{Result: result}); err != nil {
		t.Errorf("nothing was asked for: %v", err)
	}
}
