// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// ExecOptions are one command more in a running container.
type ExecOptions struct {
	Process       *specs.Process
	Detach        bool   // leave when it runs
	ConsoleSocket string // gets the master of its terminal
	PidFile       string
	PidfdSocket   string            // gets its pidfd
	IgnorePaused  bool              // wait for resume
	Preserve      int               // so many of our descriptors from 3 on are its too
	Below         map[string]string // groups below the container's, by v1 controller or by ""
	Libexec       string
}

// ReadProcess reads the process document of exec --process. What it does not
// say of labels and limits is the container's: an engine that leaves them out
// does not mean a process without.
func ReadProcess(name string, own *specs.Process) (*specs.Process, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readAtMost(f, maxConfig)
	if err != nil {
		return nil, err
	}
	p, err := decodeProcess(b, own)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return p, nil
}

func decodeProcess(b []byte, own *specs.Process) (*specs.Process, error) {
	p := &specs.Process{}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, err
	}
	inherit(p, own)
	return p, nil
}

// inherit fills in what a document leaves out.
func inherit(p, own *specs.Process) {
	if p.Capabilities == nil {
		p.Capabilities = own.Capabilities
	}
	if len(p.Rlimits) == 0 {
		p.Rlimits = own.Rlimits
	}
	if p.ApparmorProfile == "" && p.SelinuxLabel == "" {
		p.ApparmorProfile, p.SelinuxLabel = own.ApparmorProfile, own.SelinuxLabel
	}
	if p.OOMScoreAdj == nil {
		p.OOMScoreAdj = own.OOMScoreAdj
	}
	if p.Scheduler == nil {
		p.Scheduler = own.Scheduler
	}
	if p.IOPriority == nil {
		p.IOPriority = own.IOPriority
	}
	if p.ExecCPUAffinity == nil {
		p.ExecCPUAffinity = own.ExecCPUAffinity
	}
	if p.User.Umask == nil {
		p.User.Umask = own.User.Umask
	}
}

// Exec runs a command in the container. Unless it is detached this process
// becomes its supervisor, on a locked main thread, and Exec returns on error
// only.
func (c *Container) Exec(ctx context.Context, o ExecOptions) error {
	switch {
	case o.Detach && o.Process.Terminal && o.ConsoleSocket == "":
		return errors.New("--detach with a terminal needs --console-socket to hand the terminal to")
	case o.ConsoleSocket != "" && !(o.Detach && o.Process.Terminal):
		return errors.New("--console-socket: needs --detach and a terminal (--tty, or process.terminal)")
	}
	if err := c.mayExec(o.IgnorePaused); err != nil {
		return err
	}
	spec, err := c.Spec()
	if err != nil {
		return err
	}
	own, err := launch.OwnUserns()
	if err != nil {
		return err
	}
	s, err := launch.Exec(ctx, launch.ExecRequest{
		ID: c.ID, Bundle: c.Bundle, Spec: spec, Process: o.Process, Cgroups: c.Cgroups,
		Status: stage1.Status{Pid: c.Pid, Start: c.Start, Boot: c.Boot},
		Given:  true, Outlive: o.Detach, Terminal: o.Process.Terminal, Stdin: true, PidFile: o.PidFile,
		Preserve: o.Preserve, Libexec: o.Libexec, RunDir: c.root.Dir + "-cache", Below: o.Below, Userns: own, Adopt: c.adopt(own),
	})
	if errors.Is(err, launch.ErrNotRunning) {
		return fmt.Errorf("container %q ended meanwhile", c.ID)
	}
	if err != nil {
		return launch.InSection(err)
	}
	if err := sendPidfd(o.PidfdSocket, "setns", s.Pidfd); err != nil {
		s.Release()
		return err
	}
	if !o.Detach {
		return s.Supervise()
	}
	if s.Pty == nil {
		return nil
	}
	if err := sendConsole(o.ConsoleSocket, s.Pty); err != nil {
		s.Release()
		return fmt.Errorf("--console-socket %s: %w", o.ConsoleSocket, err)
	}
	return nil
}

// mayExec tells why a command cannot run in the container now.
func (c *Container) mayExec(ignorePaused bool) error {
	status, err := c.Status()
	switch {
	case err != nil:
		return err
	case status == specs.StateRunning, status == StatusPaused && ignorePaused:
		return nil
	case status == StatusPaused:
		return fmt.Errorf("container %q is paused: resume it, or use --ignore-paused to wait for that", c.ID)
	}
	return fmt.Errorf("container %q is %s, not %s", c.ID, status, specs.StateRunning)
}
