// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gantryrun/gantry/internal/uidmap"
)

// isHostRoot tells that nothing is refused for who we are: in a user namespace
// root is an ordinary user.
func isHostRoot() bool { return os.Geteuid() == 0 && uidmap.Own().Host() }

// accessHint is for an ordinary user who may not do something: whose the file or
// directory is that stands in the way, if one is told.
func accessHint(err error) string {
	const asRoot = "this takes the host's root: run it with sudo, or as a system unit"
	var about *fs.PathError
	if !errors.Is(err, syscall.EACCES) || !errors.As(err, &about) || !filepath.IsAbs(about.Path) {
		return asRoot
	}
	at, fi := nearest(about.Path)
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return asRoot
	}
	mode := fmt.Sprintf("mode %04o", fi.Mode().Perm())
	switch mine := os.Geteuid(); {
	case int(st.Uid) == mine && fi.Mode().Perm()&0o600 == 0o600:
		return fmt.Sprintf("%s is yours, and its %s allows it: look at how its file system is mounted, and at what a security module logs", at, mode)
	case int(st.Uid) == mine:
		return fmt.Sprintf("%s is yours, but has %s: chmod u+rwX %s", at, mode, at)
	case st.Uid == 0, st.Uid == overflowUID:
		return fmt.Sprintf("%s is not yours, and has %s: name another, or run gantry as root", at, mode)
	}
	return fmt.Sprintf("%s is user %d's, and has %s: name another, or run gantry as that user or root", at, st.Uid, mode)
}

// overflowUID is what the kernel shows of users that have no id in our namespace.
const overflowUID = 65534

// nearest is a path, or the nearest directory above it, that can be looked at.
func nearest(path string) (string, fs.FileInfo) {
	for {
		fi, err := os.Stat(path)
		if err == nil || path == "/" {
			return path, fi
		}
		path = filepath.Dir(path)
	}
}
