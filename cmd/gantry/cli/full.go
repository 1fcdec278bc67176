// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fullHint says which file system has no room left: that of the path in err if
// one is told; else that of gantry's directories which has the least. What was
// written is taken back by now, so it may have room again.
func (a *app) fullHint(err error) string {
	var about *fs.PathError
	if errors.As(err, &about) && about.Path == "/dev/stdout" {
		return "nothing more fits where this is printed to"
	}
	var dirs []string
	if e, err := a.outside(); err == nil {
		dirs = []string{e.Dir, e.RunDir}
	}
	if about != nil && filepath.IsAbs(about.Path) {
		dirs = []string{about.Path}
	}
	return spaceHint(dirs...)
}

// indexHint is for a store whose index is damaged: the content of its images is
// under their digests, and a fetch takes it from there.
func (a *app) indexHint() string {
	e, err := a.outside()
	if err != nil {
		return ""
	}
	return fmt.Sprintf(`the names of the images are lost, what is in them is not: put a copy of index.json back below %s, or {"schemaVersion":2,"manifests":[]}, and fetch the images again, which downloads nothing that is there`, filepath.Join(e.Dir, "store"))
}

// spaceHint names the file system with the least room of those of some paths.
func spaceHint(dirs ...string) string {
	const freeing = "'gantry image rm', 'gantry image gc' and 'gantry gc' free some without needing any"
	var fullest room
	for _, dir := range dirs {
		if r, ok := roomAt(dir); ok && (fullest.at == "" || r.share < fullest.share) {
			fullest = r
		}
	}
	switch {
	case fullest.at == "":
		return "a file system is full: " + freeing
	case fullest.inodes:
		return fmt.Sprintf("the file system at %s has no inodes left: %s", fullest.at, freeing)
	}
	return fmt.Sprintf("the file system at %s is full: %s", fullest.at, freeing)
}

// room is what a file system has left.
type room struct {
	at     string // where it is mounted
	share  float64
	inodes bool // it is these that it has not
}

// roomAt looks at the file system of a path, or of its nearest directory that
// exists.
func roomAt(path string) (room, bool) {
	var fsys unix.Statfs_t
	for unix.Statfs(path, &fsys) != nil {
		if path == "/" {
			return room{}, false
		}
		path = filepath.Dir(path)
	}
	r := room{at: mountPoint(path), share: 1}
	if fsys.Blocks > 0 {
		r.share = float64(fsys.Bavail) / float64(fsys.Blocks)
	}
	if fsys.Files > 0 && float64(fsys.Ffree)/float64(fsys.Files) < r.share {
		r.share, r.inodes = float64(fsys.Ffree)/float64(fsys.Files), fsys.Ffree == 0
	}
	return r, true
}

// mountPoint is the directory where the file system of a path begins.
func mountPoint(path string) string {
	id := func(path string) (uint64, bool) {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st)
		return st.Mnt_id, err == nil
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	own, ok := id(path)
	for ok && path != "/" {
		above, known := id(filepath.Dir(path))
		if !known || above != own {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}
