// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What is looked for, and what looks like it.
func TestFirewallsThatDropWhatIsForwarded(t *testing.T) {
	for ruleset, want := range map[string]string{
		`table ip filter {
			chain FORWARD { type filter hook forward priority 0; policy drop; }
			chain DOCKER-USER { }
		}`: "Docker ip filter FORWARD",
		`table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }
			chain ufw-before-forward { }
		}
		table ip6 filter { chain FORWARD { type filter hook forward priority 0; policy drop; }
			chain ufw6-before-forward { }
		}`: "ufw ip filter FORWARD, ufw ip6 filter FORWARD",
		`table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; } }`: "firewalld inet firewalld filter_FORWARD",
		`table inet mine { chain f { type filter hook forward priority 5; policy drop; } }`:                      " inet mine f",
		`table inet mine {
			chain i { type filter hook input priority 0; policy drop; }
			chain f { type filter hook forward priority 0; policy accept; }
			chain other { }
		}
		table arp mine { chain i { type filter hook input priority 0; policy drop; } }
		table bridge mine { chain f { type filter hook forward priority 0; policy drop; } }`: "",
		"": "",
	} {
		inNamespace(t, func() {
			if ruleset != "" {
				// Older ones want a line's end before a bracket.
				if got := nft(t, strings.ReplaceAll(ruleset, "}", "\n}\n")); got != "" {
					t.Errorf("%s: %s", ruleset, got)
					return
				}
			}
			f, err := Open(whole()) // ours is none
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			all, err := Firewalls()
			var got []string
			for _, f := range all {
				got = append(got, fmt.Sprint(f.Of, " ", f.Family, " ", f.Table, " ", f.Chain))
			}
			slices.Sort(got)
			if text := strings.Join(got, ", "); err != nil || text != want {
				t.Errorf("%s: found %q, %v, want %q", ruleset, text, err, want)
			}
		})
	}
}
