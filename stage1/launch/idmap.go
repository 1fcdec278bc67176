// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// idMap says how the owners of a bind mount are shown (config.md, Mounts): by
// the mount's own mappings, else by those of the container; nil: as they are.
func (p *planner) idMap(m specs.Mount, o mountOptions) (*stage1.MountMap, error) {
	given := len(m.UIDMappings)+len(m.GIDMappings) > 0
	switch {
	case !given && !o.idMap:
		return nil, nil
	case !o.bind && m.Type != "bind":
		return nil, errors.New("only a bind mount can be id-mapped")
	case given && len(m.UIDMappings) == 0:
		return nil, errors.New("uidMappings: are missing, gidMappings are there")
	case given && len(m.GIDMappings) == 0:
		return nil, errors.New("gidMappings: are missing, uidMappings are there")
	}
	out := &stage1.MountMap{Below: o.idMapBelow}
	if given {
		if err := checkMappings("uidMappings", m.UIDMappings); err != nil {
			return nil, err
		}
		out.UIDs, out.GIDs = idMaps(m.UIDMappings), idMaps(m.GIDMappings)
		return out, checkMappings("gidMappings", m.GIDMappings)
	}
	ns := namespaceOf(p.linux, specs.UserNamespace)
	if ns == nil {
		return nil, errors.New("option idmap: there are neither mappings for it nor a user namespace")
	}
	out.Path = ns.Path
	if ns.Path == "" {
		out.UIDs, out.GIDs = idMaps(p.linux.UIDMappings), idMaps(p.linux.GIDMappings)
	}
	return out, nil
}

// mapMount has a detached mount show other owners. It takes the rights of the
// user namespace the file system was mounted in, which are the host's.
func mapMount(h *hold, mount *os.File, m *stage1.MountMap) error {
	users, err := h.file(userNamespace(m))
	if err != nil {
		return err
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if m.Below {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	err = unix.MountSetattr(int(mount.Fd()), "", flags, &attr)
	switch err {
	case unix.EINVAL:
		return fmt.Errorf("map ids: its file system cannot (mount_setattr: %w)", err)
	case unix.EPERM:
		return fmt.Errorf("map ids: only the root of its file system's user namespace may, and not twice (mount_setattr: %w)", err)
	case nil:
		return nil
	}
	return fmt.Errorf("map ids: %w", err)
}

// userNamespace opens the namespace with a map, or makes one that nobody is
// in.
func userNamespace(m *stage1.MountMap) (*os.File, error) {
	if m.Path != "" {
		return openNamespace(stage1.Source{Namespace: string(specs.UserNamespace), Path: m.Path})
	}
	// The process is stopped by its execve, before it does anything, because it
	// has its parent trace it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"gantry-userns"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: sysMaps(m.UIDs), GidMappings: sysMaps(m.GIDs),
		GidMappingsEnableSetgroups: true, Ptrace: true, Pdeathsig: unix.SIGKILL,
	}})
	if err != nil {
		return nil, fmt.Errorf("make user namespace for its ids: %w", err)
	}
	defer reap(pid)
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
}
