// SPDX-License-Identifier: Apache-2.0

package stage1

// Message is what gantry-init sends up its sync socket. The end of the
// stream without an Error means that the app's execve succeeded.
type Message struct {
	Error *StepError `json:"error,omitempty"`
	// Pty comes with the master of the terminal as a descriptor.
	Pty bool `json:"pty,omitempty"`
	// Child comes with a pidfd of the process that becomes the app, when that
	// is not gantry-init itself.
	Child bool `json:"child,omitempty"`
	// Spent comes with a pidfd of a process that is made on the way and does not
	// become the app: the parent collects it.
	Spent bool `json:"spent,omitempty"`
	// Waits: gantry-init waits for the parent's permission to go on.
	Waits bool `json:"waits,omitempty"`
	// Created: everything is made, and a Hold waits for its start.
	Created bool `json:"created,omitempty"`
}

// ListenerSize is the length of the one message that is not encoded: the
// number, in the machine's byte order, that the listener of a filter has in
// the process that loaded it. The filter is in force by then, so it is sent by
// write(2), which programs need anyway, and without the descriptor, which the
// parent fetches. The process goes on when it has read ListenerTaken.
const (
	ListenerSize  = 4
	ListenerTaken = "taken"
)

// StepError says which step of a launch went wrong, on what, and why.
type StepError struct {
	Step  string `json:"step"`            // what was being done: "mount proc"
	Path  string `json:"path,omitempty"`  // on what
	Errno int    `json:"errno,omitempty"` // the kernel's answer
	Text  string `json:"text,omitempty"`  // ours, if it was not the kernel
	Code  int    `json:"code,omitempty"`  // exit status for the caller: 126, 127; 0 is our own failure
}
