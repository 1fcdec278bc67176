// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// accessHint is for who is not root and may not do something: whose the file or
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
	me := os.Geteuid()
	whose := "user " + strconv.Itoa(int(st.Uid)) + "'s"
	switch int(st.Uid) {
	case me:
		return fmt.Sprintf("%s is yours, but its mode is %04o: chmod u+rwX %s", at, fi.Mode().Perm(), at)
	case 0:
		whose = "root's"
	}
	return fmt.Sprintf("%s is %s, with mode %04o, and you are user %d: run gantry as the one it belongs to, or name another", at, whose, fi.Mode().Perm(), me)
}

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
