// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"cmp"
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

// rootMap says how the owners of the root file system's files are shown.
func (p *planner) rootMap() (*stage1.MountMap, error) {
	switch {
	case !p.o.Root.Mapped:
		return nil, nil
	case !p.makes(specs.UserNamespace):
		return nil, errors.New("linux.namespaces: the ids of a root file system are mapped for a new user namespace only")
	}
	return &stage1.MountMap{UIDs: idMaps(p.linux.UIDMappings), GIDs: idMaps(p.linux.GIDMappings)}, nil
}

// userNamespaces are those made for the mounts of one launch, which mostly
// have the same maps: each takes a process.
type userNamespaces map[string]*os.File

// show has a detached mount show other owners, if its source is to. That takes
// the rights of the user namespace the file system was mounted in, which are
// the host's.
func (u userNamespaces) show(h *hold, mount *os.File, s stage1.Source) error {
	if s.Map == nil {
		return nil
	}
	users, err := u.of(h, s.Map)
	if err == nil {
		err = mapMount(mount, users, s.Map.Below)
	}
	if err != nil {
		return &SourceError{cmp.Or(s.Path, "the image's root"), s.For, err}
	}
	return nil
}

func (u userNamespaces) of(h *hold, m *stage1.MountMap) (*os.File, error) {
	key := fmt.Sprint(m.Path, m.UIDs, m.GIDs)
	if f := u[key]; f != nil {
		return f, nil
	}
	f, err := h.file(userNamespace(m))
	if err == nil {
		u[key] = f
	}
	return f, err
}

func mapMount(mount, users *os.File, below bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if below {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	err := unix.MountSetattr(int(mount.Fd()), "", flags, &attr)
	switch err {
	case unix.EINVAL:
		return &unmappable{err}
	case unix.EPERM:
		return fmt.Errorf("map ids: only the root of its file system's user namespace may, and not twice (mount_setattr: %w)", err)
	case nil:
		return nil
	}
	return fmt.Errorf("map ids: %w", err)
}

// unmappable is a file system that this kernel cannot show with other owners.
type unmappable struct{ err error }

func (e *unmappable) Error() string {
	return fmt.Sprintf("map ids: its file system cannot (mount_setattr: %v)", e.err)
}

func (e *unmappable) Unwrap() error { return e.err }

func (e *unmappable) Hint() string {
	return "ext4, xfs, btrfs and tmpfs can, EROFS and overlays of them since Linux 6.1: 'gantry check' tells of this host"
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

// CanMapIDs says why the files of a directory cannot be shown with other
// owners, or nil.
func CanMapIDs(dir string) error {
	var h hold
	defer h.Run()
	f, err := h.file(cloneMount(dir, false))
	if err != nil {
		return err
	}
	ids := []stage1.IDMap{{Container: 0, Host: 1, Size: 1}}
	users, err := h.file(userNamespace(&stage1.MountMap{UIDs: ids, GIDs: ids}))
	if err != nil {
		return err
	}
	return mapMount(f, users, false)
}
