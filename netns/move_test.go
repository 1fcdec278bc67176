// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// atHome makes a namespace that stands for the host's, with one end of a veth
// that is up and has an address, and runs f there.
func atHome(t *testing.T, f func(h *netlink.Handle)) {
	t.Helper()
	home := newOrSkip(t)
	_, err := Inside(home, func(h *netlink.Handle) (struct{}, error) {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth7", MTU: 1400}, PeerName: "other"}
		if err := h.LinkAdd(veth); err != nil {
			t.Skip("ability missing: veth: " + err.Error())
		}
		link, err := h.LinkByName("eth7")
		if err == nil {
			err = h.AddrAdd(link, address("10.7.0.1/24"))
		}
		if err == nil {
			err = h.AddrAdd(link, address("fd07::1/64"))
		}
		if err == nil {
			err = h.LinkSetUp(link)
		}
		if err == nil {
			f(h)
		}
		return struct{}{}, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func address(s string) *netlink.Addr {
	ip, ipNet, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	ipNet.IP = ip
	return &netlink.Addr{IPNet: ipNet}
}

// looks is what somebody in a namespace sees of an interface.
func looks(t *testing.T, h *netlink.Handle, name string) string {
	t.Helper()
	link, err := h.LinkByName(name)
	if err != nil {
		return err.Error()
	}
	state := "down"
	if link.Attrs().Flags&net.FlagUp != 0 {
		state = "up"
	}
	addresses, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, a := range addresses {
		if !a.IP.IsLinkLocalUnicast() {
			seen = append(seen, a.IPNet.String())
		}
	}
	slices.Sort(seen)
	return state + " " + strings.Join(seen, " ")
}

func looksInside(t *testing.T, ns *os.File, name string) string {
	t.Helper()
	s, err := Inside(ns, func(h *netlink.Handle) (string, error) { return looks(t, h, name), nil })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const dressed = "up 10.7.0.1/24 fd07::1/64"

func TestAnInterfaceMovesWithItsAddressesAndComesBack(t *testing.T) {
	for as, name := range map[string]string{"eth7": "eth7", "lan": "lan", "net%d": "net0"} {
		away := newOrSkip(t)
		atHome(t, func(h *netlink.Handle) {
			back, err := Move(away, "eth7", as)
			if err != nil {
				t.Error(err)
				return
			}
			if got := looksInside(t, away, name); got != dressed {
				t.Errorf("as %s: in the container it is %s", as, got)
			}
			if got := looks(t, h, "eth7"); got != "Link not found" {
				t.Errorf("as %s: on the host it is %s", as, got)
			}
			if err := back(); err != nil {
				t.Error(err)
			}
			if got := looks(t, h, "eth7"); got != dressed {
				t.Errorf("as %s: it came back %s", as, got)
			}
		})
	}
}

// "If a network device with the specified name already exists in the container
// namespace, the runtime MUST generate an error", and the host keeps it.
func TestAnInterfaceThatCannotMoveStays(t *testing.T) {
	away := newOrSkip(t)
	_, err := Inside(away, func(h *netlink.Handle) (struct{}, error) {
		return struct{}{}, h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "lan-peer"})
	})
	if err != nil {
		t.Skip("ability missing: veth: " + err.Error())
	}
	atHome(t, func(h *netlink.Handle) {
		if _, err := Move(away, "eth7", "lan"); err == nil || !strings.Contains(err.Error(), "move interface eth7 to the container as lan: file exists") {
			t.Errorf("onto a name that is taken: %v", err)
		}
		if _, err := Move(away, "eth7", "with/slash"); err == nil {
			t.Error("a name that is none was given")
		}
		if _, err := Move(away, "lo", "lo1"); err == nil {
			t.Error("the loopback moved")
		}
		if _, err := Move(away, "nosuch", "x"); err == nil || !strings.Contains(err.Error(), "find interface nosuch: Link not found") {
			t.Errorf("one that is not there: %v", err)
		}
		if got := looks(t, h, "eth7"); got != dressed {
			t.Errorf("afterwards it is %s", got)
		}
	})
}
