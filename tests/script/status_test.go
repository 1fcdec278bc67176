// SPDX-License-Identifier: Apache-2.0

package script

import (
	"os/exec"
	"syscall"
)

// signalStatus is what a shell would show for a program that a signal ended.
func signalStatus(e *exec.ExitError) int {
	if status, ok := e.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return -1
}
