// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/cgroups/systemd"
	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/stage1/launch"
)

// scope is the unit of a container that is being made. systemd makes the group
// for a process that is there: a holder, until the app is born in it.
type scope struct {
	manager *systemd.Manager
	want    systemd.Scope
	path    string
	libexec string
	user    bool // it is one of a user's systemd
	holder  *launch.Holder
	made    bool
}

// newScope reads a bundle for its unit and finds where its group will be. It
// makes nothing. Without --systemd-cgroup there is none, which nil is.
func newScope(o *CreateOptions, spec *specs.Spec, own *launch.Userns) (*scope, error) {
	if !o.Systemd {
		return nil, nil
	}
	s := &scope{libexec: o.Libexec, user: ofUser(own)}
	var err error
	if s.want.Name, err = systemd.ParseName(cgroupPath(spec), o.ID, s.user); err != nil {
		return nil, fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	if s.want.More, err = systemd.Annotated(spec.Annotations); err != nil {
		return nil, err
	}
	if s.want.V1, err = cgroups.Version1(); err != nil {
		return nil, err
	}
	if spec.Linux != nil {
		files, err := cgroups.Files(spec.Linux.Resources, s.want.V1)
		if err != nil {
			return nil, inBundle(spec, err)
		}
		for _, f := range files {
			if f.Name != "pids.max" || !cgroups.TightPids(spec.Linux.Resources) {
				s.want.Files = append(s.want.Files, systemd.File(f))
			}
		}
	}
	s.want.Description = "container " + o.ID
	if s.manager, err = openSystemd(s.user, ownerOf(own)); err != nil {
		return nil, fmt.Errorf("--systemd-cgroup: %w", err)
	}
	if s.path, err = s.manager.Path(s.want.Name); err != nil {
		s.manager.Close()
		return nil, fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	return s, nil
}

// ofUser tells whether the host's systemd is not ours to talk to: in a user
// namespace even root is a user.
func ofUser(own *launch.Userns) bool { return own != nil || os.Geteuid() != 0 }

func openSystemd(user bool, uid uint32) (*systemd.Manager, error) {
	if user {
		return systemd.OpenUser(uid)
	}
	return systemd.Open()
}

// systemdOfOwner is who makes our containers' units: nobody opens those of
// another user.
func systemdOfOwner() (*systemd.Manager, error) {
	own, err := launch.OwnUserns()
	if err != nil {
		return nil, err
	}
	return openSystemd(ofUser(own), ownerOf(own))
}

// start makes the unit, and makes sure that its group is the one on record.
func (s *scope) start() error {
	var err error
	if s.holder, err = launch.StartHolder(s.libexec); err != nil {
		return err
	}
	s.want.Pid = s.holder.Pid
	if err := s.manager.StartScope(s.want); err != nil {
		return fmt.Errorf("--systemd-cgroup: %w", err)
	}
	s.made = true
	return s.standing(s.holder.Pid)
}

func (s *scope) standing(pid int) error {
	at, err := cgroups.Tracked(pid)
	if err == nil && at != s.path {
		err = fmt.Errorf("systemd put process %d into %s, not into %s", pid, at, s.path)
	}
	return err
}

// born lets the holder go when the app's first process is in the group.
func (s *scope) born(pid int) error {
	err := s.standing(pid)
	s.holder.Release()
	return err
}

func (s *scope) close() {
	if s != nil {
		s.manager.Close()
	}
}

// record has the container remember the unit, and takes it back on failure, if
// it was made by us.
func (s *scope) record(c *Container, u *undo.Stack) {
	if s == nil {
		return
	}
	c.Unit = s.want.Unit
	u.Push(func() {
		if s.holder != nil {
			s.holder.Release()
		}
		if s.made {
			_ = s.manager.Stop(s.want.Unit)
		}
	})
}

// use has a launch be in the scope.
func (s *scope) use(r *launch.Request) {
	if s == nil {
		return
	}
	r.CgroupPath, r.CgroupMake, r.Cloned = s.path, s.start, s.born
	if s.user {
		r.Adopt = func(pid int) error { return s.manager.Attach(s.want.Unit, pid) }
	}
}

// adopt has a process that an exec made put into the unit of a user's systemd;
// nil where there is none.
func (c *Container) adopt(own *launch.Userns) func(pid int) error {
	if c.Unit == "" || !ofUser(own) {
		return nil
	}
	return func(pid int) error {
		m, err := systemdOfOwner()
		if err != nil {
			return err
		}
		defer m.Close()
		return m.Attach(c.Unit, pid)
	}
}

// stopUnit has systemd forget the container's unit. That it cannot be reached
// does not keep a container from being deleted: its group is removed anyway.
func (c *Container) stopUnit() {
	if c.Unit == "" {
		return
	}
	m, err := systemdOfOwner()
	if err == nil {
		defer m.Close()
		err = m.Stop(c.Unit)
	}
	if err != nil && c.root.Warn != nil {
		c.root.Warn("warning: " + err.Error())
	}
}

// tellUnit has systemd know limits as they now are, which were changed in the
// group: at its next reload it would write its own.
func (c *Container) tellUnit(r *specs.LinuxResources) error {
	if c.Unit == "" || r == nil {
		return nil
	}
	m, err := systemdOfOwner()
	if err != nil {
		return err
	}
	defer m.Close()
	var files []systemd.File
	for _, f := range cgroups.ReadFiles(cgroups.Existing(c.Cgroups), systemd.Names()) {
		files = append(files, systemd.File(f))
	}
	return m.SetLimits(c.Unit, files)
}
