// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
)

// Descriptors donated to a detached gantry.
const (
	readyFD = 3
	lockFD  = 4
)

func runDetached(ctx context.Context, e Env, ref string, o RunOptions) (string, error) {
	if o.Preserve > 0 {
		return "", hint.With(errors.New("--preserve-fds and --detach contradict each other: the descriptors are this process's"), "run it in the foreground")
	}
	if o.LogDriver == "" {
		o.LogDriver = stage1.LogToFile
	}
	e.glanceOver()
	var u undo.Stack
	defer u.Run()
	r, err := e.make(ctx, ref, o, &u, false)
	if err != nil {
		return "", err
	}
	r.root.close() // the other process proves and mounts for itself
	// Warnings were given here already; the other process would repeat them.
	if err := e.detach(r.pod, LaunchOptions{PidFile: o.PidFile, Notes: o.Notes}); err != nil {
		return "", err
	}
	u.Release()
	return r.pod.UUID, r.pod.Close()
}

// outcome is what a detached gantry tells the one that started it, as one
// line of JSON. Silence means that it died.
type outcome struct {
	Ready   bool   `json:"ready,omitempty"`
	Note    string `json:"note,omitempty"`
	Warning string `json:"warning,omitempty"`
	Error   string `json:"error,omitempty"`
	Hint    string `json:"hint,omitempty"`
	Code    int    `json:"code,omitempty"`
}

// launchError is a detached gantry's failure, as if it were our own.
type launchError struct{ outcome }

func (e *launchError) Error() string { return e.outcome.Error }
func (e *launchError) Hint() string  { return e.outcome.Hint }
func (e *launchError) ExitCode() int {
	if e.Code == 0 {
		return 125
	}
	return e.Code
}

// detach starts a gantry in a session of its own that owns the pod and runs
// it. The lock goes with the descriptor: at no moment is the pod anybody
// else's. It returns when the app runs.
func (e Env) detach(p *pod.Pod, o LaunchOptions) error {
	args := append(e.Args(), "run-prepared", fmt.Sprintf("--ready-fd=%d", readyFD), fmt.Sprintf("--lock-fd=%d", lockFD))
	if o.PidFile != "" {
		args = append(args, "--pidfile="+o.PidFile)
	}
	// Its output is the app's only when the app's goes through.
	var out *os.File
	if passesThrough(p) {
		out = os.Stdout
	}
	return spawn(append(args, p.UUID), []*os.File{p.File()}, out, o)
}

// spawn starts another gantry in a session of its own, with a pipe to report
// on and then the given files, and returns when it says that what it was
// started for runs. out, when not nil, stands for its output and errors.
func spawn(args []string, files []*os.File, out *os.File, o LaunchOptions) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find our own executable: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(exe, args...)
	cmd.ExtraFiles = append([]*os.File{w}, files...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out != nil {
		cmd.Stdout, cmd.Stderr = out, os.Stderr
	}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	if err := hear(r, o); err != nil {
		_ = cmd.Wait() // it ends by itself, and takes back what it made
		return err
	}
	return cmd.Process.Release()
}

func passesThrough(p *pod.Pod) bool {
	var l launchFile
	err := readJSON(p, stage1.AppsDir+"/"+appName+"/"+launchName, maxConfig, launchVersion, &l)
	return err == nil && l.LogDriver == stage1.LogPassthrough
}

// hear reads outcomes until the app runs or cannot.
func hear(r io.Reader, o LaunchOptions) error {
	dec := json.NewDecoder(r)
	for {
		var said outcome
		if err := dec.Decode(&said); err != nil {
			return errors.New("the supervisor died before the app ran")
		}
		switch {
		case said.Ready:
			return nil
		case said.Error != "":
			return &launchError{said}
		case said.Note != "" && o.Notes != nil:
			o.Notes(said.Note)
		case said.Warning != "" && o.Warn != nil:
			o.Warn(said.Warning)
		}
	}
}

// readiness is the other end: where a detached gantry reports.
type readiness struct{ f *os.File }

// reporter takes over the donated descriptor; nil when there is none.
func reporter(fd int) (*readiness, error) {
	if fd == 0 {
		return nil, nil
	}
	// The app must not get it.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("--ready-fd %d: %w", fd, err)
	}
	return &readiness{os.NewFile(uintptr(fd), "ready")}, nil
}

func (r *readiness) send(o outcome) error {
	b, err := encode(o)
	if err != nil {
		return err
	}
	_, err = r.f.Write(b)
	return err
}

func (r *readiness) ready() error {
	// A caller that is gone does not matter any more than a closed terminal.
	_ = r.send(outcome{Ready: true})
	return r.f.Close()
}

func (r *readiness) note(s string) { _ = r.send(outcome{Note: s}) }
func (r *readiness) warn(s string) { _ = r.send(outcome{Warning: s}) }

// fail passes an error on with all that a command line prints of it.
func (r *readiness) fail(err error) {
	o := outcome{Error: err.Error()}
	o.Hint = hint.Of(err)
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		o.Code = coded.ExitCode()
	}
	_ = r.send(o)
	_ = r.f.Close()
}
