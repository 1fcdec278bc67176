// SPDX-License-Identifier: Apache-2.0

package child

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/copyup"
	"github.com/gantryrun/gantry/internal/rootfs"
	"github.com/gantryrun/gantry/stage1"
)

var errOnProc = errors.New("target lies on procfs")

// newFS makes a file system and returns its detached mount. The kernel's own
// words, where it has any, are in the error.
func newFS(fstype, source string, options []string, attr uint64) (int, error) {
	ctx, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	if source != "" {
		if err := unix.FsconfigSetString(ctx, "source", source); err != nil {
			return -1, explain(ctx, err)
		}
	}
	if err := configure(ctx, options); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, explain(ctx, err)
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, int(attr))
}

// configure gives a file system context its options.
func configure(ctx int, options []string) error {
	for _, option := range options {
		key, value, valued := strings.Cut(option, "=")
		var err error
		if valued {
			err = unix.FsconfigSetString(ctx, key, value)
		} else {
			err = unix.FsconfigSetFlag(ctx, key)
		}
		if err != nil {
			return explain(ctx, err)
		}
	}
	return nil
}

// reconfigure gives the file system at fd other options.
func reconfigure(fd int, options []string) error {
	ctx, err := unix.Fspick(fd, "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(ctx)
	if err := configure(ctx, options); err != nil {
		return err
	}
	if err := unix.FsconfigReconfigure(ctx); err != nil {
		return explain(ctx, err)
	}
	return nil
}

// explain adds what the kernel logged in the file system context.
func explain(ctx int, err error) error {
	b := make([]byte, 512)
	n, rerr := unix.Read(ctx, b)
	if rerr != nil || n < 3 {
		return err
	}
	return errors.New(strings.TrimSpace(string(b[2:n])) + ": " + err.Error())
}

// setattr applies attributes to the mount fd is the root of.
func setattr(fd int, a stage1.Attr) error {
	if a.SetBelow|a.ClearBelow != 0 {
		below := unix.MountAttr{Attr_set: a.SetBelow, Attr_clr: a.ClearBelow}
		if err := setattrAt(fd, unix.AT_RECURSIVE, &below); err != nil {
			return err
		}
	}
	if a.Set|a.Clear != 0 {
		own := unix.MountAttr{Attr_set: a.Set, Attr_clr: a.Clear}
		if err := setattrAt(fd, 0, &own); err != nil {
			return err
		}
	}
	if a.Propagation == 0 {
		return nil
	}
	flags := uint(0)
	if a.PropagateBelow {
		flags = unix.AT_RECURSIVE
	}
	return setattrAt(fd, flags, &unix.MountAttr{Propagation: a.Propagation})
}

func setattrAt(fd int, flags uint, attr *unix.MountAttr) error {
	// The access time modes are one field: setting one means clearing all.
	if attr.Attr_set&unix.MOUNT_ATTR__ATIME != 0 || attr.Attr_clr&unix.MOUNT_ATTR__ATIME != 0 {
		attr.Attr_clr |= unix.MOUNT_ATTR__ATIME
	}
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|flags, attr)
}

// mount makes a file system and attaches it.
func (w *walk) mount(m *stage1.Mount) *stage1.StepError {
	attr := m.Attr.Set
	if m.CopyUp {
		attr &^= unix.MOUNT_ATTR_RDONLY // until it is filled
	}
	fd, err := newFS(m.Type, m.Source, m.Options, attr)
	if err == unix.EPERM && m.Else > 0 {
		attr := stage1.Attr{SetBelow: m.Attr.Set, Propagation: unix.MS_PRIVATE, PropagateBelow: true}
		if m.Type == "sysfs" {
			attr.SetBelow |= unix.MOUNT_ATTR_RDONLY
		}
		if serr := w.bind(&stage1.Bind{FD: m.Else - 1, Target: m.Target, Attr: attr, OnProc: m.Type == "proc"}); serr != nil {
			return serr
		}
		return failed("mount "+m.Type, m.Target, w.keep(m, w.source(m.Else-1)))
	}
	if err != nil {
		if m.Optional {
			return nil
		}
		return failed("mount "+m.Type, m.Target, err)
	}
	defer unix.Close(fd)
	after := m.Attr
	after.Set = 0
	if err := setattr(fd, after); err != nil {
		return failed("set attributes of "+m.Type, m.Target, err)
	}
	if err := label(fd, m.Label); err != nil {
		return failed("label "+m.Type, m.Target, err)
	}
	target, made, err := w.mountPoint(m.Target, m.Plain)
	if err != nil {
		return failed("mount "+m.Type, m.Target, err)
	}
	defer unix.Close(target)
	if m.Yield {
		if own, err := w.onRoot(target); err != nil || !own {
			return failed("mount "+m.Type, m.Target, err)
		}
	}
	// A directory that the image lacks has no mode to hand on.
	if m.CopyUp && !made {
		if err := copyup.Fill(target, fd, hasMode(m.Options)); err != nil {
			return failed("copy image content", m.Target, err)
		}
	}
	if err := setattr(fd, stage1.Attr{Set: m.Attr.Set &^ attr}); err != nil {
		return failed("set attributes of "+m.Type, m.Target, err)
	}
	if err := unix.MoveMount(fd, "", target, "", fdToFd); err != nil {
		return failed("mount "+m.Type, m.Target, err)
	}
	return failed("mount "+m.Type, m.Target, w.keep(m, fd))
}

// label gives the root of a mount an SELinux label, if there is one to give.
func label(mount int, label string) error {
	if label == "" {
		return nil
	}
	// A mount's descriptor only names it.
	fd, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsetxattr(fd, "security.selinux", []byte(label), 0)
}

// kept is a file system of the kernel's that was mounted here.
type kept struct {
	target string
	fd     int
}

// keep keeps a duplicate of a mount of procfs or sysfs.
func (w *walk) keep(m *stage1.Mount, fd int) error {
	if m.Type != "proc" && m.Type != "sysfs" {
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		w.kept = append(w.kept, kept{m.Target, fd})
	}
	return err
}

// open finds what a path of the bundle names. What lies on procfs or sysfs is
// looked up from that mount: a directory of the root that is exchanged for a
// link meanwhile cannot have something else be hidden or made read-only
// (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642).
func (w *walk) open(path string) (int, error) {
	for i := len(w.kept) - 1; i >= 0; i-- {
		k := w.kept[i]
		if rest, ok := strings.CutPrefix(path, strings.TrimSuffix(k.target, "/")+"/"); ok {
			return rootfs.OpenAt(k.fd, rest, unix.O_PATH, 0)
		}
	}
	return rootfs.OpenAt(w.root, path, unix.O_PATH, 0)
}

// hasMode tells whether options say what the mode of the root directory is.
func hasMode(options []string) bool {
	for _, option := range options {
		if strings.HasPrefix(option, "mode=") {
			return true
		}
	}
	return false
}

// mountPoint opens a directory of the root to mount on, making it if it is
// missing.
func (w *walk) mountPoint(path string, plain bool) (fd int, made bool, err error) {
	open := rootfs.OpenAt
	if plain {
		open = rootfs.OpenPlainAt
	}
	fd, err = open(w.root, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT {
		dir, mkErr := rootfs.MkdirAllAt(w.root, path, 0o755)
		if mkErr != nil {
			return -1, false, mkErr
		}
		_ = unix.Close(dir)
		made = true
		fd, err = open(w.root, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if err == unix.ELOOP && plain {
		return -1, made, errors.New("is a symbolic link in the image")
	}
	if err == nil && !plain {
		err = refuseProc(fd)
	}
	return fd, made, err
}

// refuseProc keeps mounts away from procfs whatever path led there: hiding
// its files is how labels and masks were faked (CVE-2019-16884).
func refuseProc(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		return errOnProc
	}
	return nil
}

// bind attaches a mount the parent donated, onto a directory or file after
// its own kind.
func (w *walk) bind(b *stage1.Bind) *stage1.StepError {
	fd := w.source(b.FD)
	if b.Sub != "" {
		below, serr := takeBelow(fd, b)
		if serr != nil {
			return serr
		}
		defer unix.Close(below)
		fd = below
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return failed("bind", b.Target, err)
	}
	if err := setattr(fd, b.Attr); err != nil {
		return failed("set attributes of bind", b.Target, err)
	}
	target, err := w.bindPoint(b, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return failed("bind", b.Target, err)
	}
	defer unix.Close(target)
	if b.CopyUp || b.Yield {
		own, err := w.onRoot(target)
		if err != nil || b.Yield && !own {
			return failed("bind", b.Target, err)
		}
		if err := w.copyUp(b, target, fd, own); err != nil {
			return failed("copy image content", b.Target, err)
		}
	}
	return failed("bind", b.Target, unix.MoveMount(fd, "", target, "", fdToFd))
}

// onRoot tells whether what is open lies on the root's own mount, not on one
// that was made on it.
func (w *walk) onRoot(fd int) (bool, error) {
	var at, root unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &at); err != nil {
		return false, err
	}
	err := unix.Statx(w.root, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &root)
	return at.Mnt_id == root.Mnt_id, err
}

// copyUp fills a mount with what the image has at its target. Where another
// mount hides that, a clone of the root without its mounts shows it: what the
// user has mounted there is not the image's.
func (w *walk) copyUp(b *stage1.Bind, target, to int, own bool) error {
	if !b.CopyUp {
		return nil
	}
	if own {
		return copyup.Fill(target, to, false)
	}
	bare, err := unix.OpenTree(w.root, "", cloneMount)
	if err != nil {
		return err
	}
	defer unix.Close(bare)
	from, err := rootfs.OpenAt(bare, b.Target, unix.O_PATH|unix.O_DIRECTORY, 0)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return copyup.Fill(from, to, false)
}

// takeBelow makes a detached mount of what lies below another. It is found by
// the kernel with the other as its root, and cloned by its descriptor: a link
// in it, or one that is swapped in meanwhile, leads nowhere else
// (CVE-2017-1002101). A detached mount can be cloned since Linux 6.15; before,
// it has to be attached for the moment.
func takeBelow(fd int, b *stage1.Bind) (int, *stage1.StepError) {
	step := "open subpath " + b.Sub + " for"
	if err := setattr(fd, stage1.Attr{Propagation: unix.MS_PRIVATE, PropagateBelow: true}); err != nil {
		return -1, failed(step, b.Target, err)
	}
	if err := attachOnRoot(fd); err != nil {
		return -1, failed(step, b.Target, err)
	}
	below, err := rootfs.OpenAt(fd, b.Sub, unix.O_PATH, 0)
	clone := -1
	if err == nil {
		clone, err = unix.OpenTree(below, "", cloneMount|unix.AT_RECURSIVE)
		_ = unix.Close(below)
	}
	if detachErr := detach(fd); err == nil {
		err = detachErr
	}
	return clone, failed(step, b.Target, err)
}

func (w *walk) bindPoint(b *stage1.Bind, dir bool) (int, error) {
	if dir {
		fd, _, err := w.mountPoint(b.Target, false)
		if err == unix.ENOTDIR {
			err = errors.New("a directory cannot be mounted on a file")
		}
		return fd, err
	}
	fd, err := rootfs.CreateAt(w.root, b.Target, 0o644)
	if err == nil && isDirectory(fd) {
		_ = unix.Close(fd)
		return -1, errors.New("a file cannot be mounted on a directory")
	}
	if err == nil && !b.OnProc {
		err = refuseProc(fd)
	}
	return fd, err
}

func isDirectory(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// readOnly puts a read-only clone of a path over it.
func (w *walk) readOnly(s *stage1.ReadOnly) *stage1.StepError {
	target, err := w.open(s.Path)
	if absent(err) {
		return nil
	}
	if err != nil {
		return failed("make read-only", s.Path, err)
	}
	defer unix.Close(target)
	fd, err := unix.OpenTree(target, "", cloneMount|unix.AT_RECURSIVE)
	if err != nil {
		return failed("make read-only", s.Path, err)
	}
	defer unix.Close(fd)
	if err := setattr(fd, stage1.Attr{SetBelow: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return failed("make read-only", s.Path, err)
	}
	return failed("make read-only", s.Path, unix.MoveMount(fd, "", target, "", fdToFd))
}

// mask puts nothing over a path: an empty directory over a directory,
// /dev/null over anything else.
func (w *walk) mask(s *stage1.Mask) *stage1.StepError {
	target, err := w.open(s.Path)
	if absent(err) {
		return nil
	}
	if err != nil {
		return failed("mask", s.Path, err)
	}
	defer unix.Close(target)
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return failed("mask", s.Path, err)
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	return failed("mask", s.Path, w.cover(target, dir))
}

// cover puts nothing over target. The first mount that hides directories, or
// files, is moved there itself and later ones are its clones: before Linux
// 6.15 only what is attached can be cloned.
func (w *walk) cover(target int, dir bool) error {
	kept, fresh := &w.null, nullDevice
	if dir {
		kept, fresh = &w.empty, w.emptyDir
	}
	if *kept < 0 {
		fd, err := fresh()
		if err != nil {
			return err
		}
		if err := unix.MoveMount(fd, "", target, "", fdToFd); err != nil {
			_ = unix.Close(fd)
			return err
		}
		*kept = fd
		return nil
	}
	fd, err := unix.OpenTree(*kept, "", cloneMount)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", target, "", fdToFd)
}

func absent(err error) bool {
	return err == unix.ENOENT || err == unix.ENOTDIR
}

// nullDevice is a detached mount of the null device. What is bound over /proc
// files is that or nothing: a link in its place would expose what it should
// hide (CVE-2025-31133).
func nullDevice() (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/dev/null", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return -1, errors.New("/dev/null is not the null device")
	}
	return fd, setattr(fd, stage1.Attr{
		Set:         unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC,
		Clear:       unix.MOUNT_ATTR_NODEV,
		Propagation: unix.MS_PRIVATE,
	})
}

// emptyDir is a detached mount of a directory with nothing in it.
func (w *walk) emptyDir() (int, error) {
	options := []string{"size=0", "nr_inodes=1", "mode=0555"}
	if w.plan.Context != "" {
		options = append(options, w.plan.Context)
	}
	return newFS("tmpfs", "tmpfs", options,
		unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}
