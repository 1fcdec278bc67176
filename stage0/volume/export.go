// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/flock"
)

// Export writes a volume's files as a tar archive: owners by number, hard
// links, user attributes and capabilities included, devices and sockets left
// out. Everything is opened from its directory's descriptor and never through
// a link: an app that exchanges a directory for a link meanwhile has nothing
// of the host written out (CVE-2023-0778). The volume cannot be removed
// meanwhile; what apps change shows or does not, as with any archiver.
func (d Dir) Export(name string, to io.Writer) error {
	own, err := d.open(name)
	if err != nil {
		return err
	}
	defer own.Close()
	// A pod that is to fill it waits until this is done, as a removal fails.
	if err := flock.Shared(own); err != nil {
		return fmt.Errorf("export volume %s: %w", name, err)
	}
	if !d.stands(own, name) {
		return fmt.Errorf("volume %s: %w", name, ErrNotFound)
	}
	data, err := os.Open(d.Mountpoint(name))
	if err != nil {
		return fmt.Errorf("export volume %s: %w", name, err)
	}
	defer data.Close()
	a := archiver{tar.NewWriter(to), map[[2]uint64]string{}}
	if err = a.directory(int(data.Fd()), "./"); err == nil {
		err = a.Close()
	}
	if err != nil {
		return fmt.Errorf("export volume %s: %w", name, err)
	}
	return nil
}

// archiver remembers the first name of every file with several.
type archiver struct {
	*tar.Writer
	links map[[2]uint64]string
}

// directory writes a directory and what is in it.
func (a *archiver) directory(fd int, name string) error {
	if strings.Count(name, "/") > maxDepth {
		return errTooDeep
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	h := header(name, tar.TypeDir, &st)
	if err := attributes(fd, h); err != nil {
		return &os.PathError{Op: "read attributes of", Path: name, Err: err}
	}
	if err := a.WriteHeader(h); err != nil {
		return err
	}
	own, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(own), name)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := a.entry(int(dir.Fd()), n, name+n); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiver) entry(dir int, name, path string) error {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil // it was removed meanwhile
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return a.symlink(dir, name, path, &st)
	case unix.S_IFIFO:
		return a.WriteHeader(header(path, tar.TypeFifo, &st))
	case unix.S_IFDIR, unix.S_IFREG:
	default:
		return nil // sockets are dead, and a volume has no devices
	}
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := unix.Openat2(dir, name, &how)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) {
		return nil // another thing by now
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return a.directory(fd, path+"/")
	case unix.S_IFREG:
		return a.regular(f, path, &st)
	}
	return nil
}

func (a *archiver) symlink(dir int, name, path string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return nil // another thing by now
	}
	h := header(path, tar.TypeSymlink, st)
	h.Linkname = string(buf[:n])
	return a.WriteHeader(h)
}

func (a *archiver) regular(f *os.File, path string, st *unix.Stat_t) error {
	key := [2]uint64{uint64(st.Dev), st.Ino}
	if first, again := a.links[key]; again {
		h := header(path, tar.TypeLink, st)
		h.Linkname = first
		return a.WriteHeader(h)
	}
	if st.Nlink > 1 {
		a.links[key] = path
	}
	h := header(path, tar.TypeReg, st)
	h.Size = st.Size
	if err := attributes(int(f.Fd()), h); err != nil {
		return &os.PathError{Op: "read attributes of", Path: path, Err: err}
	}
	if err := a.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.CopyN(a, f, st.Size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter while it was read: stop what writes to it", path)
	}
	return err
}

func header(path string, kind byte, st *unix.Stat_t) *tar.Header {
	return &tar.Header{
		Format: tar.FormatPAX, Typeflag: kind, Name: path, Mode: int64(st.Mode & 0o7777),
		Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()),
	}
}

// attributes adds the extended attributes that mean something elsewhere.
func attributes(fd int, h *tar.Header) error {
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, list)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") && name != "security.capability" {
			continue
		}
		value := make([]byte, 64<<10)
		size, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			return err
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		// A record ends its key at the first "=": GNU tar writes and reads it so.
		key := strings.NewReplacer("%", "%25", "=", "%3D").Replace(name)
		h.PAXRecords["SCHILY.xattr."+key] = string(value[:size])
	}
	return nil
}
