// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func newOrSkip(t testing.TB) *os.File {
	t.Helper()
	ns, err := New()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("ability missing: CAP_SYS_ADMIN to create network namespaces")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func netInode(t testing.TB, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// Inside, there is lo, up and usable, and nothing else; outside, no thread of
// ours has moved.
func TestNewHasOnlyLoopback(t *testing.T) {
	ns := newOrSkip(t)
	type seen struct {
		ifs []net.Interface
		err error
	}
	done := make(chan seen, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- seen{err: err}
			return
		}
		ifs, err := net.Interfaces()
		if err == nil {
			err = echo()
		}
		done <- seen{ifs, err}
	}()
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	if len(got.ifs) != 1 || got.ifs[0].Name != "lo" || got.ifs[0].Flags&net.FlagUp == 0 {
		t.Errorf("interfaces = %+v, want only lo, up", got.ifs)
	}
}

// The main thread cannot be thrown away, and what it sees is what /proc/self
// shows: New must not use it, however often the scheduler offers it.
func TestNewLeavesTheMainThread(t *testing.T) {
	for range 50 {
		ns := newOrSkip(t)
		self, err := os.Open("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		if netInode(t, self) == netInode(t, ns) {
			t.Fatal("the main thread moved into the new namespace")
		}
		self.Close()
		ns.Close()
	}
}

// echo sends a datagram over lo with raw system calls: the net package would
// hand the descriptor to a poller that other threads share.
func echo() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	self, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	if err := unix.Sendto(fd, []byte("lo"), 0, self); err != nil {
		return err
	}
	buf := make([]byte, 8)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err == nil && string(buf[:n]) != "lo" {
		err = errors.New("another datagram came back")
	}
	return err
}

func BenchmarkNew(b *testing.B) {
	newOrSkip(b)
	for b.Loop() {
		ns, err := New()
		if err != nil {
			b.Fatal(err)
		}
		ns.Close()
	}
}
