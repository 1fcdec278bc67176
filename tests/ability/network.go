// SPDX-License-Identifier: Apache-2.0

package ability

import (
	"fmt"
	"os/exec"
)

// Networks is all that pods on a bridge of this host need.
var Networks = once("networks", probeNetworks)

// probeNetworks makes one of each in a namespace that goes with the probe.
func probeNetworks() error {
	if err := probeRoot(); err != nil {
		return err
	}
	for _, tool := range []string{"unshare", "ip", "nft", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	const script = `ip link add br0 type bridge && ip link add va type veth peer name vb && ip link set va master br0 &&
		nft 'add table inet x { flags owner; chain c { type nat hook prerouting priority -100; fib daddr type local accept; }; }'`
	if out, err := exec.Command("unshare", "-n", "sh", "-ec", script).CombinedOutput(); err != nil {
		return fmt.Errorf("make a bridge, a veth and a table: %w: %s", err, out)
	}
	return nil
}

// Macvlan is an interface with an address of its own on another one's wire.
var Macvlan = once("macvlan", func() error {
	const script = `ip link add va type veth peer name vb && ip link add mv link va type macvlan`
	if out, err := exec.Command("unshare", "-n", "sh", "-ec", script).CombinedOutput(); err != nil {
		return fmt.Errorf("make a macvlan: %w: %s", err, out)
	}
	return nil
})
