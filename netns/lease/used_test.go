// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"net/netip"
	"testing"
)

func TestAnAddressIsUsedTheSecondTime(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	for _, text := range []string{"10.44.0.2", "10.44.0.3", "10.44.255.254", "fd00::2", "fd00::ff:ffff"} {
		a := netip.MustParseAddr(text)
		if d.Used(a) {
			t.Errorf("%s was used before anybody had it", a)
		}
		if !d.Used(a) {
			t.Errorf("%s is new a second time", a)
		}
	}
	// What cannot be told apart counts as used.
	if !d.Used(netip.MustParseAddr("fd00::1:0:2")) {
		t.Error("an address with the same end is new")
	}
	if !(Dir{Path: "/nonexistent"}).Used(netip.MustParseAddr("10.44.0.2")) {
		t.Error("where nothing can be noted an address is new")
	}
}
