// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"testing"
)

func TestResolvOver(t *testing.T) {
	const host = "# of the host\ndomain example.com\n\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:2\nsortlist 192.0.2.0"
	for want, r := range map[string]Resolv{
		"# of the host\ndomain example.com\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:2\nsortlist 192.0.2.0\n":         {},
		"nameserver 10.9.9.9\nnameserver fd01::9\n# of the host\ndomain example.com\noptions ndots:2\nsortlist 192.0.2.0\n":            {Servers: []netip.Addr{netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("fd01::9")}},
		"search a.example b.example\n# of the host\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:2\nsortlist 192.0.2.0\n": {Search: []string{"a.example", "b.example"}},
		"# of the host\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:2\nsortlist 192.0.2.0\n":                             {Search: []string{"."}},
		"options rotate edns0\n# of the host\ndomain example.com\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsortlist 192.0.2.0\n":    {Options: []string{"rotate", "edns0"}},
	} {
		if got := string(r.Over([]byte(host))); got != want {
			t.Errorf("%+v:\n%swant\n%s", r, got, want)
		}
	}
}
