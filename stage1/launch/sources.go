// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns"
	"github.com/gantryrun/gantry/stage1"
)

// openSources opens what a plan donates, in its order, but for kinds that are
// given, and mounts by their destinations. The caller closes what hold got.
func openSources(h *hold, plan stage1.Plan, given map[string]*os.File) ([]*os.File, error) {
	files := make([]*os.File, len(plan.Sources))
	users := userNamespaces{}
	for i, s := range plan.Sources {
		f, err := openSource(h, s, given, users)
		if err != nil {
			return nil, err
		}
		files[i] = f
	}
	return files, nil
}

// SourceError is a source of a mount that cannot be had.
type SourceError struct {
	Path, Target string
	Err          error
}

func (e *SourceError) Error() string {
	return fmt.Sprintf("open %s for %s: %v", e.Path, e.Target, e.Err)
}

func (e *SourceError) Unwrap() error { return e.Err }

// Hint explains why the kernel refuses root what root may do elsewhere.
func (e *SourceError) Hint() string {
	if errors.Is(e.Err, unix.EPERM) {
		return "mounts take CAP_SYS_ADMIN where gantry is, which a container or a unit may keep from root: 'gantry check' tells what can be had here"
	}
	return ""
}

// givenMount is the key of a mount that is given.
func givenMount(target string) string { return stage1.SourceMount + " " + target }

func openSource(h *hold, s stage1.Source, given map[string]*os.File, users userNamespaces) (*os.File, error) {
	if f := given[s.Kind]; f != nil {
		return f, users.show(h, f, s)
	}
	switch s.Kind {
	case stage1.SourceMount:
		f, err := given[givenMount(s.For)], error(nil)
		if f == nil {
			f, err = h.file(cloneMount(s.Path, s.Recursive))
		}
		if err != nil {
			return nil, &SourceError{s.Path, s.For, err}
		}
		return f, users.show(h, f, s)
	case stage1.SourcePreserved:
		f, err := h.file(preserved(s.Number))
		if err != nil {
			return nil, fmt.Errorf("preserve descriptor %d: %w", s.Number, err)
		}
		return f, nil
	}
	if s.Path == "" { // the network devices of the bundle go in first
		f, err := h.file(netns.New())
		if err != nil {
			return nil, fmt.Errorf("make network namespace: %w", err)
		}
		return f, nil
	}
	f, err := h.file(openNamespace(s))
	if err != nil {
		return nil, fmt.Errorf("%s.path: %w", s.For, err)
	}
	return f, nil
}

// cloneMount makes a detached clone of the mount at a path of the host.
func cloneMount(path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err == unix.EINVAL && !recursive {
		// Root of a user namespace cannot leave out what the host mounted below.
		fd, err = unix.OpenTree(unix.AT_FDCWD, path, flags|unix.AT_RECURSIVE)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openNamespace opens a namespace and makes sure that it is of the kind the
// bundle says.
func openNamespace(s stage1.Source) (*os.File, error) {
	f, err := os.Open(s.Path)
	if err != nil {
		return nil, err
	}
	want, err := namespaceKind(s.For, specs.LinuxNamespaceType(s.Namespace))
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := notOurs(s, f); err != nil {
		_ = f.Close()
		return nil, err
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || uint64(kind) != want {
		_ = f.Close()
		return nil, fmt.Errorf("%s is not a %s namespace", s.Path, s.Namespace)
	}
	return f, nil
}

// notOurs refuses a namespace that the bundle changes and that is the one we are
// in: by its path, that one is not the container's own (CVE-2022-0532).
func notOurs(s stage1.Source, f *os.File) error {
	if s.Changed == "" {
		return nil
	}
	ours, err := os.Stat("/proc/thread-self/ns/" + namespaceFile(s.Namespace))
	if err != nil {
		return err
	}
	found, err := f.Stat()
	if err != nil {
		return err
	}
	if os.SameFile(ours, found) {
		return fmt.Errorf("%s is the host's %s namespace, which %s would change", s.Path, s.Namespace, s.Changed)
	}
	return nil
}

// namespaceFile is the name of a kind of namespace in /proc/PID/ns.
func namespaceFile(kind string) string {
	switch specs.LinuxNamespaceType(kind) {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return kind
}

// openInit opens gantry-init on a read-only detached clone of its mount, so
// that nobody inside can open /proc/PID/exe for writing (CVE-2019-5736).
// Where the clone cannot be had, a sealed copy in memory does the same.
func openInit(libexec string) (*os.File, error) {
	path := filepath.Join(libexec, "gantry-init")
	f, err := cloneMount(path, false)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		return copyInit(path, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
		_ = f.Close()
		return copyInit(path, err)
	}
	return f, nil
}

// copyInit is for a program whose mount could not be cloned, for the reason
// given.
func copyInit(path string, reason error) (*os.File, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	f, err := memfile("gantry-init", unix.MFD_EXEC, b)
	if errors.Is(err, unix.EACCES) {
		err = fmt.Errorf("%w: vm.memfd_noexec=2 forbids programs in memory: set it to 1, or keep %s where its mount can be cloned", err, path)
	}
	if err != nil {
		return nil, fmt.Errorf("clone the mount of %s: %w; copy it: %w", path, reason, err)
	}
	defer f.Close()
	// Opened anew for reading: what somebody may write cannot be executed.
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}
