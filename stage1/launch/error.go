// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"strings"
	"syscall"

	"github.com/gantryrun/gantry/stage1"
)

// ErrInterrupted means that a signal came before the app was cloned; nothing
// is left of the launch.
var ErrInterrupted = errors.New("interrupted before the app was started")

// Error is a launch that stopped at one step, inside the new namespaces.
type Error struct {
	stage1.StepError
}

// Error says what was being done, on what, and the kernel's answer.
func (e *Error) Error() string {
	text := e.Step
	if e.Path != "" {
		text += " " + e.Path
	}
	if e.Text != "" {
		text += ": " + e.Text
	}
	if e.Errno != 0 && !strings.HasSuffix(e.Text, syscall.Errno(e.Errno).Error()) {
		text += ": " + syscall.Errno(e.Errno).Error()
	}
	return text
}

// Unwrap gives the kernel's answer.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return syscall.Errno(e.Errno)
}

// Hint explains the one answer of execve that says least: the file is there and
// may be executed, but carries capabilities outside the bounding set.
func (e *Error) Hint() string {
	if e.Step == "execute" && syscall.Errno(e.Errno) == syscall.EPERM {
		return "the file may carry capabilities that the pod lacks (see getcap): give them with --cap-add"
	}
	return ""
}

// ExitCode is 126 or 127 for an app that could not be executed, as shells
// use them, else 125.
func (e *Error) ExitCode() int {
	if e.Code != 0 {
		return e.Code
	}
	return 125
}
