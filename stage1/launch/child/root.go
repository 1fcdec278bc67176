// SPDX-License-Identifier: Apache-2.0

package child

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/rootfs"
	"github.com/gantryrun/gantry/stage1"
)

const (
	cloneMount = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH
	fdToFd     = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
)

// makeRoot makes the new root and attaches it on top of /, where no mount
// point of the host has to be named or made. The process keeps the old root
// underneath until the pivot.
func (w *walk) makeRoot(r *stage1.Root) *stage1.StepError {
	// Opened by path in this mount namespace, before anything covers /: an
	// overlay takes no directory of another namespace.
	upper, work, serr := w.openUpper(r)
	if serr != nil {
		return serr
	}
	if serr := w.keepProc(); serr != nil {
		return serr
	}
	at, serr := openPlace(r.At)
	if serr != nil {
		return serr
	}
	if r.Shared {
		w.root = w.source(r.FD)
		return w.attachRoot(r, at)
	}
	if err := leaveChroot(); err != nil {
		return failed("leave chroot", "/", err)
	}
	private := unix.MountAttr{Propagation: r.HostPrivate}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &private); err != nil {
		return failed("make mounts private", "/", err)
	}
	lower, memory := w.source(r.FD), -1
	if r.In > 0 {
		// Attached like a lower one, which overlayfs refuses detached. A clone
		// of a shared mount is its peer: what is attached on top of it, as the
		// lower one is before 6.13, would be on the host as well.
		memory = w.source(r.In - 1)
		err := setattr(memory, stage1.Attr{Propagation: unix.MS_PRIVATE, PropagateBelow: true})
		if err == nil {
			err = attachOnRoot(memory)
		}
		if err != nil {
			return failed("attach upper directory", r.Upper, err)
		}
	}
	if upper < 0 && lacks(lower, r.Need) {
		memory, upper, work, serr = scratch()
		if serr != nil {
			return serr
		}
	}
	w.root = lower
	if upper >= 0 {
		w.root, serr = overlay(lower, upper, work, r)
		// They lie in the host's tree: nothing later may find them open.
		_, _ = unix.Close(upper), unix.Close(work)
		if serr != nil {
			return serr
		}
	}
	if memory >= 0 {
		if err := detach(memory); err != nil {
			return failed("detach what has the upper directory", "", err)
		}
	}
	return w.attachRoot(r, at)
}

func (w *walk) attachRoot(r *stage1.Root, at int) *stage1.StepError {
	if err := setattr(w.root, r.Attr); err != nil {
		return failed("set attributes of root", "/", err)
	}
	if at < 0 {
		return failed("attach root", "/", attachOnRoot(w.root))
	}
	defer unix.Close(at)
	return failed("attach root", r.At, unix.MoveMount(w.root, "", at, "", fdToFd))
}

// openPlace opens where the root is to be attached, -1 for /.
func openPlace(name string) (int, *stage1.StepError) {
	if name == "" {
		return -1, nil
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) //nolint:forbidigo // the bundle's, on the host, before anything foreign is mounted
	return fd, failed("open root", name, err)
}

// leaveChroot goes to the root of the mount namespace, which a caller in a
// chroot does not have as its own. pivot_root there would put the new root
// where the chroot was and leave the host's tree around it: an app that may
// chroot walks out, and who joins the namespace starts outside.
func leaveChroot() error {
	self, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(self)
	// Allowed only to a thread that shares its root with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	err = unix.Setns(self, unix.CLONE_NEWNS)
	if err == unix.EPERM {
		// It takes CAP_SYS_CHROOT. Who has none can neither give it to the
		// app nor join the namespace again.
		return nil
	}
	return err
}

func (w *walk) openUpper(r *stage1.Root) (upper, work int, serr *stage1.StepError) {
	if r.Upper == "" {
		return -1, -1, nil
	}
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	open := func(name string) (int, error) {
		if r.In > 0 {
			return unix.Openat(w.source(r.In-1), name, flags, 0)
		}
		return unix.Open(name, flags, 0) //nolint:forbidigo // ours, before anything foreign is mounted
	}
	upper, err := open(r.Upper)
	if err != nil {
		return -1, -1, failed("open upper directory", r.Upper, err)
	}
	work, err = open(r.Work)
	return upper, work, failed("open work directory", r.Work, err)
}

// lacks tells whether one of the mount points is missing below root.
func lacks(root int, need []string) bool {
	for _, path := range need {
		fd, err := rootfs.OpenAt(root, path, unix.O_PATH, 0)
		if err != nil {
			return true
		}
		_ = unix.Close(fd)
	}
	return false
}

// scratch makes an upper and a work directory in a private tmpfs, for a
// read-only root that lacks mount points. The tmpfs is attached: overlayfs
// refuses detached layers before 6.13. The overlay keeps it after a detach.
func scratch() (memory, upper, work int, serr *stage1.StepError) {
	const step = "make mount points in memory"
	memory, err := newFS("tmpfs", "tmpfs", []string{"mode=0755", "size=1m"}, 0)
	if err != nil {
		return -1, -1, -1, failed(step, "", err)
	}
	if err := attachOnRoot(memory); err != nil {
		return -1, -1, -1, failed(step, "", err)
	}
	if upper, err = rootfs.MkdirAllAt(memory, "upper", 0o755); err != nil {
		return -1, -1, -1, failed(step, "", err)
	}
	work, err = rootfs.MkdirAllAt(memory, "work", 0o755)
	return memory, upper, work, failed(step, "", err)
}

// overlay mounts upper over lower. Overlayfs takes a detached lower mount
// since 6.13; before, it has to be attached for the moment.
func overlay(lower, upper, work int, r *stage1.Root) (int, *stage1.StepError) {
	options := append([]string{
		"lowerdir=" + procFD(lower),
		"upperdir=" + procFD(upper),
		"workdir=" + procFD(work),
	}, r.Options...)
	fd, err := newFS("overlay", "overlay", options, 0)
	if err == nil {
		return fd, nil
	}
	if attachErr := attachOnRoot(lower); attachErr != nil {
		return -1, failed("mount overlay", "/", err)
	}
	forgetVolatile(work)
	fd, err = newFS("overlay", "overlay", options, 0)
	if detachErr := detach(lower); err == nil {
		err = detachErr
	}
	return fd, failed("mount overlay", "/", err)
}

// forgetVolatile removes the mark a volatile overlay leaves in its work
// directory, even when it could not be mounted: the next try would be refused
// for it.
func forgetVolatile(work int) {
	_ = unix.Unlinkat(work, "work/incompat/volatile/dirty", 0)
	for _, dir := range []string{"work/incompat/volatile", "work/incompat"} {
		_ = unix.Unlinkat(work, dir, unix.AT_REMOVEDIR)
	}
}

// procFD names a descriptor for overlayfs, which takes paths only.
func procFD(fd int) string { return "/proc/self/fd/" + itoa(fd) }

// attachOnRoot puts a detached mount on top of /.
func attachOnRoot(fd int) error {
	return unix.MoveMount(fd, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// detach takes away the topmost mount, which fd is the root of.
func detach(fd int) error {
	if err := unix.Fchdir(fd); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// pivot makes the new root the root of the mount namespace and lets go of the
// host's tree. pivot_root(".", ".") stacks the old root on the new one, so no
// directory is needed for it.
func (w *walk) pivot() *stage1.StepError {
	if err := unix.Fchdir(w.root); err != nil {
		return failed("enter root", "/", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return failed("pivot root", "/", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return failed("detach old root", "/", err)
	}
	return failed("enter root", "/", unix.Chdir("/"))
}

// chroot makes a root / for this process alone. It is no wall for who may
// chroot or mount; a bundle that wants one has a mount namespace of its own.
func (w *walk) chroot(c *stage1.Chroot) *stage1.StepError {
	if c.Donated {
		w.root = w.source(c.FD)
	}
	if err := unix.Fchdir(w.root); err != nil {
		return failed("enter root", "/", err)
	}
	return failed("change root", "/", unix.Chroot(".")) //nolint:forbidigo // the directory just entered by its descriptor
}

// remount changes a mount when everything is in place.
func (w *walk) remount(r *stage1.Remount) *stage1.StepError {
	if r.Path == "/" {
		return failed("set attributes of root", "/", setattr(w.root, r.Attr))
	}
	fd, err := rootfs.OpenAt(w.root, r.Path, unix.O_PATH, 0)
	if err != nil {
		return failed("remount", r.Path, err)
	}
	defer unix.Close(fd)
	if len(r.Options) > 0 {
		if err := reconfigure(fd, r.Options); err != nil {
			return failed("remount", r.Path, err)
		}
	}
	err = setattr(fd, r.Attr)
	if err == unix.EINVAL {
		err = errors.New("there is no mount to change")
	}
	return failed("remount", r.Path, err)
}

// join enters namespaces of another process, or one donated.
func (w *walk) join(j *stage1.Join) *stage1.StepError {
	if j.Kinds&unix.CLONE_NEWNS != 0 {
		if serr := w.keepProc(); serr != nil {
			return serr
		}
		// A thread may change its mount namespace only when it shares its
		// root and working directory with no other.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return failed("unshare root and working directory", "", err)
		}
	}
	if err := unix.Setns(w.source(j.FD), int(j.Kinds)); err != nil {
		source := w.plan.Sources[j.FD]
		if source.Kind == stage1.SourcePidfd {
			return failed("join namespaces of "+source.For, "", err)
		}
		return failed("join "+source.Namespace+" namespace", source.Path, err)
	}
	if j.Kinds&unix.CLONE_NEWNS != 0 {
		root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) //nolint:forbidigo // / itself has no link in it
		w.root = root
		return failed("open root", "/", err)
	}
	return nil
}
