// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns"
	"github.com/gantryrun/gantry/tests/ability"
)

// place is a network namespace of the test's own.
type place struct {
	t  *testing.T
	ns *os.File
}

func newPlace(t *testing.T) *place {
	t.Helper()
	ability.Require(t, ability.Root, ability.Tool("ip"))
	ns, err := netns.New()
	if err != nil {
		t.Skip("ability missing: network namespace: " + err.Error())
	}
	t.Cleanup(func() { _ = ns.Close() })
	p := &place{t, ns}
	// A new namespace begins with what the machine's own has.
	p.says("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
	return p
}

// at runs f on a thread that is in the place and ends with it.
func (p *place) at(f func()) {
	p.t.Helper()
	done := make(chan error, 1)
	go thrownAway(func() {
		err := unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		done <- err
	})
	if err := <-done; err != nil {
		p.t.Fatal(err)
	}
}

func thrownAway(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
	runtime.UnlockOSThread()
}

func (p *place) says(script string) string {
	p.t.Helper()
	var out []byte
	p.at(func() {
		var err error
		if out, err = exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
			p.t.Errorf("%s: %v: %s", script, err, out)
		}
	})
	return strings.TrimSpace(string(out))
}

// reads returns a sysctl of the place.
func (p *place) reads(name string) string {
	p.t.Helper()
	var b []byte
	p.at(func() { b, _ = os.ReadFile("/proc/sys/net/" + name) })
	return strings.TrimSpace(string(b))
}

func (p *place) want(name, value string) {
	p.t.Helper()
	if got := p.reads(name); got != value {
		p.t.Errorf("%s is %q, not %s", name, got, value)
	}
}

func (p *place) up(b Bridge) int {
	p.t.Helper()
	var index int
	var err error
	p.at(func() { index, err = b.Up() })
	p.skipMissing(err)
	if err != nil {
		p.t.Fatal(err)
	}
	return index
}

// skipMissing skips where the kernel has no bridges.
func (p *place) skipMissing(err error) {
	p.t.Helper()
	var m *Missing
	if errors.As(err, &m) && errors.Is(err, unix.EOPNOTSUPP) {
		p.t.Skip("ability missing: " + m.Kind + ": " + err.Error())
	}
}

func (p *place) attach(port Port, pod *place) {
	p.t.Helper()
	var err error
	p.at(func() { err = port.Attach(pod.ns) })
	p.skipMissing(err)
	if err != nil {
		p.t.Fatal(err)
	}
}

func prefixes(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

const owner = "/run/gantry/networks/a"

func both() Bridge {
	return Bridge{Name: "gb0", Gateways: prefixes("10.1.0.1/24", "fd01::1/64"), Forward: true, Owner: owner}
}

func port(index, n int) Port {
	addresses := prefixes(fmt.Sprintf("10.1.0.%d/24", n), fmt.Sprintf("fd01::%d/64", n))
	return Port{
		Bridge: index, Host: fmt.Sprintf("v%d", n), Interface: "eth0", MAC: MAC(addresses), Addresses: addresses,
		Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd01::1")},
	}
}

func TestAPodOnABridge(t *testing.T) {
	host, a, b := newPlace(t), newPlace(t), newPlace(t)
	index := host.up(both())
	host.attach(port(index, 2), a)
	host.attach(port(index, 3), b)

	for _, want := range []string{"0a:58:0a:01:00:02", "state UP", "mtu 1500"} {
		if got := a.says("ip link show eth0"); !strings.Contains(got, want) {
			t.Errorf("eth0 of the pod is without %q:\n%s", want, got)
		}
	}
	for _, want := range []string{"inet 10.1.0.2/24", "inet6 fd01::2/64 scope global nodad"} {
		if got := a.says("ip addr show eth0"); !strings.Contains(got, want) {
			t.Errorf("eth0 of the pod is without %q:\n%s", want, got)
		}
	}
	if got := a.says("ip route show default; ip -6 route show default"); !strings.Contains(got, "default via 10.1.0.1 dev eth0") || !strings.Contains(got, "default via fd01::1 dev eth0") {
		t.Errorf("default routes: %s", got)
	}
	// No router among the pods is believed (CVE-2020-10749), by nobody.
	a.want("ipv6/conf/eth0/accept_ra", "0")
	host.want("ipv6/conf/gb0/accept_ra", "0")
	host.want("ipv4/conf/gb0/send_redirects", "0")
	host.want("ipv4/ip_forward", "1")
	host.want("ipv6/conf/all/forwarding", "1")
	host.want("ipv4/conf/gb0/route_localnet", "0")
	// Only the bridge has an address.
	if got := host.says("ip addr show v2"); strings.Contains(got, "inet") {
		t.Errorf("the host's end has an address:\n%s", got)
	}
	a.reaches(b, "10.1.0.3")
	b.reaches(a, "fd01::2")
	a.reaches(host, "10.1.0.1")
}

// reaches has one place say something to another, by UDP.
func (p *place) reaches(other *place, address string) {
	p.t.Helper()
	var server, client int
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	at := netip.MustParseAddr(address)
	if at.Is4() {
		sa = &unix.SockaddrInet4{Addr: at.As4(), Port: 7000}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: at.As16(), Port: 7000}
	}
	var err, cerr error
	other.at(func() {
		server, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(server, sa)
		}
	})
	defer unix.Close(server)
	p.at(func() {
		client, cerr = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if cerr == nil {
			cerr = unix.Sendto(client, []byte("hello"), 0, sa)
		}
	})
	defer unix.Close(client)
	if err := errors.Join(err, cerr); err != nil {
		p.t.Errorf("send to %s: %v", address, err)
		return
	}
	_ = unix.SetsockoptTimeval(server, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	buf := make([]byte, 10)
	if n, _, err := unix.Recvfrom(server, buf, 0); err != nil || string(buf[:n]) != "hello" {
		p.t.Errorf("what was sent to %s does not arrive: %v", address, err)
	}
}

func TestABridgeOfIPv4HasNoIPv6(t *testing.T) {
	host, pod := newPlace(t), newPlace(t)
	index := host.up(Bridge{Name: "gb0", Gateways: prefixes("10.1.0.1/24"), Forward: true})
	p := port(index, 2)
	p.Addresses, p.Gateways = p.Addresses[:1], p.Gateways[:1]
	host.attach(p, pod)
	pod.want("ipv6/conf/eth0/disable_ipv6", "1")
	host.want("ipv6/conf/gb0/disable_ipv6", "1")
	host.want("ipv6/conf/all/forwarding", "0")
	if got := pod.says("ip addr show eth0"); strings.Contains(got, "inet6") {
		t.Errorf("it has an address of IPv6:\n%s", got)
	}
}

// An internal network changes nothing of how the host forwards, and its pods
// have no way out.
func TestAnInternalNetworkForwardsNothing(t *testing.T) {
	host, pod := newPlace(t), newPlace(t)
	b := both()
	b.Forward = false
	p := port(host.up(b), 2)
	p.Gateways = nil
	host.attach(p, pod)
	host.want("ipv4/ip_forward", "0")
	host.want("ipv6/conf/all/forwarding", "0")
	if got := pod.says("ip route show default; ip -6 route show default"); got != "" {
		t.Errorf("default routes: %s", got)
	}
}

// The host listens to routers on its own interface: it goes on doing so when it
// begins to forward.
func TestTheHostKeepsItsOwnRouter(t *testing.T) {
	host := newPlace(t)
	host.says("ip link add lan type veth peer name other && ip link set lan up && sysctl -qw net.ipv6.conf.lan.accept_ra=1")
	host.up(both())
	host.want("ipv6/conf/lan/accept_ra", "2")
	host.want("ipv6/conf/all/forwarding", "1")
	host.says("ip link add silent type veth peer name quiet && sysctl -qw net.ipv6.conf.silent.accept_ra=0")
	host.up(both())
	host.want("ipv6/conf/silent/accept_ra", "0")
}

// Somebody set it down, or took an address from it: the next launch mends it.
func TestABridgeIsMended(t *testing.T) {
	host := newPlace(t)
	index := host.up(both())
	before := host.says("ip -br link show gb0 | awk '{print $3}'")
	host.says("ip link set gb0 down; ip addr flush dev gb0")
	if again := host.up(both()); again != index {
		t.Errorf("it is another bridge: %d, not %d", again, index)
	}
	got := host.says("ip addr show gb0")
	for _, want := range []string{"inet 10.1.0.1/24", "inet6 fd01::1/64", "UP"} {
		if !strings.Contains(got, want) {
			t.Errorf("it is without %q:\n%s", want, got)
		}
	}
	if after := host.says("ip -br link show gb0 | awk '{print $3}'"); after != before {
		t.Errorf("its MAC address changed: %s, %s", before, after)
	}
}

func TestABridgeKeepsItsAddressWhenPodsComeAndGo(t *testing.T) {
	host := newPlace(t)
	index := host.up(both())
	mac := func() string { return host.says("ip -br link show gb0 | awk '{print $3}'") }
	before := mac()
	if before != "0a:58:0a:01:00:01" {
		t.Errorf("the bridge's MAC address is %s", before)
	}
	pod := newPlace(t)
	host.attach(port(index, 2), pod)
	if got := mac(); got != before {
		t.Errorf("with a pod it is %s", got)
	}
	host.says("ip link del v2")
	if got := mac(); got != before {
		t.Errorf("without the pod it is %s", got)
	}
}

func TestManyLaunchesAtATime(t *testing.T) {
	host := newPlace(t)
	host.up(both())
	host.at(func() { _, _ = Remove(owner) })
	const n = 12
	pods := make([]*place, n)
	for i := range pods {
		pods[i] = newPlace(t)
	}
	var all sync.WaitGroup
	indexes := make([]int, n)
	errs := make([]error, n)
	for i := range n {
		all.Go(func() {
			done := make(chan struct{})
			go thrownAway(func() {
				defer close(done)
				if errs[i] = unix.Setns(int(host.ns.Fd()), unix.CLONE_NEWNET); errs[i] != nil {
					return
				}
				if indexes[i], errs[i] = both().Up(); errs[i] == nil {
					errs[i] = port(indexes[i], i+2).Attach(pods[i].ns)
				}
			})
			<-done
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if len(slices.Compact(indexes)) != 1 {
		t.Errorf("there are several bridges: %v", indexes)
	}
	pods[0].reaches(pods[n-1], fmt.Sprintf("10.1.0.%d", n+1))
}

func TestABridgeIsRemovedWhenNobodyIsOnIt(t *testing.T) {
	host, pod := newPlace(t), newPlace(t)
	index := host.up(both())
	host.attach(port(index, 2), pod)
	remove := func(want bool) {
		t.Helper()
		host.at(func() {
			if got, err := Remove(owner); err != nil || got != want {
				t.Errorf("removed: %t (%v)", got, err)
			}
		})
	}
	remove(false)
	pod.says("ip link del eth0")
	remove(true)
	remove(false)
	host.says("ip link add gb0 type veth peer name other")
	remove(false) // it is none of ours
}

// Guards: gc deleted a bridge of the administrator's that a network had used,
// and that of another network, or installation, with the same name.
func TestABridgeOfSomebodyElseStays(t *testing.T) {
	host := newPlace(t)
	host.says("ip link add gb0 type bridge")
	for _, who := range []string{owner, "/run/" + strings.Repeat("long/", 100)} {
		b := both()
		b.Owner = who
		host.up(b) // an administrator's may be used
		host.at(func() {
			if got, err := Remove(who); err != nil || got {
				t.Errorf("removed: %t (%v)", got, err)
			}
		})
	}
	host.says("ip link del gb0")
	host.up(both())
	other := both()
	other.Owner = "/run/gantry/networks/b"
	host.at(func() {
		if _, err := other.Up(); err == nil || !strings.Contains(err.Error(), "that of "+owner) {
			t.Errorf("another network's bridge: %v", err)
		}
		if got, err := Remove(other.Owner); err != nil || got {
			t.Errorf("removed: %t (%v)", got, err)
		}
	})
	host.says("ip link del gb0")
	other.Owner = "/run/" + strings.Repeat("long/", 100)
	host.up(other)
	host.at(func() {
		if got, err := Remove(other.Owner); err != nil || !got {
			t.Errorf("removed: %t (%v)", got, err)
		}
	})
}

// With the namespace of a pod everything of it is gone.
func TestNothingIsLeftOfAPod(t *testing.T) {
	host := newPlace(t)
	index := host.up(both())
	pod := newPlace(t)
	host.attach(port(index, 2), pod)
	_ = pod.ns.Close()
	for until := time.Now().Add(10 * time.Second); ; { // the kernel does it when it has time
		links := host.says("ip -br link | awk '{print $1}' | sort | xargs")
		if links == "gb0 lo" {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("left: %s", links)
		}
		runtime.Gosched()
	}
}

func TestWhatCannotBe(t *testing.T) {
	host, pod := newPlace(t), newPlace(t)
	host.says("ip link add eth9 type veth peer name other")
	fails := func(want, hint string, f func() error) {
		t.Helper()
		host.at(func() {
			err := f()
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
			var h interface{ Hint() string }
			if hint != "" && (!errors.As(err, &h) || !strings.Contains(h.Hint(), hint)) {
				t.Errorf("%v: its hint is not %s", err, hint)
			}
		})
	}
	b := both()
	b.Name = "eth9"
	fails("the interface eth9 of this host is no bridge but veth: give the network another bridge name", "", func() error { _, err := b.Up(); return err })

	p := port(host.up(both()), 2)
	host.attach(p, pod)
	p.Host = "v77"
	fails("make the interface eth0 of the pod: file exists", "", func() error { return p.Attach(pod.ns) })
	p.Host, p.Interface = "v2", "eth1"
	fails("make the interface eth1 of the pod: file exists", "", func() error { return p.Attach(pod.ns) })
	if got := pod.says("ip -br link | awk '{print $1}' | sort | xargs"); strings.Contains(got, "eth1") {
		t.Errorf("the pod has %s", got)
	}
}

func TestWithoutThePrivilege(t *testing.T) {
	host := newPlace(t)
	host.at(func() {
		// Of this thread alone, which ends here.
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Fatal(err)
		}
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Fatal(err)
		}
		_, err := both().Up()
		var m *Missing
		if !errors.As(err, &m) || err.Error() != "make bridge gb0: operation not permitted" ||
			m.Hint() != "networks need CAP_NET_ADMIN: use --net=none or --net=host without it" {
			t.Errorf("%v (%v)", err, m)
		}
	})
}

func TestMACsOfAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.3/24":           "0a:58:0a:01:02:03",
		"fd01::7/64":            "0a:59:00:00:00:07",
		"fd01::7/64 10.1.2.3/8": "0a:58:0a:01:02:03",
	} {
		if got := MAC(prefixes(strings.Fields(in)...)).String(); got != want {
			t.Errorf("%s has %s, want %s", in, got, want)
		}
	}
}

func TestRoutesOfTheHost(t *testing.T) {
	host := newPlace(t)
	host.up(both())
	host.says("ip route add default via 10.1.0.9; ip route add 198.51.100.0/24 via 10.1.0.9; ip route add 2001:db8::/32 via fd01::9")
	// Default routes as VPNs write them.
	host.says("for r in 0.0.0.0/1 128.0.0.0/1; do ip route add $r via 10.1.0.9; done; for r in ::/1 8000::/1 2000::/3; do ip route add $r via fd01::9; done")
	host.at(func() {
		got, err := Routes()
		for _, want := range prefixes("10.1.0.0/24", "198.51.100.0/24", "2001:db8::/32", "fd01::/64") {
			if err != nil || !slices.Contains(got, want) {
				t.Errorf("no %s among %v (%v)", want, got, err)
			}
		}
		if slices.ContainsFunc(got, func(p netip.Prefix) bool { return p.Bits() < 8 }) {
			t.Errorf("a default route counts: %v", got)
		}
	})
}
