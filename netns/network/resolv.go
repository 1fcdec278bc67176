// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"net/netip"
	"strings"
)

// Resolv is what somebody says about a pod's resolv.conf.
type Resolv struct {
	Servers []netip.Addr
	Search  []string // "." alone is none
	Options []string
}

// Over returns a resolv.conf with what r says in the place of what text says of
// the same.
func (r Resolv) Over(text []byte) []byte {
	var out strings.Builder
	if len(r.Search) > 0 && !(len(r.Search) == 1 && r.Search[0] == ".") {
		fmt.Fprintf(&out, "search %s\n", strings.Join(r.Search, " "))
	}
	for _, a := range r.Servers {
		fmt.Fprintf(&out, "nameserver %s\n", a)
	}
	if len(r.Options) > 0 {
		fmt.Fprintf(&out, "options %s\n", strings.Join(r.Options, " "))
	}
	replaced := map[string]bool{
		"search": len(r.Search) > 0, "domain": len(r.Search) > 0, "nameserver": len(r.Servers) > 0, "options": len(r.Options) > 0,
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 0 && !replaced[f[0]] {
			out.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	return []byte(out.String())
}
