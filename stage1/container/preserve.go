// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1/launch"
)

// maxPreserved bounds what is asked for by a number.
const maxPreserved = 1024

// Preserved finds out which descriptors from 3 on a container gets: first the
// sockets of LISTEN_FDS (sd_listen_fds(3)) if they are meant for this process,
// then n more. Engines differ in whether their n includes the sockets: where
// so many are not open, it does.
func Preserved(n int) (listen, all int, err error) {
	if listen, err = listenFds(); err != nil {
		return 0, 0, err
	}
	if all, err = preservable(n, listen); err != nil {
		return 0, 0, err
	}
	return listen, all, nil
}

// PreservedExec is the same for a command in a container, which gets no
// sockets: it is not process 1.
func PreservedExec(n int) (int, error) { return preservable(n, 0) }

func preservable(n, listen int) (all int, err error) {
	if n < 0 || n > maxPreserved {
		return 0, fmt.Errorf("--preserve-fds: %d is not a number from 0 to %d", n, maxPreserved)
	}
	all = listen + n
	if listen > 0 && missing(all) != 0 {
		all = max(listen, n)
	}
	if fd := missing(all); fd != 0 && fd < launch.FirstPreserved+listen {
		return 0, fmt.Errorf("LISTEN_FDS=%d: descriptor %d is not open", listen, fd)
	} else if fd != 0 {
		return 0, fmt.Errorf("--preserve-fds: descriptor %d is not open", fd)
	}
	for fd := launch.FirstPreserved; fd < launch.FirstPreserved+all; fd++ {
		unix.CloseOnExec(fd) // for the container, and for no other child of ours
	}
	return all, nil
}

// missing is the first of n descriptors that the caller did not leave us, 0 if
// all are there.
func missing(n int) int {
	for fd := launch.FirstPreserved; fd < launch.FirstPreserved+n; fd++ {
		if !launch.Inherited(fd) {
			return fd
		}
	}
	return 0
}

func listenFds() (int, error) {
	value := os.Getenv("LISTEN_FDS")
	if value == "" || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > maxPreserved {
		return 0, fmt.Errorf("LISTEN_FDS: %q is not a number from 0 to %d", value, maxPreserved)
	}
	return n, nil
}

// announce tells the app of its sockets. It is process 1, as far as it can see.
func announce(process *specs.Process, listen int) {
	if process != nil && listen > 0 {
		process.Env = append(process.Env, "LISTEN_FDS="+strconv.Itoa(listen), "LISTEN_PID=1")
	}
}
