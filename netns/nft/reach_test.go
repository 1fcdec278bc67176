// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns"
	"github.com/gantryrun/gantry/netns/network"
	"github.com/gantryrun/gantry/tests/ability"
)

// The places of the topology, with their addresses:
//
//	outside ── host ── far          host forwards
//	            ├─ gantry0 ── pod, neighbour
//	            └─ gantry1 ── stranger
const (
	outside4, outside6 = "192.0.2.9", "2001:db8:1::9"
	lan4, lan6         = "192.0.2.1", "2001:db8:1::1" // the host's, towards outside
	far4, far6         = "198.51.100.9", "2001:db8:2::9"
	wan4, wan6         = "198.51.100.1", "2001:db8:2::1" // the host's, towards far
	pod4, pod6         = "10.44.0.2", "fd44::2"
	neighbour4         = "10.44.0.3"
	neighbour6         = "fd44::3"
	stranger4          = "10.45.0.2"
	stranger6          = "fd45::2"
	bridge4, bridge6   = "10.44.0.1", "fd44::1"
)

// world is a set of network namespaces.
type world struct {
	t      *testing.T
	places map[string]*os.File
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ability.Require(t, ability.Root, ability.Tool("nft"), ability.Tool("ip"))
	w := &world{t: t, places: map[string]*os.File{}}
	for _, place := range []string{"host", "outside", "far", "pod", "neighbour", "stranger"} {
		ns, err := netns.New()
		if err != nil {
			t.Skip("ability missing: network namespace: " + err.Error())
		}
		t.Cleanup(func() { _ = ns.Close() })
		w.places[place] = ns
		// Link-local addresses are there at once, and not after a second.
		w.run(place, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.dad_transmits=0")
	}
	w.run("host", `sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		ip link add gantry0 type bridge && ip addr add 10.44.0.1/16 dev gantry0 && ip addr add fd44::1/64 dev gantry0 nodad && ip link set gantry0 up
		ip link add gantry1 type bridge && ip addr add 10.45.0.1/16 dev gantry1 && ip addr add fd45::1/64 dev gantry1 nodad && ip link set gantry1 up`)
	w.connect("outside", "", outside4+"/24", outside6+"/64", lan4, lan6)
	w.connect("far", "", far4+"/24", far6+"/64", wan4, wan6)
	w.connect("pod", "gantry0", pod4+"/16", pod6+"/64", bridge4, bridge6)
	w.connect("neighbour", "gantry0", neighbour4+"/16", neighbour6+"/64", bridge4, bridge6)
	w.connect("stranger", "gantry1", stranger4+"/16", stranger6+"/64", "10.45.0.1", "fd45::1")
	return w
}

// connect gives a place a link to the host, or to a bridge of it, and a default
// route over it.
func (w *world) connect(place, bridge, four, six, via4, via6 string) {
	w.t.Helper()
	w.run("host", fmt.Sprintf("ip link add %s type veth peer name eth0 netns /proc/%d/fd/%d", place, os.Getpid(), w.places[place].Fd()))
	if bridge == "" {
		w.run("host", fmt.Sprintf("ip addr add %s/24 dev %s && ip addr add %s/64 dev %s nodad", via4, place, via6, place))
	} else {
		w.run("host", fmt.Sprintf("ip link set %s master %s && bridge link set dev %s hairpin on", place, bridge, place))
	}
	w.run("host", fmt.Sprintf("ip link set %s up", place))
	w.run(place, fmt.Sprintf(`ip addr add %s dev eth0 && ip addr add %s dev eth0 nodad && ip link set eth0 up
		ip route add default via %s && ip route add default via %s`, four, six, via4, via6))
}

// at runs f in a place, on a thread of its own.
func (w *world) at(place string, f func()) {
	w.t.Helper()
	done := make(chan error, 1)
	thrownAway(func() {
		err := unix.Setns(int(w.places[place].Fd()), unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		done <- err
	})
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) run(place, script string) {
	w.t.Helper()
	w.at(place, func() {
		if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
			if strings.Contains(string(out), "not supported") {
				w.t.Skip("ability missing: veth and bridge: " + string(out))
			}
			w.t.Errorf("at %s: %s: %v: %s", place, script, err, out)
		}
	})
}

// serve has a server at a place that answers with its name and the client's
// address, until the test is over or it is stopped.
func (w *world) serve(place, kind string, port int) (stop func()) {
	w.t.Helper()
	var closer interface{ Close() error }
	w.at(place, func() {
		address := fmt.Sprintf(":%d", port)
		if kind == "tcp" {
			l, err := net.Listen(kind, address)
			if err != nil {
				w.t.Fatal(err)
			}
			closer = l
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = c.Write([]byte(place + " " + client(c.RemoteAddr())))
					_ = c.Close()
				}
			}()
			return
		}
		l, err := net.ListenPacket(kind, address)
		if err != nil {
			w.t.Fatal(err)
		}
		closer = l
		go func() {
			for {
				_, from, err := l.ReadFrom(make([]byte, 100))
				if err != nil {
					return
				}
				_, _ = l.WriteTo([]byte(place+" "+client(from)), from)
			}
		}()
	})
	stop = func() { _ = closer.Close() }
	w.t.Cleanup(stop)
	return stop
}

func client(a net.Addr) string {
	return netip.MustParseAddrPort(a.String()).Addr().Unmap().String()
}

// call says what answered at an address, from a place: "" is nobody.
func (w *world) call(from, kind, address string, port int, patience time.Duration) (answer string) {
	w.t.Helper()
	var c net.Conn
	w.at(from, func() {
		c, _ = (&net.Dialer{Timeout: patience}).Dial(kind, net.JoinHostPort(address, fmt.Sprint(port)))
	})
	if c == nil {
		return ""
	}
	defer c.Close()
	return ask(c, patience)
}

// What must arrive is waited for on the busiest machine; what must not would
// have been there at once.
const (
	patient   = 20 * time.Second
	impatient = 400 * time.Millisecond
)

// ask repeats its question: a datagram may be lost.
func ask(c net.Conn, patience time.Duration) string {
	b := make([]byte, 100)
	for until := time.Now().Add(patience); time.Now().Before(until); {
		_ = c.SetDeadline(time.Now().Add(impatient))
		_, _ = c.Write([]byte("who"))
		if n, err := c.Read(b); n > 0 || errors.Is(err, io.EOF) {
			return string(b[:n])
		}
	}
	return ""
}

func (w *world) open(table Table) *os.File {
	w.t.Helper()
	var f *os.File
	w.at("host", func() {
		var err error
		if f, err = Open(table); err != nil {
			w.t.Error(err)
		}
	})
	if f == nil {
		w.t.FailNow()
	}
	w.t.Cleanup(func() { _ = f.Close() })
	return f
}

func podTable(list ...string) Table {
	ports, err := network.ParsePorts(list, nil)
	if err != nil {
		panic(err)
	}
	return Table{Name: "gantry-pod", Ports: ports, Attachments: []Attachment{
		{Bridge: "gantry0", Addresses: prefixes(pod4+"/16", pod6+"/64"), Masquerade: true},
	}}
}

// others are the tables of pods that publish nothing.
func (w *world) others() {
	w.open(Table{Name: "gantry-neighbour", Attachments: []Attachment{
		{Bridge: "gantry0", Addresses: prefixes(neighbour4+"/16", neighbour6+"/64"), Masquerade: true},
	}})
	w.open(Table{Name: "gantry-stranger", Attachments: []Attachment{
		{Bridge: "gantry1", Addresses: prefixes(stranger4+"/16", stranger6+"/64"), Masquerade: true},
	}})
}

type reach struct {
	from, kind, to string
	port           int
	answer         string
}

func (w *world) check(when string, table []reach) {
	w.t.Helper()
	for _, c := range table {
		patience := patient
		if c.answer == "" {
			patience = impatient
		}
		if got := w.call(c.from, c.kind, c.to, c.port, patience); got != c.answer {
			w.t.Errorf("%s: from %s to %s %s port %d: answered %q, want %q", when, c.from, c.kind, c.to, c.port, got, c.answer)
		}
	}
}

// published is who reaches a published port and as whom.
func published(kind string, port int) []reach {
	return []reach{
		{"outside", kind, lan4, port, "pod " + outside4}, // the client's address is kept
		{"outside", kind, lan6, port, "pod " + outside6},
		{"outside", kind, wan4, port, "pod " + outside4}, // every address of the host
		{"host", kind, lan4, port, "pod " + lan4},
		{"host", kind, lan6, port, "pod " + lan6},
		{"pod", kind, lan4, port, "pod " + bridge4}, // hairpin
		{"pod", kind, lan6, port, "pod " + bridge6},
		{"neighbour", kind, lan4, port, "pod " + bridge4},
		{"neighbour", kind, bridge6, port, "pod " + bridge6},
		{"stranger", kind, lan4, port, "pod " + bridge4},
		{"stranger", kind, lan6, port, "pod " + bridge6},
	}
}

func TestWhoReachesAPublishedPort(t *testing.T) {
	w := newWorld(t)
	w.serve("pod", "tcp", 80)
	w.serve("pod", "udp", 53)
	w.serve("pod", "udp", 7005)
	w.serve("pod", "tcp", 5001)
	w.others()
	w.open(podTable("8080:80", "5353:53/udp", "7000-7009:7000-7009/udp", "6000-6001:5000-5001", lan4+":81:80", "["+lan6+"]:82:80"))
	w.check("published", published("tcp", 8080))
	w.check("published", published("udp", 5353))
	w.check("a range", []reach{
		{"outside", "udp", lan4, 7005, "pod " + outside4},
		{"outside", "udp", lan6, 7005, "pod " + outside6},
		{"outside", "udp", lan4, 7010, ""},
		{"outside", "tcp", lan4, 6001, "pod " + outside4},
	})
	w.check("one address", []reach{
		{"outside", "tcp", lan4, 81, "pod " + outside4},
		{"outside", "tcp", wan4, 81, ""},
		{"outside", "tcp", lan6, 82, "pod " + outside6},
		{"outside", "tcp", wan6, 82, ""},
	})
	w.check("not published", []reach{
		{"outside", "tcp", lan4, 80, ""},
		{"outside", "tcp", lan4, 5353, ""},
		{"outside", "udp", lan4, 8080, ""},
	})
}

func TestPodsReachWhatIsOutsideAndAreNotReachedFromThere(t *testing.T) {
	w := newWorld(t)
	w.serve("pod", "tcp", 80)
	w.serve("pod", "udp", 80)
	w.serve("far", "tcp", 80)
	w.serve("far", "udp", 80)
	w.others()
	w.open(podTable())
	for _, kind := range []string{"tcp", "udp"} {
		w.check("masquerade", []reach{
			{"pod", kind, far4, 80, "far " + wan4},
			{"pod", kind, far6, 80, "far " + wan6},
		})
		w.check("its own network", []reach{
			{"neighbour", kind, pod4, 80, "pod " + neighbour4},
			{"neighbour", kind, pod6, 80, "pod " + neighbour6},
			{"host", kind, pod4, 80, "pod " + bridge4},
		})
		// Outside has a route to the pods: the host is its gateway.
		w.check("isolation", []reach{
			{"outside", kind, pod4, 80, ""},
			{"outside", kind, pod6, 80, ""},
			{"stranger", kind, pod4, 80, ""},
			{"stranger", kind, pod6, 80, ""},
		})
	}
}

func TestAnOpenNetworkIsReachedAndAnInternalOneKeepsToItself(t *testing.T) {
	w := newWorld(t)
	w.serve("pod", "tcp", 80)
	w.serve("far", "tcp", 80)
	w.others()
	table := podTable()
	table.Attachments[0].Open = true
	f := w.open(table)
	w.check("open", []reach{
		{"stranger", "tcp", pod4, 80, "pod " + bridge4},
		{"outside", "tcp", pod6, 80, "pod " + outside6},
	})
	_ = f.Close()
	table = podTable("8080:80")
	table.Attachments[0].Internal = true
	w.open(table)
	w.check("internal", []reach{
		{"pod", "tcp", far4, 80, ""},
		{"pod", "tcp", far6, 80, ""},
		{"outside", "tcp", pod4, 80, ""},
		{"outside", "tcp", lan4, 8080, ""},
		{"neighbour", "tcp", pod4, 80, "pod " + neighbour4},
	})
}

// Guards: whoever went on sending datagrams from one port to a published one
// had been led to a pod that is gone, or to nobody, and was for good.
func TestSenderOfDatagramsReachesTheNextPod(t *testing.T) {
	w := newWorld(t)
	w.serve("pod", "udp", 53)
	w.serve("neighbour", "udp", 53)
	w.others() // from now on connections are tracked
	dial := func(to string, from int) (c net.Conn) {
		w.at("outside", func() {
			d := net.Dialer{LocalAddr: &net.UDPAddr{Port: from}}
			c, _ = d.Dial("udp", net.JoinHostPort(to, "5353"))
		})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	former := podTable("5353:53/udp")
	former.Name, former.Attachments[0].Addresses = "gantry-former", prefixes(neighbour4+"/16", neighbour6+"/64")
	for i, host := range []string{lan4, lan6} {
		f := w.open(former)
		led, alone := dial(host, 4000+i), dial(host, 4010+i)
		if got := ask(led, patient); !strings.HasPrefix(got, "neighbour ") {
			t.Errorf("%s: the former pod: %q", host, got)
		}
		_ = f.Close()
		if got := ask(alone, impatient); got != "" {
			t.Errorf("%s: without a pod: %q", host, got)
		}
		table := podTable("5353:53/udp")
		f = w.open(table)
		other := dial(host, 4020+i)
		if got := ask(other, patient); !strings.HasPrefix(got, "pod ") {
			t.Errorf("%s: somebody new: %q", host, got)
		}
		w.at("host", func() {
			if err := table.ForgetOthers(); err != nil {
				t.Error(err)
			}
		})
		for _, c := range []net.Conn{led, alone, other} {
			if got := ask(c, patient); !strings.HasPrefix(got, "pod ") {
				t.Errorf("%s: from %v: %q", host, c.LocalAddr(), got)
			}
		}
		_ = f.Close()
	}
}

// What passes through this host on its way elsewhere is not ours.
func TestCVE_2025_67499_OnlyWhatIsForThisHostIsPublished(t *testing.T) {
	w := newWorld(t)
	w.serve("pod", "tcp", 80)
	w.serve("far", "tcp", 8080)
	w.others()
	w.open(podTable("8080:80"))
	w.check("through the host", []reach{
		{"outside", "tcp", far4, 8080, "far " + outside4},
		{"outside", "tcp", far6, 8080, "far " + outside6},
		{"neighbour", "tcp", far4, 8080, "far " + wan4},
		{"pod", "tcp", far4, 8080, "far " + wan4},
	})
}

// A neighbour of the host sends a packet for 127.0.0.1.
func TestCVE_2020_8558_LoopbackIsNotReachedFromOutside(t *testing.T) {
	w := newWorld(t)
	w.serve("pod", "udp", 53)
	w.serve("host", "udp", 5353) // as the proxy is
	w.open(podTable("5353:53/udp"))
	w.run("outside", `ip addr del 127.0.0.1/8 dev lo; ip addr del ::1/128 dev lo
		sysctl -qw net.ipv4.conf.all.route_localnet=1
		ip route add 127.0.0.0/8 via `+lan4+` dev eth0 src `+outside4+`; ip -6 route add ::1/128 via `+lan6+` dev eth0`)
	w.check("for the loopback", []reach{
		{"outside", "udp", "127.0.0.1", 5353, ""},
		{"outside", "udp", "::1", 5353, ""},
		{"outside", "udp", lan4, 5353, "pod " + outside4}, // it is not that nothing works
	})
}

// A firewall that is loaded anew clears what is not its own.
func TestAFirewallReloadCutsNothing(t *testing.T) {
	w := newWorld(t)
	w.serve("pod", "tcp", 80)
	w.others()
	w.open(podTable("8080:80"))
	w.run("host", `nft flush ruleset
		nft -f - <<'E'
flush ruleset
table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority 10; policy accept;
		ct state established,related accept
		ct status dnat accept
		reject with icmpx type admin-prohibited
	}
}
E`)
	w.check("after a reload", published("tcp", 8080))
}

// A client goes on sending to a published port of a pod that is gone. The next
// pod with its address publishes nothing.
func TestAFlowToADeadPodDoesNotReachTheNext(t *testing.T) {
	w := newWorld(t)
	stop := w.serve("pod", "udp", 53)
	f := w.open(podTable("5353:53/udp"))
	var c net.Conn
	w.at("outside", func() { c, _ = net.Dial("udp", net.JoinHostPort(lan4, "5353")) })
	defer c.Close()
	if got := ask(c, patient); got != "pod "+outside4 {
		t.Fatalf("before: %q", got)
	}
	_ = f.Close()
	stop()
	w.serve("pod", "udp", 53)
	w.open(podTable())
	if got := ask(c, impatient); got == "" {
		t.Log("this kernel forgot the flow with the table")
	}
	w.at("host", func() {
		if err := Forget(netip.MustParseAddr(pod4), netip.MustParseAddr(pod6)); err != nil {
			t.Error(err)
		}
	})
	if got := ask(c, impatient); got != "" {
		t.Errorf("the next pod got a datagram of a flow to the one before: %q", got)
	}
}
