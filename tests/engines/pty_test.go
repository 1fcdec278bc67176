// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// pty runs a command on a terminal of 33 rows and 101 columns, types what "-i"
// says, and prints what appears. The test's own executable does it when it is
// called by that name.
func pty(args []string) int {
	input := ""
	if len(args) > 1 && args[0] == "-i" {
		input, args = args[1]+"\n", args[2:]
	}
	master, slave, err := openPty()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pty:", err)
		return 125
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "pty:", err)
		return 125
	}
	_ = slave.Close()
	_, _ = io.WriteString(master, input)
	var seen strings.Builder
	_, _ = io.Copy(&seen, master) // ends with EIO
	err = cmd.Wait()
	fmt.Print(strings.ReplaceAll(seen.String(), "\r", ""))
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return failed.ExitCode()
	}
	return 0
}

func openPty() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 101}); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}
