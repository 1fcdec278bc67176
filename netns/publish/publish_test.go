// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns/network"
)

func take(t *testing.T, list ...string) (*Ports, error) {
	t.Helper()
	ports, err := network.ParsePorts(list, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Bind(ports)
	if err == nil {
		t.Cleanup(p.Close)
	}
	return p, err
}

// One number for both families, that nobody else gets.
func TestTheKernelChoosesOneNumberForBothFamilies(t *testing.T) {
	for _, spec := range []string{"80", "80/udp"} {
		p, err := take(t, spec)
		if err != nil {
			t.Fatal(err)
		}
		port := p.Ports[0]
		if port.HostPort == 0 || port.Container != 80 {
			t.Fatalf("%s became %+v", spec, port)
		}
		for _, s := range p.Sockets {
			if s.Address.Port() != port.HostPort || !s.Address.Addr().IsUnspecified() || s.Container != 80 {
				t.Errorf("%s is bound to %s", spec, s.Address)
			}
		}
		port.Host = netip.MustParseAddr("127.0.0.1")
		var occupied *Occupied
		if _, err := Bind([]network.Port{port}); !errors.As(err, &occupied) || !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s a second time: %v", spec, err)
		}
	}
}

func TestARangeOfEphemeralPorts(t *testing.T) {
	p, err := take(t, "127.0.0.1::80-82")
	if err != nil || len(p.Ports) != 3 || len(p.Sockets) != 3 {
		t.Fatalf("%+v, %v", p, err)
	}
	for i, port := range p.Ports {
		if port.HostPort == 0 || port.Container != uint16(80+i) || port.Len() != 1 {
			t.Errorf("the %d. is %+v", i, port)
		}
	}
}

// It names the port and its protocol, and what had been bound is free again.
func TestAnOccupiedPort(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	number := netip.MustParseAddrPort(l.Addr().String()).Port()
	mine := network.Port{Host: netip.MustParseAddr("127.0.0.1"), HostPort: number - 1, Container: 1, Count: 2, Protocol: network.TCP}
	_, err = Bind([]network.Port{mine})
	var occupied *Occupied
	if errors.As(err, &occupied) && occupied.Port.HostPort == number-1 {
		t.Skip("ability missing: two neighbouring ports: somebody has one of them")
	}
	want := "publish port 127.0.0.1:" + l.Addr().String()[len("127.0.0.1:"):] + "/tcp: address already in use"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	again := mine.At(0)
	p, err := Bind([]network.Port{again})
	if err != nil {
		t.Fatalf("what was bound before the error is still bound: %v", err)
	}
	p.Close()
}

func TestAnAddressOfSomebodyElse(t *testing.T) {
	_, err := take(t, "192.0.2.77::80")
	if err == nil || !strings.Contains(err.Error(), "192.0.2.77 is not an address of this host") {
		t.Errorf("%v", err)
	}
}

// A port whose last connections linger is free, as for every other server.
func TestAPortIsTakenAgainAtOnce(t *testing.T) {
	p, err := take(t, "127.0.0.1::80")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", p.Sockets[0].Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, _, err := unix.Accept(int(p.Sockets[0].File.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(accepted)
	port := p.Ports[0]
	p.Close()
	again, err := Bind([]network.Port{port})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
