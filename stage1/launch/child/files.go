// SPDX-License-Identifier: Apache-2.0

package child

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/rootfs"
	"github.com/gantryrun/gantry/stage1"
)

func (w *walk) mkdir(m *stage1.Mkdir) *stage1.StepError {
	fd, err := rootfs.MkdirAllAt(w.root, m.Path, m.Mode)
	if err != nil {
		return failed("make directory", m.Path, err)
	}
	return failed("make directory", m.Path, unix.Close(fd))
}

func (w *walk) symlink(s *stage1.Symlink) *stage1.StepError {
	parent, name, err := rootfs.ParentAt(w.root, s.Path)
	if err != nil {
		return failed("make link", s.Path, err)
	}
	defer unix.Close(parent)
	err = unix.Symlinkat(s.Target, parent, name)
	if err == unix.EEXIST {
		return nil
	}
	return failed("make link", s.Path, err)
}

// deviceType gives the file type bits of one of the specification's letters.
func deviceType(letter string) uint32 {
	switch letter {
	case "b":
		return unix.S_IFBLK
	case "p":
		return unix.S_IFIFO
	}
	return unix.S_IFCHR
}

func (w *walk) device(d *stage1.Device) *stage1.StepError {
	parent, name, err := rootfs.ParentAt(w.root, d.Path)
	if err != nil {
		return failed("make device", d.Path, err)
	}
	defer unix.Close(parent)
	kind, rdev := deviceType(d.Type), unix.Mkdev(d.Major, d.Minor)
	err = unix.Mknodat(parent, name, kind|d.Mode, int(rdev))
	if err == unix.EEXIST {
		err = sameDevice(parent, name, kind, rdev)
		if err == nil || !w.plan.Userns {
			return failed("make device", d.Path, err)
		}
		err = unix.EPERM // a file that an earlier bind was put on
	}
	if err == unix.EPERM && w.plan.Userns && kind != unix.S_IFIFO {
		return failed("bind device", d.Path, bindDevice(parent, name, d.Path, kind, rdev))
	}
	if err == nil && d.UID|d.GID != 0 {
		err = unix.Fchownat(parent, name, int(d.UID), int(d.GID), unix.AT_SYMLINK_NOFOLLOW)
	}
	return failed("make device", d.Path, err)
}

// bindDevice puts the host's node where root of a user namespace may make
// none. What is bound is the device that was asked for, or nothing.
func bindDevice(parent int, name, path string, kind uint32, rdev uint64) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != kind || st.Rdev != rdev {
		return errors.New("the host has something else there, and a user namespace allows no new nodes")
	}
	target, err := bindFile(parent, name)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := setattr(fd, stage1.Attr{Propagation: unix.MS_PRIVATE}); err != nil {
		return err
	}
	return unix.MoveMount(fd, "", target, "", fdToFd)
}

// bindFile makes an empty file to bind on, or takes the one that is there.
func bindFile(parent int, name string) (int, error) {
	fd, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o666)
	if err != unix.EEXIST {
		return fd, err
	}
	if fd, err = unix.Openat(parent, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return -1, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0) {
		err = errors.New("exists and is something else")
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// sameDevice accepts a node that is there already if it is the one wanted.
func sameDevice(parent int, name string, kind uint32, rdev uint64) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != kind || (kind != unix.S_IFIFO && st.Rdev != rdev) {
		return errors.New("exists and is something else")
	}
	return nil
}

// terminal opens a pty in the container's own devpts. The peer comes from the
// kernel by the master's descriptor, never by its name (CVE-2025-52565).
func (w *walk) terminal(t *stage1.Terminal) *stage1.StepError {
	master, err := rootfs.OpenPlainAt(w.root, "dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err == nil {
		err = isPtmx(master)
	}
	if err != nil {
		return failed("open terminal", "/dev/pts/ptmx", err)
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return failed("unlock terminal", "/dev/pts/ptmx", err)
	}
	peer, errno := ioctl(master, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return failed("open terminal", "/dev/pts", errno)
	}
	if serr := dressTerminal(master, peer, t); serr != nil {
		return serr
	}
	if t.Console {
		if err := w.console(peer); err != nil {
			return failed("bind terminal", "/dev/console", err)
		}
	}
	send(stage1.Message{Pty: true}, master)
	return failed("make controlling terminal", "", takeTerminal(peer, !t.Apart))
}

func isPtmx(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC || st.Rdev != unix.Mkdev(5, 2) {
		return errors.New("is not a pty multiplexer")
	}
	return nil
}

func dressTerminal(master, peer int, t *stage1.Terminal) *stage1.StepError {
	if t.UID != 0 {
		if err := unix.Fchown(peer, int(t.UID), -1); err != nil {
			return failed("give terminal to user", "", err)
		}
	}
	if t.Rows|t.Columns == 0 {
		return nil
	}
	size := unix.Winsize{Row: t.Rows, Col: t.Columns}
	return failed("set terminal size", "", unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &size))
}

func (w *walk) console(peer int) error {
	target, err := rootfs.CreateAt(w.root, "dev/console", 0o620)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	fd, err := unix.OpenTree(peer, "", cloneMount)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", target, "", fdToFd)
}

func takeTerminal(peer int, control bool) error {
	if control {
		if err := unix.IoctlSetInt(peer, unix.TIOCSCTTY, 0); err != nil {
			return err
		}
	}
	for fd := range 3 {
		if err := unix.Dup3(peer, fd, 0); err != nil {
			return err
		}
	}
	return unix.Close(peer)
}
