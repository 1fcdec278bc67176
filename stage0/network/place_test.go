// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/netns/network"
)

// Guards: a network that was removed between a launch's look at it and its
// address kept a pod that nobody could find there, and its bridge for good.
func TestNetworkRemovedDuringALaunch(t *testing.T) {
	e := Env{Dir: t.TempDir(), Alive: func(string) bool { return true }}
	n := Network{Name: "lan", File: filepath.Join(t.TempDir(), "lan.conflist"), Bridge: &network.Bridge{
		Subnets: []network.Subnet{{Subnet: netip.MustParsePrefix("10.9.0.0/24")}},
	}}
	if err := n.Bridge.Complete("lan"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.File, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	place := func() error {
		var u undo.Stack
		defer u.Run()
		_, err := (&Placed{env: e, pod: Pod{UUID: "pod"}}).place(n, network.Join{Interface: "eth0"}, &u)
		return err
	}
	if err := place(); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(n.File)
	if err := place(); err == nil || !strings.Contains(err.Error(), "just been removed") {
		t.Errorf("a network that is gone: %v", err)
	}
	if left, err := e.leases("lan").Holders(); err != nil || len(left) > 0 {
		t.Errorf("leases left: %v, %v", left, err)
	}
}
