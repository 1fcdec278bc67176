// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/internal/rootfs"
)

// besideRandom is how much of a name beside another is random.
const besideRandom = 16

// beside makes a directory that nobody else can enter, of a name like
// .BASE.gantry-RANDOM, and locks it: its lock is free when its maker has died.
// What such makers have left for the same base is removed first.
func beside(parent *os.File, base string) (*os.File, error) {
	prefix := "." + base + ".gantry-"
	if err := sweepBeside(parent, prefix); err != nil {
		return nil, err
	}
	for {
		name := prefix + rand.Text()[:besideRandom]
		if err := unix.Mkdirat(int(parent.Fd()), name, 0o700); err != nil {
			return nil, named("make directory", name, err)
		}
		f, err := lockBeside(parent, name)
		if err == nil || !errors.Is(err, flock.ErrLocked) && !errors.Is(err, unix.ENOENT) {
			return f, err
		}
		// Somebody who sweeps met it before it was locked.
	}
}

// lockBeside opens and locks a directory that still is there.
func lockBeside(parent *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, named("open", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := flock.TryExclusive(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var here, ours unix.Stat_t
	err = unix.Fstatat(int(parent.Fd()), name, &here, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		err = unix.Fstat(fd, &ours)
	}
	switch {
	case err == nil && (here.Dev != ours.Dev || here.Ino != ours.Ino):
		err = unix.ENOENT
	case err == nil && ours.Uid != uint32(os.Geteuid()):
		err = unix.EPERM
	}
	if err != nil {
		return nil, errors.Join(named("lock", name, err), f.Close())
	}
	return f, nil
}

// sweepBeside removes what of ours the dead have left. Anything else is left to
// whoever put it there.
func sweepBeside(parent *os.File, prefix string) error {
	names, err := parent.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if _, err := parent.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for _, name := range names {
		random, ours := strings.CutPrefix(name, prefix)
		if !ours || len(random) != besideRandom || strings.Trim(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
			continue
		}
		f, err := lockBeside(parent, name)
		if err != nil {
			continue // its maker lives, or it is not ours
		}
		_ = rootfs.RemoveAllAt(int(parent.Fd()), name) // what cannot be removed is in nobody's way
		f.Close()
	}
	return nil
}
