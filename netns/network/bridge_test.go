// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func TestABridgeIsCompleted(t *testing.T) {
	for in, want := range map[string]string{
		`{"type":"gantry-bridge","subnets":[{"subnet":"10.1.0.0/24"}]}`:                                `{"type":"gantry-bridge","bridge":"gb-back","subnets":[{"subnet":"10.1.0.0/24","gateway":"10.1.0.1","rangeStart":"10.1.0.1","rangeEnd":"10.1.0.254"}]}`,
		`{"bridge":"br7","mtu":1400,"subnets":[{"subnet":"fd01::/64","gateway":"fd01::5"}]}`:           `{"type":"","bridge":"br7","subnets":[{"subnet":"fd01::/64","gateway":"fd01::5","rangeStart":"fd01::1","rangeEnd":"fd01::ffff:ffff:ffff:ffff"}],"mtu":1400}`,
		`{"subnets":[{"subnet":"fd01::/64"},{"subnet":"10.1.0.0/30","rangeStart":"10.1.0.2"}]}`:        `{"type":"","bridge":"gb-back","subnets":[{"subnet":"10.1.0.0/30","gateway":"10.1.0.1","rangeStart":"10.1.0.2","rangeEnd":"10.1.0.2"},{"subnet":"fd01::/64","gateway":"fd01::1","rangeStart":"fd01::1","rangeEnd":"fd01::ffff:ffff:ffff:ffff"}]}`,
		`{"internal":true,"open":true,"subnets":[{"subnet":"10.1.2.128/25","rangeEnd":"10.1.2.140"}]}`: `{"type":"","bridge":"gb-back","subnets":[{"subnet":"10.1.2.128/25","gateway":"10.1.2.129","rangeStart":"10.1.2.129","rangeEnd":"10.1.2.140"}],"internal":true,"open":true}`,
		`{"subnets":[{"subnet":"10.0.0.0/8","gateway":"10.255.255.254","rangeStart":"10.1.0.0"}]}`:     `{"type":"","bridge":"gb-back","subnets":[{"subnet":"10.0.0.0/8","gateway":"10.255.255.254","rangeStart":"10.1.0.0","rangeEnd":"10.255.255.254"}]}`,
	} {
		b, err := ParseBridge("back", "", []byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		got, err := json.Marshal(b)
		if err != nil || string(got) != want {
			t.Errorf("%s\n got %s (%v)\nwant %s", in, got, err, want)
		}
	}
}

func TestBridgesThatAreRefused(t *testing.T) {
	subnets := func(s string) string { return `{"subnets":[` + s + `]}` }
	for in, want := range map[string]string{
		`{}`:            "subnets: there are 0, not one or two",
		subnets(`{}`):   "subnets[0]: subnet: it is missing",
		`{"subnets":7}`: "subnets: it is a JSON number, not what belongs there",
		`{"intenal":true,"subnets":[{"subnet":"10.1.0.0/24"}]}`:                              `"intenal" is no field of it; there are bridge, internal`,
		subnets(`{"subnet":"10.1.0.0/24","range":"10.1.0.9"}`):                               `"range" is no field of it`,
		subnets(`{"subnet":"10.1.0.0/24"},{"subnet":"10.2.0.0/24"}`):                         "subnets: two of one family",
		subnets(`{"subnet":"10.1.0.1/24"}`):                                                  "subnets[0]: subnet: 10.1.0.1/24 has bits beyond its length: 10.1.0.0/24",
		subnets(`{"subnet":"10.1.0.0/31"}`):                                                  "has no room for a gateway and a pod",
		subnets(`{"subnet":"fd01::/127"}`):                                                   "has no room for a gateway and a pod",
		subnets(`{"subnet":"::ffff:10.1.0.0/120"}`):                                          "is not one",
		subnets(`{"subnet":"10.1.0.0/24","gateway":"10.2.0.1"}`):                             "gateway: 10.2.0.1 is not an address of 10.1.0.0/24",
		subnets(`{"subnet":"10.1.0.0/24","gateway":"10.1.0.0"}`):                             "gateway: 10.1.0.0 is not an address of 10.1.0.0/24",
		subnets(`{"subnet":"10.1.0.0/24","rangeEnd":"10.1.0.255"}`):                          "rangeEnd: 10.1.0.255 is not an address of 10.1.0.0/24",
		subnets(`{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.9","rangeEnd":"10.1.0.8"}`):    "rangeEnd: 10.1.0.8 comes before rangeStart 10.1.0.9",
		subnets(`{"subnet":"127.1.0.0/24"}`):                                                 "subnets[0]: subnet: 127.1.0.0/24 has addresses of the loopback, which no pod can have",
		subnets(`{"subnet":"224.1.0.0/24"}`):                                                 "224.1.0.0/24 has multicast addresses, which no pod can have",
		subnets(`{"subnet":"0.1.0.0/24"}`):                                                   "0.1.0.0/24 has unspecified addresses",
		subnets(`{"subnet":"0.0.0.0/0"}`):                                                    "0.0.0.0/0 has unspecified addresses",
		subnets(`{"subnet":"240.1.0.0/24"}`):                                                 "240.1.0.0/24 has reserved addresses",
		subnets(`{"subnet":"169.254.1.0/24"}`):                                               "169.254.1.0/24 has link-local addresses",
		subnets(`{"subnet":"::/64"}`):                                                        "::/64 has unspecified addresses",
		subnets(`{"subnet":"fe80::/64"}`):                                                    "fe80::/64 has link-local addresses",
		subnets(`{"subnet":"ff02::/64"}`):                                                    "ff02::/64 has multicast addresses",
		`{"mtu":1279,"subnets":[{"subnet":"10.1.0.0/24"},{"subnet":"fd01::/64"}]}`:           "mtu: 1279 is below 1280, the least for IPv6",
		`{"mtu":67,"subnets":[{"subnet":"10.1.0.0/24"}]}`:                                    "mtu: 67 is not between 68 and 65535",
		`{"bridge":"lo","subnets":[{"subnet":"10.1.0.0/24"}]}`:                               `bridge: "lo" cannot be the name of an interface`,
		`{"bridge":"a-name-too-long-for-an-interface","subnets":[{"subnet":"10.1.0.0/24"}]}`: "cannot be the name of an interface",
		subnets(`{"subnet":"10.1.0.0/24"},{"subnet":"fd01::/64"},{"subnet":"fd02::/64"}`):    "subnets: there are 3, not one or two",
		subnets(`{"subnet":"10.1.0.0/24","gateway":"fd01::1"}`):                              "gateway: fd01::1 is not an address of 10.1.0.0/24",
	} {
		b, err := ParseBridge("back", "", []byte(in))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v (%+v), want %s", in, err, b, want)
		}
	}
}

func TestAddressesAPodMayHave(t *testing.T) {
	b, err := ParseBridge("back", "", []byte(`{"subnets":[{"subnet":"10.1.0.0/29","rangeStart":"10.1.0.4"},{"subnet":"fd01::/64"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]bool{
		"10.1.0.0": false, "10.1.0.1": false, "10.1.0.2": true, "10.1.0.6": true, "10.1.0.7": false, "10.1.0.8": false,
		"fd01::": false, "fd01::1": false, "fd01::2": true, "fd01::ffff:ffff:ffff:ffff": true, "fd01:0:0:1::2": false,
	} {
		a := netip.MustParseAddr(in)
		got := b.Subnets[0].Gives(a) || b.Subnets[1].Gives(a)
		if got != want {
			t.Errorf("%s is given: %t", in, got)
		}
	}
}

func TestBridgesHaveNamesAnInterfaceCanHave(t *testing.T) {
	long := strings.Repeat("x", 128)
	for name, want := range map[string]string{
		"default":      "gantry0",
		"back":         "gb-back",
		"twelve-chars": "gb-twelve-chars",
	} {
		if got := BridgeName(name); got != want {
			t.Errorf("%s has the bridge %s, want %s", name, got, want)
		}
	}
	if a, b := BridgeName(long), BridgeName(long[1:]); a == b || len(a) != maxInterface || !strings.HasPrefix(a, "gb-xxx-") {
		t.Errorf("two long names have the bridges %s and %s", a, b)
	}
}

// The element is written by whoever may configure networks; a broken one is
// refused and nothing else.
func FuzzParseBridge(f *testing.F) {
	f.Add([]byte(`{"subnets":[{"subnet":"10.1.0.0/24","gateway":"10.1.0.1"},{"subnet":"fd01::/64"}]}`))
	f.Add([]byte(`{"subnets":[{"subnet":"0.0.0.0/0"}],"bridge":""}`))
	f.Add([]byte(`{"subnets":[{"subnet":"::/0"}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := ParseBridge("fuzz", "", in)
		if err != nil {
			return
		}
		for _, s := range b.Subnets {
			if !s.Subnet.Contains(s.First) || !s.Subnet.Contains(s.Last) || !s.Subnet.Contains(s.Gateway) || s.Last.Less(s.First) {
				t.Fatalf("%s: %+v", in, s)
			}
		}
		again, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseBridge("fuzz", "", again); err != nil {
			t.Fatalf("what was completed is refused: %s: %v", again, err)
		}
	})
}
