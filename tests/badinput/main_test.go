// SPDX-License-Identifier: Apache-2.0

// Package badinput meets gantry with every kind of bad input and holds what it
// says, the hint, and the exit status against docs/errors.md, and the host
// afterwards against the host before. `go test ./tests/badinput -update`
// writes that page; rows for which this machine lacks something keep the text
// they had.
//
// The whole test runs in network and mount namespaces of its own, so that
// every link, rule and mount that is left there is ours.
package badinput

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write docs/errors.md")

const (
	insideVar = "GANTRY_BADINPUT_INSIDE" // set in the namespaces
	lackVar   = "GANTRY_BADINPUT_LACK"   // be a kernel without these system calls, then execute the arguments
)

func TestMain(m *testing.M) {
	flag.Parse()
	if calls := os.Getenv(lackVar); calls != "" {
		fmt.Fprintln(os.Stderr, lack(calls, flag.Args()))
		os.Exit(99)
	}
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // the test says what it lacks
	}
	if os.Getenv(insideVar) == "" {
		os.Exit(again())
	}
	if err := furnish(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// again runs this test in namespaces of its own.
func again() int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// furnish brings the loopback interface up and serves a DNS that knows nobody.
func furnish() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		return err
	}
	go nobody(c)
	f, err := os.CreateTemp("", "resolv")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString("nameserver 127.0.0.1\n"); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	target, err := os.OpenFile("/etc/resolv.conf", os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer target.Close()
	return unix.Mount(f.Name(), "/proc/self/fd/"+strconv.Itoa(int(target.Fd())), "", unix.MS_BIND, "")
}

// nobody answers every question with NXDOMAIN.
func nobody(c net.PacketConn) {
	b := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if n < 12 {
			continue
		}
		b[2], b[3] = 0x81, 0x83 // a response; recursion available; no such name
		copy(b[6:12], make([]byte, 6))
		_, _ = c.WriteTo(b[:n], from)
	}
}

// lack makes system calls fail with ENOSYS, as a kernel does that never had
// them, and executes args.
func lack(calls string, args []string) error {
	const deny = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}}
	for name := range splitComma(calls) {
		nr, ok := numbers[name]
		if !ok {
			return fmt.Errorf("no system call %q", name)
		}
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: deny})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p))); errno != 0 {
		return errno
	}
	if err := os.Unsetenv(lackVar); err != nil {
		return err
	}
	return unix.Exec(args[0], args, os.Environ())
}

var numbers = map[string]uint32{
	"clone3": unix.SYS_CLONE3, "fsopen": unix.SYS_FSOPEN, "openat2": unix.SYS_OPENAT2,
	"mount_setattr": unix.SYS_MOUNT_SETATTR, "open_tree": unix.SYS_OPEN_TREE, "pidfd_open": unix.SYS_PIDFD_OPEN,
}
