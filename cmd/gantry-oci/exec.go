// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/stage1/container"
)

// execFlags say what to run: a document, or what is other than in the
// container's own process.
type execFlags struct {
	container.ExecOptions
	document          string
	tty, noNewPrivs   bool
	cwd, user         string
	env, caps, cgroup []string
	gids              []uint
	apparmor, label   string
	preserve          int
	set               func(flag string) bool
}

func (o *execFlags) register(f *pflag.FlagSet) {
	f.StringVarP(&o.document, "process", "p", "", "run what `FILE` says, a JSON process of runtime-spec")
	f.BoolVarP(&o.tty, "tty", "t", false, "give it a terminal")
	f.BoolVarP(&o.Detach, "detach", "d", false, "leave when it runs")
	f.StringVar(&o.ConsoleSocket, "console-socket", "", "hand the terminal to who listens on `SOCKET`; with --detach")
	f.StringVar(&o.PidFile, "pid-file", "", "write the process's number to `FILE`")
	f.StringVar(&o.cwd, "cwd", "", "run it in `DIR` of the container")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set `NAME=VALUE`")
	f.StringVarP(&o.user, "user", "u", "", "run it as `UID[:GID]`, numbers")
	f.UintSliceVarP(&o.gids, "additional-gids", "g", nil, "add a group `GID`, a number")
	f.StringSliceVarP(&o.caps, "cap", "c", nil, "add a `CAPABILITY`")
	f.StringVar(&o.apparmor, "apparmor", "", "confine it by AppArmor `PROFILE`")
	f.StringVar(&o.label, "process-label", "", "label it with SELinux `LABEL`")
	f.BoolVar(&o.noNewPrivs, "no-new-privs", false, "no program it executes gains privileges")
	f.BoolVar(&o.IgnorePaused, "ignore-paused", false, "in a paused container, wait for resume")
	f.StringArrayVar(&o.cgroup, "cgroup", nil, "put it into the group `[CONTROLLER:]PATH` below the container's own; controllers on cgroup v1 only")
	f.IntVar(&o.preserve, "preserve-fds", 0, "pass `N` descriptors from 3 on")
	f.StringVar(&o.PidfdSocket, "pidfd-socket", "", "hand the process's pidfd to who listens on `SOCKET`")
	o.set = f.Changed
}

// aFailedExec is the status when it is not the command's, as runc has it.
const aFailedExec = 255

// execError has a status of its own, unless its cause says that the command
// could not be executed.
type execError struct{ error }

func (e execError) Unwrap() error { return e.error }

func (e execError) ExitCode() int {
	var c interface{ ExitCode() int }
	if errors.As(e.error, &c) && c.ExitCode() != 125 {
		return c.ExitCode()
	}
	return aFailedExec
}

func execute(f *pflag.FlagSet) func(*call) error {
	o := &execFlags{}
	o.register(f)
	return func(c *call) error {
		if err := o.run(c); err != nil {
			return execError{fmt.Errorf("exec: %w", err)}
		}
		return nil
	}
}

func (o *execFlags) run(c *call) error {
	switch {
	case o.document == "" && len(c.args) < 2:
		return errors.New("needs a COMMAND, or --process FILE")
	case o.document != "" && len(c.args) > 1:
		return fmt.Errorf("--process says what to run, so COMMAND %q cannot", c.args[1])
	}
	var err error
	if o.Below, err = belowGroups(o.cgroup); err != nil {
		return err
	}
	if o.Preserve, err = container.PreservedExec(o.preserve); err != nil {
		return err
	}
	ct, err := c.store().Look(c.args[0])
	if err != nil {
		return err
	}
	defer ct.Close()
	spec, err := ct.Spec()
	if err != nil {
		return err
	}
	if o.Process, err = o.process(spec.Process, c.args[1:]); err != nil {
		return err
	}
	if o.Libexec, err = container.Libexec(); err != nil {
		return err
	}
	return ct.Exec(context.Background(), o.ExecOptions)
}

// belowGroups reads --cgroup as runc does: one path, or paths by controllers.
func belowGroups(flags []string) (map[string]string, error) {
	below := map[string]string{}
	for _, f := range flags {
		names, path, named := strings.Cut(f, ":")
		switch {
		case !named && len(flags) > 1:
			return nil, fmt.Errorf("--cgroup %q: of several, each needs its CONTROLLER:PATH", f)
		case !named:
			return map[string]string{"": f}, nil
		case strings.Contains(path, ":"):
			return nil, fmt.Errorf("--cgroup %q: is not CONTROLLER:PATH", f)
		}
		for name := range strings.SplitSeq(names, ",") {
			if _, twice := below[name]; twice || name == "" {
				return nil, fmt.Errorf("--cgroup %q: has no controller, or one for the second time", f)
			}
			below[name] = path
		}
	}
	return below, nil
}

func (o *execFlags) process(own *specs.Process, args []string) (*specs.Process, error) {
	if o.document == "" {
		return o.change(*own, args)
	}
	p, err := container.ReadProcess(o.document, own)
	if err != nil {
		return nil, fmt.Errorf("--process: %w", err)
	}
	p.Terminal = p.Terminal || o.tty
	return p, nil
}

// change makes the container's process into what the flags say.
func (o *execFlags) change(p specs.Process, args []string) (*specs.Process, error) {
	p.Args, p.Terminal, p.ConsoleSize = args, o.tty, nil
	p.Env = append(slices.Clone(p.Env), o.env...)
	if o.cwd != "" {
		p.Cwd = o.cwd
	}
	if o.set("no-new-privs") {
		p.NoNewPrivileges = o.noNewPrivs
	}
	if o.apparmor != "" {
		p.ApparmorProfile = o.apparmor
	}
	if o.label != "" {
		p.SelinuxLabel = o.label
	}
	p.Capabilities = withCaps(p.Capabilities, o.caps)
	return &p, o.changeUser(&p.User)
}

func (o *execFlags) changeUser(u *specs.User) error {
	if o.set("user") { // also an empty one, which is nobody's name (CVE-2026-30892)
		uid, gid, both := strings.Cut(o.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return fmt.Errorf("--user %q: is not UID or UID:GID; the runtime knows numbers only", o.user)
		}
		u.UID = uint32(n)
		if both {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return fmt.Errorf("--user %q: is not UID or UID:GID; the runtime knows numbers only", o.user)
			}
			u.GID = uint32(n)
		}
	}
	u.AdditionalGids = slices.Clone(u.AdditionalGids)
	for _, gid := range o.gids {
		if gid > math.MaxUint32 {
			return fmt.Errorf("--additional-gids %d: is out of range", gid)
		}
		u.AdditionalGids = append(u.AdditionalGids, uint32(gid))
	}
	return nil
}

// withCaps adds capabilities as runc does: to the ambient set only where the
// container passes capabilities on at all.
func withCaps(own *specs.LinuxCapabilities, add []string) *specs.LinuxCapabilities {
	if len(add) == 0 {
		return own
	}
	if own == nil {
		own = &specs.LinuxCapabilities{}
	}
	with := func(set []string) []string { return append(slices.Clone(set), add...) }
	c := &specs.LinuxCapabilities{
		Bounding: with(own.Bounding), Effective: with(own.Effective), Permitted: with(own.Permitted),
		Inheritable: own.Inheritable, Ambient: own.Ambient,
	}
	if own.Inheritable != nil {
		c.Ambient = with(own.Ambient)
	}
	return c
}
