// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// carried is a proxy in front of an address, and where it listens. It turns in
// a goroutine until the test is over; then none of its descriptors may be left.
type carried struct {
	*proxy
	address string
	atWork  sync.Mutex // held while the proxy is at work
	stop    chan struct{}
	stopped chan struct{}
}

func carry(t testing.TB, listen, to string, tune func(*proxy)) *carried {
	t.Helper()
	at := netip.MustParseAddrPort(to)
	before := pipes(t)
	f, address := published(t, listen)
	p, err := openProxy([]stage1.Forward{{FD: int(f.Fd()), UDP: isUDP(listen), Address: at.Addr().AsSlice(), Port: int(at.Port())}})
	if err != nil {
		t.Fatal(err)
	}
	if tune != nil {
		tune(p)
	}
	c := &carried{proxy: p, address: address, stop: make(chan struct{}), stopped: make(chan struct{})}
	go c.run()
	t.Cleanup(func() {
		close(c.stop)
		<-c.stopped
		c.forget(time.Now().Add(time.Hour))
		if c.streams != 0 || len(c.flows) != 0 || len(c.slots)-len(c.free) != 1 {
			t.Errorf("%d connections, %d flows and %d slots are left", c.streams, len(c.flows), len(c.slots)-len(c.free))
		}
		for _, pipe := range c.pipes {
			_ = unix.Close(pipe.r)
			_ = unix.Close(pipe.w)
		}
		_ = unix.Close(c.epoll)
		_ = f.Close()
		if after := pipes(t); after > before {
			t.Errorf("%d ends of pipes are left", after-before)
		}
	})
	return c
}

// run is the supervisor's loop.
func (c *carried) run() {
	defer close(c.stopped)
	for {
		polls := []unix.PollFd{{Fd: int32(c.epoll), Events: unix.POLLIN}}
		wait := 20
		if p := c.patience(); p >= 0 && int(p.Milliseconds())+1 < wait {
			wait = int(p.Milliseconds()) + 1
		}
		_, _ = unix.Poll(polls, wait)
		c.atWork.Lock()
		c.expire()
		c.proxy.turn()
		idle := c.streams == 0
		c.atWork.Unlock()
		select {
		case <-c.stop:
			if idle {
				return
			}
		default:
		}
	}
}

func isUDP(network string) bool { return network[:3] == "udp" }

// published is a socket as netns/publish makes them, and where it is.
func published(t testing.TB, listen string) (*os.File, string) {
	t.Helper()
	network, address := listen[:4], listen[5:]
	if !isUDP(network) {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Skip("ability missing: " + network + ": " + err.Error())
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		return f, l.Addr().String()
	}
	l, err := net.ListenPacket(network, address)
	if err != nil {
		t.Skip("ability missing: " + network + ": " + err.Error())
	}
	defer l.Close()
	f, err := l.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if network == "udp6" {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	if err := unix.SetsockoptInt(int(f.Fd()), level, option, 1); err != nil {
		t.Fatal(err)
	}
	return f, l.LocalAddr().String()
}

// pipes counts those of this process: sockets are counted by their slots.
func pipes(t testing.TB) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

// server serves each connection by f, and is gone with the test.
func server(t testing.TB, f func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// echoAll copies without splice, whose pipes the test counts.
func echoAll(c *net.TCPConn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return c.(*net.TCPConn)
}

// An answer that needs the whole question, as of "ssh host cat", only comes if
// the end of one direction is carried without the other's.
func TestHalfCloseIsCarried(t *testing.T) {
	to := server(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		_, _ = fmt.Fprintf(c, "%d bytes, %x", len(b), sha256.Sum256(b))
	})
	for _, listen := range []string{"tcp4 127.0.0.1:0", "tcp6 [::1]:0"} {
		p := carry(t, listen, to, nil)
		for _, size := range []int{0, 1, 5000, 3 << 20} {
			c := dial(t, p.address)
			question := bytes.Repeat([]byte("question"), (size+7)/8)[:size]
			if _, err := c.Write(question); err != nil {
				t.Fatal(err)
			}
			_ = c.CloseWrite()
			got, err := io.ReadAll(c)
			if want := fmt.Sprintf("%d bytes, %x", size, sha256.Sum256(question)); err != nil || string(got) != want {
				t.Errorf("%s: got %q, %v, want %q", listen, got, err, want)
			}
			_ = c.Close()
		}
	}
}

// The pod speaks first and ends first.
func TestThePodEndsFirst(t *testing.T) {
	to := server(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 hello\n")
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	p := carry(t, "tcp4 127.0.0.1:0", to, nil)
	c := dial(t, p.address)
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "220 hello\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := io.WriteString(c, "still there\n"); err != nil {
		t.Error(err)
	}
}

// Whoever does not read holds the other side back; nothing is kept meanwhile,
// and others are served.
func TestASlowReaderHoldsTheWriterBack(t *testing.T) {
	const size = 64 << 20
	wrote := make(chan int, 1)
	to := server(t, func(c *net.TCPConn) {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		n, _ := c.Write(make([]byte, size))
		select {
		case wrote <- n:
		default:
		}
	})
	p := carry(t, "tcp4 127.0.0.1:0", to, nil)
	slow := dial(t, p.address)
	if n := <-wrote; n >= size/2 {
		t.Errorf("%d bytes were taken from a server whose client reads nothing", n)
	}
	other := dial(t, p.address)
	if _, err := io.ReadFull(other, make([]byte, 1<<20)); err != nil {
		t.Errorf("beside it: %v", err)
	}
	_ = slow.Close()
	_ = other.Close()
}

// Further clients wait until one has gone; none is lost.
func TestConnectionsAreBounded(t *testing.T) {
	to := server(t, echoAll)
	p := carry(t, "tcp4 127.0.0.1:0", to, func(p *proxy) { p.most = 3 })
	var clients []*net.TCPConn
	for range 6 {
		c := dial(t, p.address)
		defer c.Close()
		_, _ = io.WriteString(c, "x")
		clients = append(clients, c)
	}
	for i := range 3 {
		if _, err := io.ReadFull(clients[i], make([]byte, 1)); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
	}
	p.atWork.Lock()
	if p.streams != 3 || !p.paused {
		t.Errorf("%d connections, paused: %v", p.streams, p.paused)
	}
	p.atWork.Unlock()
	for i := range 3 {
		_ = clients[i].Close()
	}
	for i := 3; i < 6; i++ {
		if _, err := io.ReadFull(clients[i], make([]byte, 1)); err != nil {
			t.Errorf("client %d, who waited: %v", i, err)
		}
	}
}

// Nobody listens in the pod: the client sees a connection that broke, and not
// one that ended well.
func TestRefusedInThePod(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := l.Addr().String()
	_ = l.Close()
	p := carry(t, "tcp4 127.0.0.1:0", to, nil)
	c, err := net.Dial("tcp", p.address)
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// Ten thousand, some of which are cut in the middle by either side, leave
// nothing behind: carry counts connections, slots and pipes.
func TestManyConnections(t *testing.T) {
	count := 10000
	if testing.Short() {
		count = 500
	}
	to := server(t, func(c *net.TCPConn) {
		if rand.IntN(10) == 0 {
			_ = c.SetLinger(0)
			return
		}
		echoAll(c)
	})
	p := carry(t, "tcp4 127.0.0.1:0", to, nil)
	var all sync.WaitGroup
	work := make(chan int)
	var good, cut int
	var m sync.Mutex
	for range 50 {
		all.Go(func() {
			for i := range work {
				whole := echo(p.address, i)
				m.Lock()
				if whole {
					good++
				} else {
					cut++
				}
				m.Unlock()
			}
		})
	}
	for i := range count {
		work <- i
	}
	close(work)
	all.Wait()
	if good < count/2 || cut == 0 {
		t.Errorf("%d connections were whole, %d cut", good, cut)
	}
}

// echo is one client; every seventh leaves early.
func echo(address string, i int) bool {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	text := bytes.Repeat([]byte{byte(i)}, 1+i%3000)
	if _, err := c.Write(text); err != nil {
		return false
	}
	if i%7 == 0 {
		_ = c.(*net.TCPConn).SetLinger(0)
		return false
	}
	_ = c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(c)
	return err == nil && bytes.Equal(got, text)
}

// podUDP answers each datagram with whom it is from and what it was.
func podUDP(t *testing.T, network string) string {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "udp6" {
		address = "[::1]:0"
	}
	l, err := net.ListenPacket(network, address)
	if err != nil {
		t.Skip("ability missing: " + network + ": " + err.Error())
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = l.WriteTo(append([]byte(from.String()+" "), b[:n]...), from)
		}
	}()
	return l.LocalAddr().String()
}

func ask(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestDatagrams(t *testing.T) {
	for _, c := range []struct{ network, listen, ask string }{
		{"udp4", "udp4 0.0.0.0:0", "127.0.0.1"},
		{"udp4", "udp4 0.0.0.0:0", "127.0.0.2"}, // the answer comes from where the question went
		{"udp6", "udp6 [::]:0", "::1"},
		{"udp4", "udp6 [::1]:0", "::1"}, // a pod without IPv6
	} {
		p := carry(t, c.listen, podUDP(t, c.network), nil)
		_, port, _ := net.SplitHostPort(p.address)
		first, err := net.Dial("udp", net.JoinHostPort(c.ask, port))
		if err != nil {
			t.Fatal(err)
		}
		second, err := net.Dial("udp", net.JoinHostPort(c.ask, port))
		if err != nil {
			t.Fatal(err)
		}
		one, other := ask(t, first, "a"), ask(t, second, "b")
		if again := ask(t, first, "a"); again != one {
			t.Errorf("%s: the pod saw one client as %q and then as %q", c.listen, one, again)
		}
		if one[len(one)-1] != 'a' || other[len(other)-1] != 'b' || one[:len(one)-1] == other[:len(other)-1] {
			t.Errorf("%s: answers are %q and %q", c.listen, one, other)
		}
		if empty := ask(t, first, ""); empty != one[:len(one)-1] {
			t.Errorf("%s: an empty datagram became %q", c.listen, empty)
		}
		large := string(bytes.Repeat([]byte("x"), 60000))
		if got := ask(t, first, large); len(got) != len(one)-1+len(large) {
			t.Errorf("%s: of %d bytes %d came back", c.listen, len(large), len(got))
		}
		_ = first.Close()
		_ = second.Close()
	}
}

func TestClientsOfDatagramsAreBoundedAndForgotten(t *testing.T) {
	p := carry(t, "udp4 127.0.0.1:0", podUDP(t, "udp4"), func(p *proxy) { p.idle = time.Second })
	for range mostFlows + 50 {
		c, err := net.Dial("udp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		ask(t, c, "x")
		_ = c.Close()
		p.atWork.Lock()
		if n := len(p.flows); n > mostFlows {
			t.Errorf("%d flows", n)
		}
		p.atWork.Unlock()
	}
	for until := time.Now().Add(10 * time.Second); ; {
		p.atWork.Lock()
		n := len(p.flows)
		p.atWork.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%d flows are not forgotten", n)
		}
	}
}

// BenchmarkCarry is how fast bytes go through the proxy, and past it.
func BenchmarkCarry(b *testing.B) {
	const size = 256 << 20
	to := server(b, func(c *net.TCPConn) {
		block := make([]byte, 128<<10)
		for range size / len(block) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	get := func(b *testing.B, address string) {
		b.SetBytes(size)
		for b.Loop() {
			c, err := net.Dial("tcp", address)
			if err != nil {
				b.Fatal(err)
			}
			block := make([]byte, 128<<10)
			for n := 0; n < size; {
				got, err := c.Read(block)
				if err != nil {
					b.Fatal(err)
				}
				n += got
			}
			_ = c.Close()
		}
	}
	b.Run("direct", func(b *testing.B) { get(b, to) })
	b.Run("proxy", func(b *testing.B) { get(b, carry(b, "tcp4 127.0.0.1:0", to, nil).address) })
}
