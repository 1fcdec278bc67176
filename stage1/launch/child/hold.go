// SPDX-License-Identifier: Apache-2.0

package child

import (
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// hold tells the parent that everything is made, and waits for a client of the
// socket who says start. The client takes the place of the parent, which may
// be gone: it hears of an error, or by the end of the stream of the execve.
// Without such a socket the parent itself says it.
func (w *walk) hold(h *stage1.Hold) *stage1.StepError {
	if err := findable(h.Command, h.Env); err != nil {
		return err
	}
	send(stage1.Message{Created: true}, -1)
	if h.FD < 0 {
		if !started(stage1.InitSync) {
			return failed("wait for start", "", errParentGone)
		}
		return nil
	}
	for {
		conn, _, err := unix.Accept4(w.source(h.FD), unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			return failed("wait for start", "", err)
		}
		if !started(conn) {
			_ = unix.Close(conn) // somebody only looked whether we are here
			continue
		}
		if err := unix.Dup3(conn, stage1.InitSync, unix.O_CLOEXEC); err != nil {
			return failed("wait for start", "", err)
		}
		return failed("wait for start", "", unix.Close(conn))
	}
}

// findable says of a command that cannot be executed by anybody so now, where
// engines read why. Whether the app's user may is for execve to say.
func findable(command string, env []string) *stage1.StepError {
	path, serr := find(command, env)
	if serr != nil {
		return serr
	}
	var st unix.Stat_t
	err := unix.Stat(path, &st) //nolint:forbidigo // after pivot_root, / is the app's own
	switch {
	case err == unix.ENOENT || err == unix.ENOTDIR:
		return execError(path, err)
	case err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0):
		return execError(path, unix.EACCES)
	}
	return nil
}

func started(conn int) bool {
	b := make([]byte, 64)
	for {
		n, err := unix.Read(conn, b)
		if err == unix.EINTR {
			continue
		}
		return err == nil && string(b[:n]) == stage1.StartMessage
	}
}
