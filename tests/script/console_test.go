// SPDX-License-Identifier: Apache-2.0

package script

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// console SOCKET FILE listens as an engine does for the terminal of a
// container or an exec, and copies what it shows to FILE until it ends. Of a
// pidfd it tells the number, with the words that came with it.
func console(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: console SOCKET FILE")
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ts.MkAbs(args[0])})
	ts.Check(err)
	out, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() }) // ends who still waits
	go func() {
		defer out.Close()
		pty, text, err := acceptTerminal(l)
		if err != nil {
			_, _ = out.WriteString("no terminal came: " + err.Error() + "\n")
			return
		}
		defer pty.Close()
		if text != "/dev/ptmx" {
			info, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pty.Fd()))
			_, pid, _ := strings.Cut(string(info), "\nPid:\t")
			pid, _, _ = strings.Cut(pid, "\n")
			_, _ = out.WriteString(text + " " + pid + "\n")
			return
		}
		_, _ = out.ReadFrom(pty) // EIO is its end
	}()
}

func acceptTerminal(l *net.UnixListener) (*os.File, string, error) {
	conn, err := l.AcceptUnix()
	if err != nil {
		return nil, "", err
	}
	defer conn.Close()
	b, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	words, n, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, "", err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, "", unix.EBADMSG
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, "", unix.EBADMSG
	}
	return os.NewFile(uintptr(fds[0]), "console"), string(b[:words]), nil
}
