// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ExecArg is the first argument of gantry-stage1 when it becomes a program of the
// host, which is named by the second, with the others as its arguments.
const ExecArg = "exec"

// Exec becomes a program that no signal is kept from.
func Exec(path string, args []string) error {
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[0]
	}
	// Not SIG_SETMASK: launch.freezeMasks.
	if err := unix.PthreadSigmask(unix.SIG_UNBLOCK, &all, nil); err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}

// foreign starts a program of the host. Ours has every signal blocked, to read
// them from a descriptor, which a child inherits: between the two stands a
// gantry-stage1 that takes that back. The launcher has none blocked.
func (s *supervisor) foreign(path string, args []string, attr *syscall.ProcAttr) (pid int, err error) {
	if s.brief {
		return syscall.ForkExec(path, args, attr)
	}
	// What can be said of it is said here, where somebody hears it.
	if err := unix.Access(path, unix.X_OK); err != nil { //nolint:forbidigo // the host's, as the user named it
		return 0, err
	}
	return syscall.ForkExec("/proc/self/exe", append([]string{"gantry-stage1", ExecArg, path}, args...), attr)
}
