// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/stage1"
)

// Root is what / is made of: a detached tree mount or a directory, below a
// writable overlay if Upper and Work are given.
type Root struct {
	Lower       *os.File `json:"-"` // detached mount; stays the caller's
	Dir         string
	Upper, Work string
	// Mapped: the files of all of it are shown with the ids of the container's
	// user namespace, and keep those of the image where they lie.
	Mapped bool
}

// Given is the source of a mount that a path cannot name, or not safely.
type Given struct {
	Mount *os.File // detached; nil: what the bundle says. It stays the caller's
	Sub   string   // what of it is attached, looked up below it by gantry-init
}

// Request is one launch.
type Request struct {
	ID     string // names the cgroup: gantry-<ID>
	Spec   *specs.Spec
	Bundle string // where relative sources of mounts start
	Root   Root
	Given  map[string]Given `json:"-"` // by destination

	PodDir   string   // …/pods/run/<uuid>; empty: no pod, as for gantry-oci
	Lock     *os.File `json:"-"` // the pod directory, locked; inherited by the supervisor
	NameLink string   // unlinked when the pod is removed
	Unlink   []string // unlinked when the app ends: leases, which name the pod
	App      string
	Libexec  string
	RunDir   string // for the cache of filters

	Detached bool
	Terminal bool
	Stdin    bool
	Log      stage1.Log

	StopSignal  string
	StopTimeout time.Duration
	Timeout     time.Duration // the app is killed when it has run this long; 0: never
	Probe       []string      // a program, by its path and arguments, that probes the app's health; empty: none
	ProbeEvery  time.Duration // how often
	Remove      bool          // the pod goes when the app ends
	Init        bool
	Outlive     bool                         // no supervisor: the app does not die with its parent
	Hold        *os.File                     `json:"-"` // listening socket that Begin reaches; for Create
	Attended    bool                         // no such socket: whoever called Create stays, and calls Created.Begin
	Hooks       *Hooks                       `json:"-"` // hooks of the bundle are run; nil: they are refused
	CgroupMake  func() error                 `json:"-"` // makes the group of CgroupPath, once it is on record; nil: we do
	Cloned      func(pid int) error          `json:"-"` // told of gantry-init, before it does anything of note; for Create
	Adopt       func(pid int) error          `json:"-"` // puts gantry-init into its group where we may not; nil: there is nobody who could
	CgroupNone  bool                         // no group is made, and limits are refused
	CgroupMade  func() error                 `json:"-"` // told when there is a group of ours, before anybody is in it; nil with a PodDir
	CgroupPath  string                       // below the top of every hierarchy; empty: gantry-<ID> below our own group
	Record      func(cgroups []string) error `json:"-"` // told what may be made, before it is; nil with a PodDir
	PidFile     string
	Userns      *Userns         `json:"-"` // ours, if it is not the host's
	RootMount   func(id uint64) `json:"-"` // told which mount is attached at Root.Dir, before it is, when it is to be taken away by Unmount
	Preserve    int             // so many descriptors of ours, from FirstPreserved on, are the app's too
	Keyring     bool            // the app keeps our session keyring

	// Network attaches the pod's new network namespace while gantry-init mounts:
	// the app goes on when it has returned. It runs on a goroutine of its own, and
	// its context ends when the launch is given up. nil: there is nothing to attach.
	// For Start.
	Network     func(ctx context.Context, ns *os.File) (*Attached, error) `json:"-"`
	Lender      *Lender                                                   `json:"-"` // the pod whose network it joins
	NetworkHere bool                                                      // Network is called on our own thread: its children live as long as the supervisor that takes our place

	CgroupStrict map[string]bool
	Notes        func(string) `json:"-"`
	Ready        func() error `json:"-"` // called when the app's execve succeeded
}

// Started is an app that runs.
type Started struct {
	Pid   int
	Pidfd *os.File
	Pty   *os.File // master of the app's terminal, nil if it has none

	libexec  string
	contract stage1.Contract
	inherit  []*os.File // what the contract names
	back     func()     // takes everything back; for failures before Supervise
	signals  *signals
}

func (r *Request) appDir() string { return r.PodDir + "/" + stage1.AppsDir + "/" + r.App }

func (r *Request) planOptions(layout CgroupLayout) PlanOptions {
	o := PlanOptions{
		Bundle:   r.Bundle,
		Cgroups:  layout,
		Terminal: r.Terminal,
		Init:     r.Init,
		Outlive:  r.Outlive,
		Hold:     r.Hold != nil || r.Attended,
		Attended: r.Attended,
		Preserve: r.Preserve,
		Keyring:  r.Keyring,
		Network:  r.Network != nil,
		Userns:   r.Userns,
		Root: RootPlan{
			Tree: r.Root.Lower != nil, Dir: r.Root.Dir,
			Upper: r.Root.Upper, Work: r.Root.Work, Volatile: r.Remove, Mapped: r.Root.Mapped,
		},
	}
	for target, g := range r.Given {
		if g.Sub != "" {
			if o.Below == nil {
				o.Below = map[string]string{}
			}
			o.Below[target] = g.Sub
		}
	}
	if r.Hooks != nil {
		o.Container, o.Root.At = r.Hooks.ID, r.Hooks.Root
	}
	o.SELinux = r.Spec.Linux != nil && r.Spec.Linux.MountLabel != "" && SELinux()
	if r.Terminal {
		o.Rows, o.Columns = terminalSize(r.Spec.Process.ConsoleSize)
	}
	return o
}

// hold keeps files that are closed together when a launch fails, and in the
// parent when the child has them.
type hold struct {
	undo.Stack
}

func (h *hold) file(f *os.File, err error) (*os.File, error) {
	if err == nil {
		h.Push(func() { _ = f.Close() })
	}
	return f, err
}
