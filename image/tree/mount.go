// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image/tree/erofs"
	"github.com/gantryrun/gantry/internal/undo"
)

// ErrNoErofs means that this host cannot mount an EROFS from files: Materialise
// is what is left.
var ErrNoErofs = errors.New("this host cannot mount EROFS trees")

// Mount returns the tree as a detached read-only mount, without devices. The
// caller closes it; the loop devices below live exactly as long as the mount.
//
// Every file of a tree is attached to one loop device, found again by the
// file's device and inode. The same devices make the kernel hand out the
// superblock it has, so that all pods of an image share one page cache; that
// is why loop devices come before file-backed mounts (Linux 6.12), each of
// which has a superblock and a cache of its own.
//
// Mount does not verify: that is Verify's, before, and Proven ties the two.
func (d *Dir) Mount(t Tree) (*os.File, error) {
	files, clean, err := d.openAll(t)
	defer clean.Run()
	if err != nil {
		return nil, fmt.Errorf("mount tree %.12s: %w", t.Key, err)
	}
	m, loopErr := d.mountLoops(t, files)
	if loopErr == nil {
		return m, nil
	}
	m, fileErr := mountFiles(files)
	if fileErr == nil {
		return m, nil
	}
	if unavailable(loopErr) && unavailable(fileErr) {
		return nil, fmt.Errorf("mount tree %.12s: %w: %w; by file: %w", t.Key, ErrNoErofs, loopErr, fileErr)
	}
	return nil, fmt.Errorf("mount tree %.12s: %w; by file: %w", t.Key, loopErr, fileErr)
}

// openAll opens the image and its data files in the order of its table.
func (d *Dir) openAll(t Tree) (files []*os.File, clean undo.Stack, err error) {
	for _, want := range t.files(LevelCached) {
		f, err := d.open(want.Path)
		if err != nil {
			return nil, clean, err
		}
		clean.Push(func() { f.Close() })
		if err := t.same(f, want.Path); err != nil {
			return nil, clean, err
		}
		files = append(files, f)
	}
	super, err := erofs.ReadSuper(files[0])
	if err != nil {
		return nil, clean, err
	}
	// Given none, the kernel would open paths that the image itself names.
	if super.Devices != len(files)-1 {
		return nil, clean, fmt.Errorf("%w: image names %d devices, its layers have %d", ErrChanged, super.Devices, len(files)-1)
	}
	return files, clean, nil
}

// unavailable tells a host that cannot from a tree that is broken.
func unavailable(err error) bool {
	for _, errno := range []unix.Errno{
		unix.ENODEV, unix.ENOSYS, unix.EPERM, unix.EACCES, unix.ENOTBLK,
		unix.ENOENT, unix.ENXIO, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOSPC, unix.EROFS,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (d *Dir) mountLoops(t Tree, files []*os.File) (*os.File, error) {
	names, clean, err := d.attachAll(t, files, d.hinted)
	defer clean.Run()
	if err == nil {
		return mountErofs(names)
	}
	// Something has no device yet. One at a time from here: two that both find
	// none would make two, and with them two superblocks. The lock is shared
	// by all trees, because trees share layers.
	lock, err := d.lock(context.Background(), "mount-loops")
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	names, all, err := d.attachAll(t, files, d.attach)
	defer all.Run()
	if err != nil {
		return nil, err
	}
	return mountErofs(names)
}

// attachAll holds the devices of all files until clean is run. The superblock
// must hold them by then: the last close of an autoclear device detaches it.
func (d *Dir) attachAll(t Tree, files []*os.File, attach func(f *os.File, name string) (*os.File, error)) (names []string, clean undo.Stack, err error) {
	wanted := t.files(LevelCached)
	for i, f := range files {
		loop, err := attach(f, wanted[i].Path)
		if err != nil {
			return nil, clean, err
		}
		clean.Push(func() { loop.Close() })
		names = append(names, loop.Name())
	}
	return names, clean, nil
}

// mountFiles mounts without block devices, which Linux can do since 6.12.
func mountFiles(files []*os.File) (*os.File, error) {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	return mountErofs(names)
}

// mountErofs mounts sources[0] with the others as its devices.
func mountErofs(sources []string) (*os.File, error) {
	fd, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open erofs: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetFlag(fd, "ro"); err != nil {
		return nil, fmt.Errorf("configure erofs: %w", err)
	}
	key := "source"
	for _, s := range sources {
		if err := unix.FsconfigSetString(fd, key, s); err != nil {
			return nil, fmt.Errorf("configure erofs %s=%s: %w", key, s, err)
		}
		key = "device"
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, fmt.Errorf("create erofs of %s: %w%s", sources[0], err, kernelLog(fd))
	}
	m, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, fmt.Errorf("mount erofs of %s: %w", sources[0], err)
	}
	return os.NewFile(uintptr(m), "erofs:"+sources[0]), nil
}

// kernelLog returns what the kernel has to say about a failed fsconfig.
func kernelLog(fd int) string {
	var lines []string
	b := make([]byte, 512)
	for range 8 {
		n, err := unix.Read(fd, b)
		if err != nil || n <= 0 {
			break
		}
		lines = append(lines, strings.TrimSpace(string(b[:n])))
	}
	if len(lines) == 0 {
		return ""
	}
	return " (" + strings.Join(lines, "; ") + ")"
}
