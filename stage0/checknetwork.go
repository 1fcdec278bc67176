// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/gantryrun/gantry/netns/nft"
)

// checkNftables makes a table that does nothing, for an instant.
func checkNftables(Env) CheckItem {
	c := CheckItem{Name: "nftables", State: yes, Have: "tables that belong to a socket"}
	f, err := nft.Open(nft.Table{Name: fmt.Sprintf("gantry-check-%d", os.Getpid())})
	switch {
	case errors.Is(err, nft.ErrUnsupported):
		c.State, c.Have = no, "none that belong to a socket"
		c.Means = "networks of gantry's are refused, and without --net a pod has none"
		c.Mend = "boot Linux 5.12 or later with nf_tables, nft_nat, nft_masq, nft_ct and nft_fib_inet"
	case err != nil:
		c.State, c.Have, c.Means, c.Mend = no, err.Error(), "no pod can be on a network of gantry's", "run gantry with CAP_NET_ADMIN"
	default:
		_ = f.Close()
	}
	return c
}

// checkFirewall looks for chains of others that drop what pods send and get.
func checkFirewall(Env) CheckItem {
	c := CheckItem{Name: "firewall", State: yes, Have: "nothing drops what is forwarded"}
	all, err := nft.Firewalls()
	if err != nil {
		c.State, c.Have = partly, err.Error()
		return c
	}
	var have, mend []string
	for _, f := range all {
		have = append(have, strings.TrimSpace(fmt.Sprintf("%s %s (%s %s)", f.Of, f.Chain, f.Family, f.Table)))
		mend = append(mend, letThrough(f))
	}
	if len(all) > 0 {
		c.State, c.Have = partly, strings.Join(have, ", ")
		c.Means = "it may drop what pods send to other hosts, and what is sent to published ports from there"
		c.Mend = strings.Join(mend, "; ")
	}
	return c
}

// letThrough is how its own tools let the default network through a firewall.
func letThrough(f nft.Firewall) string {
	tool := "iptables"
	if f.Family == "ip6" {
		tool = "ip6tables"
	}
	switch {
	case f.Of == "firewalld":
		return "firewall-cmd --permanent --zone=trusted --add-interface=gantry0 && firewall-cmd --reload"
	case f.Of == "Docker":
		return tool + " -I DOCKER-USER -i gantry0 -j ACCEPT && " + tool + " -I DOCKER-USER -o gantry0 -j ACCEPT"
	case f.Of == "ufw":
		return "ufw route allow in on gantry0 && ufw route allow out on gantry0"
	case f.Family == "legacy":
		return "if 'iptables-legacy -S FORWARD' drops: iptables-legacy -I FORWARD -i gantry0 -j ACCEPT && iptables-legacy -I FORWARD -o gantry0 -j ACCEPT"
	case f.Table == "filter" && f.Chain == "FORWARD":
		return tool + " -I FORWARD -i gantry0 -j ACCEPT && " + tool + " -I FORWARD -o gantry0 -j ACCEPT"
	}
	chain := strings.Join([]string{f.Family, f.Table, f.Chain}, " ")
	return "nft insert rule " + chain + " iifname gantry0 accept && nft insert rule " + chain + " oifname gantry0 accept"
}
