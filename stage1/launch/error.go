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

// filterKilled tells of a gantry-init that would be waited for without end: it
// has several threads, of which a filter killed the first.
type filterKilled struct{}

func (filterKilled) Error() string {
	return "the seccomp filter killed the thread of gantry-init that was to execute the app"
}

// Hint says what the profile is to be changed to.
func (filterKilled) Hint() string {
	return "let execve and what the app begins with through, or have SCMP_ACT_KILL_PROCESS or SCMP_ACT_ERRNO instead of SCMP_ACT_KILL"
}

// foreignProc tells of a /proc that has other processes than ours.
type foreignProc struct{}

func (foreignProc) Error() string { return "/proc is not mounted, or is that of another pid namespace" }

// Hint says how it comes to be ours.
func (foreignProc) Hint() string {
	return "mount that of gantry's own pid namespace, as 'unshare --pid --fork --mount-proc' does"
}

// Hint explains the answers of the kernel that say least.
func (e *Error) Hint() string {
	errno := syscall.Errno(e.Errno)
	switch {
	case e.Step != "execute" && errno == syscall.ENOTDIR:
		return "the image has a file where a directory must be"
	case e.Step == "set OOM score" && errno == syscall.EACCES:
		return "only CAP_SYS_RESOURCE on the host lowers it below what gantry was started with (OOMScoreAdjust= in a unit)"
	// Nothing else refuses it: gantry-init locks none of its secure bits before.
	case e.Step == "keep capabilities" && errno == syscall.EPERM:
		return "the seccomp profile must allow what comes behind it: prctl, setgroups, setresgid, setresuid, capset and execve; with --security-opt no-new-privileges it is loaded last"
	case e.Step != "execute":
		return ""
	case errno == syscall.EPERM:
		return "the file may carry capabilities that the pod lacks (see getcap): give them with --cap-add"
	case errno == syscall.ENOEXEC:
		return "it is a program for another kind of machine, or a script without a first line that begins with #!"
	case errno == syscall.EACCES:
		return "it is no file, or not one that the app's user may execute: mode and owner are the image's"
	case e.Code == 127:
		return "commands are looked up in the image, by the app's own PATH; 'gantry image mount IMAGE DIR -- ls DIR/bin' looks inside"
	case e.Code == 126 && errno == syscall.ENOENT:
		return "the image must have what the script's first line names, or the loader that the program was linked for"
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
