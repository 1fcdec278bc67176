// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openPty opens a terminal for a process under test.
func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("ability missing: pty")
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestTerminalIsTheContainersOwnAndOursComesBack(t *testing.T) {
	p := newPod(t, "sh", "-c", "tty; stty size; test -c /dev/console && echo console; stat -c %t:%T /dev/console /dev/pts/0; read line; echo \"got $line\"; echo x >/dev/tty")
	p.request.Terminal = true
	master, slave := openPty(t)
	size := unix.Winsize{Row: 33, Col: 77}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		t.Fatal(err)
	}
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := p.command()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := master.WriteString("hello\r"); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	after, terr := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	slave.Close()
	b := make([]byte, 8<<10)
	n, _ := readAll(master, b)
	got := strings.ReplaceAll(string(b[:n]), "\r\n", "\n")
	// The terminals echo what is typed whenever it arrives.
	got = strings.ReplaceAll("\n"+got, "\nhello\n", "\n")
	if err != nil || !strings.Contains(got, "/dev/pts/0\n33 77\nconsole\n") || !strings.Contains(got, "got hello\nx\n") {
		t.Errorf("%v, terminal showed %q", err, got)
	}
	if terr != nil || *after != *before {
		t.Errorf("terminal mode was not restored: %v", terr)
	}
}
