// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/rootfs"
)

// Chown gives what root is opened on, or what is at sub below it, to a user, with
// all that lies below on the same mount. Links are given, not followed: whoever
// writes there meanwhile cannot have another file given to him.
func Chown(root *os.File, sub string, uid, gid uint32) error {
	own := root
	if sub != "" {
		var err error
		if own, err = rootfs.Open(root, sub, unix.O_PATH, 0); err != nil {
			return err
		}
		defer own.Close()
	}
	if err := chown(int(own.Fd()), int(uid), int(gid), 0); err != nil {
		return &os.PathError{Op: "chown", Path: root.Name(), Err: err}
	}
	return nil
}

// maxDepth bounds the directories that are open at a time, one in the other.
const maxDepth = 1000

var errTooDeep = fmt.Errorf("directories are more than %d deep", maxDepth)

// chown gives what fd is opened on, and then what is in it.
func chown(fd, uid, gid, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if int(st.Uid) != uid || int(st.Gid) != gid {
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	own, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(own), ".")
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := chownEntry(int(dir.Fd()), name, uid, gid, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func chownEntry(dir int, name string, uid, gid, depth int) error {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	// A link as the last name is opened itself: NO_SYMLINKS is for the way.
	fd, err := unix.Openat2(dir, name, &how)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) {
		return nil // it is gone, or another mount
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return chown(fd, uid, gid, depth)
}
