// SPDX-License-Identifier: Apache-2.0

package network

import (
	"reflect"
	"strings"
	"testing"
)

func TestPortsAreReadAsPodmanReadsThem(t *testing.T) {
	for in, want := range map[string]string{
		"80":                        "80/tcp",
		":80":                       "80/tcp",
		"0:80":                      "80/tcp",
		"80/udp":                    "80/udp",
		"80/UDP":                    "80/udp",
		"8080:80":                   "8080:80/tcp",
		"8080:80/tcp":               "8080:80/tcp",
		"127.0.0.1:8080:80":         "127.0.0.1:8080:80/tcp",
		"127.0.0.1::80":             "127.0.0.1::80/tcp",
		"0.0.0.0:53:53/udp":         "0.0.0.0:53:53/udp",
		"[::1]:8080:80":             "[::1]:8080:80/tcp",
		"[::1]::80":                 "[::1]::80/tcp",
		"[::]:8080:80":              "[::]:8080:80/tcp",
		"8000-8009:9000-9009/udp":   "8000-8009:9000-9009/udp",
		"9000-9009":                 "9000-9009/tcp",
		"10.0.0.1:1-2:3-4":          "10.0.0.1:1-2:3-4/tcp",
		"1-1:2-2":                   "1:2/tcp",
		"65535:65535":               "65535:65535/tcp",
		"[2001:db8::7]:70-71:1-2":   "[2001:db8::7]:70-71:1-2/tcp",
		"[2001:DB8:0::7]:70-71:1-2": "[2001:db8::7]:70-71:1-2/tcp",
	} {
		p, err := ParsePort(in)
		if err != nil || p.String() != want {
			t.Errorf("%s is read as %s, want %s (%v)", in, p, want, err)
		}
	}
}

func TestPortsThatAreRefused(t *testing.T) {
	for in, want := range map[string]string{
		"":                     `publish "": container port: "" is not a port`,
		":":                    `"" is not a port`,
		"0":                    "0 is no port",
		"http":                 `"http" is not a port: they are numbers up to 65535`,
		"65536":                `"65536" is not a port`,
		"+80":                  `"+80" is not a port`,
		"080":                  `"080" is not a port`,
		"80/sctp":              "protocol sctp is not published: tcp and udp are",
		"80/":                  `protocol "" is unknown`,
		"80/tcp/udp":           `protocol "tcp/udp" is unknown`,
		"8080:80:":             `"" is not a port`,
		"host:8080:80":         `host address "host" is not an IP address`,
		"::1:8080:80":          "an IPv6 address stands in brackets",
		"::8080:80":            `host address ":" is not an IP address|an IPv6 address stands in brackets`,
		"[127.0.0.1]:80:80":    "only an IPv6 address stands in brackets",
		"[::1:80:80":           "no closing bracket",
		"[fe80::1%eth0]:1:1":   "has a zone",
		"[::ffff:1.2.3.4]:1:1": "write 1.2.3.4",
		"224.0.0.1:1:1":        "multicast",
		"8000-8001:80":         "2 host ports for 1 container ports",
		"8000:80-81":           "1 host ports for 2 container ports",
		"9-8":                  "ends before it begins",
		"0-1:1-2":              "0 is no port",
		"1-65535":              "a pod publishes at most 4096",
		"1:2:3:4":              "host address",
	} {
		_, err := ParsePort(in)
		if err == nil {
			t.Errorf("%s is taken", in)
			continue
		}
		found := false
		for w := range strings.SplitSeq(want, "|") {
			found = found || strings.Contains(err.Error(), w)
		}
		if !found {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

func TestPortsThatContradictEachOther(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"80:80", "80:80", "publish 80:80/tcp and 80:80/tcp: port 80/tcp of the host is asked for twice"},
		{"80:80", "80:81", "asked for twice"},
		{"80:80", "127.0.0.1:80:80", "asked for twice"},
		{"80-90:80-90", "85:1", "port 85/tcp"},
		{"0.0.0.0:80:80", "127.0.0.1:80:80", "asked for twice"},
		{"80:80", "80:80/udp", ""},
		{"127.0.0.1:80:80", "127.0.0.2:80:80", ""},
		{"0.0.0.0:80:80", "[::]:80:80", ""},
		{"80", "80", ""},
		{"80:80", "81:80", ""},
	} {
		_, err := ParsePorts([]string{c.a, c.b}, nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s and %s: %v, want %q", c.a, c.b, err, c.want)
		}
	}
}

// What is published is not published again at a port nobody knows.
func TestPublishAllAddsWhatTheImageExposes(t *testing.T) {
	ports, err := ParsePorts([]string{"8080:80"}, []string{"80/tcp", "443", "53/udp", "79-81"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range ports {
		got = append(got, p.String())
	}
	if want := []string{"8080:80/tcp", "443/tcp", "53/udp", "79/tcp", "81/tcp"}; !reflect.DeepEqual(got, want) {
		t.Errorf("published are %v, want %v", got, want)
	}
	for _, bad := range []string{"127.0.0.1:80:80", "0/tcp", "x"} {
		if _, err := ParsePorts(nil, []string{bad}); err == nil || !strings.Contains(err.Error(), "what the image exposes") {
			t.Errorf("an image exposes %q: %v", bad, err)
		}
	}
}

func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"80", "127.0.0.1::80", "[::1]:1-2:3-4/udp", "1:2:3:4", "[", "]:80", ":::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePort(s)
		if err != nil {
			return
		}
		if p.Container == 0 || int(p.Container)+p.Len() > 65536 || p.HostPort != 0 && int(p.HostPort)+p.Len() > 65536 {
			t.Fatalf("%q is %+v", s, p)
		}
		again, err := ParsePort(p.String())
		if err != nil || again != p {
			t.Fatalf("%q is %s, which is read as %s (%v)", s, p, again, err)
		}
	})
}
