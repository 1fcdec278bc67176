// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/gantryrun/gantry/image/tree/erofs"
	"github.com/gantryrun/gantry/image/tree/index"
)

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	aufs     = ".wh..wh."
	paxXattr = "SCHILY.xattr."
	// ±34,000 years: what file systems hold between them.
	maxSeconds = 1 << 40
)

// entry turns a tar header into a record, nil when there is nothing to record.
// skipped counts what policy left out of it.
func entry(h *tar.Header, lim Limits) (e *index.Entry, skipped int, err error) {
	if h.Typeflag == tar.TypeXGlobalHeader { // git archive writes one; it names no file
		return nil, 0, nil
	}
	if h.Name == "" {
		return nil, 0, fmt.Errorf("%w: empty name", ErrArchive)
	}
	name := index.CleanPath(h.Name)
	if e, done, err := marker(name); done || err != nil {
		return e, 0, err
	}
	e = &index.Entry{Path: name}
	if e.Kind, err = kind(h); err != nil {
		return nil, 0, err
	}
	switch e.Kind {
	case index.Link:
		if h.Linkname == "" {
			return nil, 0, fmt.Errorf("%w: hard link to nothing", ErrArchive)
		}
		// Confined like a name: a link leads to a file of this tree or fails.
		e.Target = index.CleanPath(h.Linkname)
		return e, 0, nil
	case index.Symlink:
		e.Target = h.Linkname
	case index.Regular:
		e.Size = h.Size
	case index.Char, index.Block:
		if lim.NoDevices {
			return nil, 1, nil
		}
		if e.Rdev, err = device(h.Devmajor, h.Devminor); err != nil {
			return nil, 0, err
		}
	}
	e.Meta, skipped, err = meta(h, e.Kind, e.Rdev)
	return e, skipped, err
}

// marker recognises whiteouts. The image specification reserves the prefix: no
// file or directory of an image can have such a name, so nothing but a marker
// of this very form may carry it.
func marker(name string) (e *index.Entry, done bool, err error) {
	dir, base := path.Split(name)
	for parent := range strings.SplitSeq(dir, "/") {
		switch {
		case strings.HasPrefix(parent, aufs):
			return nil, true, nil // below .wh..wh.plnk: AUFS's own books
		case strings.HasPrefix(parent, whiteout):
			return nil, true, fmt.Errorf("%w: a parent directory has the name of a whiteout", ErrArchive)
		}
	}
	if !strings.HasPrefix(base, whiteout) {
		return nil, false, nil
	}
	dir = strings.TrimSuffix(dir, "/")
	switch hidden := base[len(whiteout):]; {
	case base == opaque:
		return &index.Entry{Kind: index.Opaque, Path: dir}, true, nil
	case strings.HasPrefix(base, aufs):
		return nil, true, nil
	case hidden == "" || hidden == "." || hidden == "..":
		return nil, true, fmt.Errorf("%w: whiteout of nothing", ErrArchive)
	default:
		return &index.Entry{Kind: index.Whiteout, Path: path.Join(dir, hidden)}, true, nil
	}
}

func kind(h *tar.Header) (index.Kind, error) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return index.Regular, nil
	case tar.TypeDir:
		return index.Dir, nil
	case tar.TypeSymlink:
		return index.Symlink, nil
	case tar.TypeLink:
		return index.Link, nil
	case tar.TypeChar:
		return index.Char, nil
	case tar.TypeBlock:
		return index.Block, nil
	case tar.TypeFifo:
		return index.Fifo, nil
	}
	return 0, fmt.Errorf("%w: unknown type flag %q", ErrArchive, h.Typeflag)
}

// device encodes a device number as the kernel does, refusing to cut it.
func device(major, minor int64) (uint32, error) {
	if major < 0 || major >= 1<<12 || minor < 0 || minor >= 1<<20 {
		return 0, fmt.Errorf("%w: device %d:%d is out of range", ErrArchive, major, minor)
	}
	return uint32(minor&0xff | major<<8 | (minor&^0xff)<<12), nil
}

func meta(h *tar.Header, kind index.Kind, rdev uint32) (m index.Meta, skipped int, err error) {
	if h.Uid < 0 || int64(h.Uid) >= math.MaxUint32 || h.Gid < 0 || int64(h.Gid) >= math.MaxUint32 {
		return m, 0, fmt.Errorf("%w: owner %d:%d is out of range", ErrArchive, h.Uid, h.Gid)
	}
	sec := h.ModTime.Unix()
	if sec > maxSeconds || sec < -maxSeconds {
		return m, 0, fmt.Errorf("%w: modification time %d is out of range", ErrArchive, sec)
	}
	m = index.Meta{
		Mode: uint16(h.Mode & 0o7777),
		UID:  uint32(h.Uid), GID: uint32(h.Gid),
		Sec: sec, Nsec: uint32(h.ModTime.Nanosecond()),
		Rdev: rdev,
	}
	if kind == index.Symlink {
		m.Mode = 0o777 // Linux has no other, whatever a tar says
	}
	m.Xattrs, skipped = xattrs(h, kind)
	return m, skipped, nil
}

// xattrs returns those the tree keeps, sorted, and how many it does not.
func xattrs(h *tar.Header, kind index.Kind) (list []index.Xattr, skipped int) {
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		if !keepXattr(name, kind) {
			skipped++
			continue
		}
		list = append(list, index.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(list, func(a, b index.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return list, skipped
}

// keepXattr leaves out what belongs to a host and not to an image, as umoci
// does: SELinux labels, NFSv4 ACLs, and the notes of overlayfs, which would
// otherwise speak to the overlayfs that has this tree as its lower layer.
func keepXattr(name string, kind index.Kind) bool {
	switch {
	case name == "security.selinux", name == "system.nfs4_acl",
		strings.HasPrefix(name, "trusted.overlay."), strings.HasPrefix(name, "user.overlay."):
		return false
	case strings.HasPrefix(name, "user."):
		// xattr(7): the kernel has them on these only.
		return (kind == index.Regular || kind == index.Dir) && erofs.HoldsXattr(name)
	}
	return erofs.HoldsXattr(name)
}
