// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage0/bundle"
)

// settings is what the options of a volume come to.
type settings struct {
	size, inodes uint64 // 0 is no limit
	uid, gid     int    // -1 is as it comes
	noCopy       bool
}

func (s settings) limited() bool { return s.size+s.inodes > 0 }

// parseOptions reads podman's --opt: o=LIST, or its members by themselves.
func parseOptions(options map[string]string) (settings, error) {
	s := settings{uid: -1, gid: -1}
	said := map[string]string{} // what set what
	set := func(key, value, as string) error {
		about := key
		if key == "nocopy" {
			about = "copy"
		}
		if before, twice := said[about]; twice {
			return fmt.Errorf("--opt %q and %q are about the same: say one", before, as)
		}
		said[about] = as
		return s.set(key, value, as)
	}
	for _, key := range slices.Sorted(maps.Keys(options)) { // the same error every time
		value := options[key]
		if key != "o" {
			if err := set(key, value, strings.TrimSuffix(key+"="+value, "=")); err != nil {
				return s, err
			}
			continue
		}
		for word := range strings.SplitSeq(value, ",") {
			k, v, _ := strings.Cut(word, "=")
			if err := set(k, v, "o="+word); err != nil {
				return s, err
			}
		}
	}
	return s, nil
}

func (s *settings) set(key, value, said string) (err error) {
	switch key {
	case "size":
		n, err := bundle.ParseSize(value)
		if err != nil || n <= 0 {
			return fmt.Errorf("--opt %q: write a size, as in size=10g", said)
		}
		s.size = uint64(n)
	case "inodes":
		if s.inodes, err = strconv.ParseUint(value, 10, 63); err != nil || s.inodes == 0 {
			return fmt.Errorf("--opt %q: write a number, as in inodes=10000", said)
		}
	case "uid", "gid":
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return fmt.Errorf("--opt %q: write a number", said)
		}
		if key == "uid" {
			s.uid = int(n)
		} else {
			s.gid = int(n)
		}
	case "nocopy", "copy":
		s.noCopy = key == "nocopy"
	case "type", "device":
		return hint.With(
			fmt.Errorf("--opt %q: volumes on other file systems are not supported", said),
			"mount it on the host, and give it to the pod with --volume /PATH:/DEST",
		)
	default:
		return fmt.Errorf("--opt %q: there is none of that name: use size, inodes, uid, gid, copy or nocopy", said)
	}
	return nil
}

// Of linux/quota.h and linux/fs.h, for xfs and ext4 alike.
const (
	projectQuota   = 2
	getQuota       = 0x800007
	setQuota       = 0x800008
	validLimits    = 1<<0 | 1<<2 // QIF_BLIMITS, QIF_ILIMITS
	quotaBlock     = 1024
	inheritProject = 0x200 // FS_XFLAG_PROJINHERIT
	getXattr       = 0x801c581f
	setXattr       = 0x401c5820
)

// diskQuota is struct if_dqblk.
type diskQuota struct {
	blockHard, blockSoft, space uint64
	inodeHard, inodeSoft, inode uint64
	blockTime, inodeTime        uint64
	valid                       uint32
	_                           uint32
}

// fileAttributes is struct fsxattr.
type fileAttributes struct {
	flags, extent, extents, project, cow uint32
	_                                    [8]byte
}

// limit makes a directory a project of its own, with a quota that the kernel
// keeps for all that is written below it.
func limit(dir *os.File, s settings) (uint32, error) {
	id, err := freeProject(dir)
	if errors.Is(err, unix.EPERM) {
		return 0, hint.With(fmt.Errorf("--opt size and inodes take the host's root: %w", err), "leave the limit out")
	}
	if err != nil {
		return 0, hint.With(
			fmt.Errorf("--opt size and inodes need project quotas, which the file system that volumes are on does not have: %w", err),
			"mount it with prjquota (xfs; ext4 made with -O quota,project), or leave the limit out",
		)
	}
	if err := setProject(dir, id); err != nil {
		return 0, fmt.Errorf("set project: %w", err)
	}
	q := diskQuota{
		blockHard: (s.size + quotaBlock - 1) / quotaBlock, inodeHard: s.inodes, valid: validLimits,
	}
	q.blockSoft, q.inodeSoft = q.blockHard, q.inodeHard
	return id, quotactl(dir, setQuota, id, &q)
}

// Limits says why volumes of a directory cannot have limits, nil if they can.
func Limits(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = freeProject(f)
	return err
}

// freeProject draws a project id that has neither limits nor files. Numbers
// are not kept in a list: of two billion, two draws are not the same.
func freeProject(dir *os.File) (uint32, error) {
	for range 8 {
		var b [4]byte
		if _, err := rand.Read(b[:]); err != nil {
			return 0, err
		}
		id := binary.NativeEndian.Uint32(b[:])&(1<<31-1) | 1<<20
		var q diskQuota
		err := quotactl(dir, getQuota, id, &q)
		if errors.Is(err, unix.ENOENT) || err == nil && q.blockHard+q.inodeHard+q.space+q.inode == 0 {
			return id, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, errors.New("no free project id was found")
}

func setProject(dir *os.File, id uint32) error {
	var a fileAttributes
	if err := ioctl(dir, getXattr, &a); err != nil {
		return err
	}
	a.project, a.flags = id, a.flags|inheritProject
	return ioctl(dir, setXattr, &a)
}

func ioctl(f *os.File, request uintptr, a *fileAttributes) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(a)))
	if errno != 0 {
		return errno
	}
	return nil
}

// quotactl asks the file system that f is on, which needs no device's path.
func quotactl(f *os.File, command int, id uint32, q *diskQuota) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(command<<8|projectQuota), uintptr(id), uintptr(unsafe.Pointer(q)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// unlimit forgets a quota. What cannot be forgotten limits nobody: its project
// has no files any more.
func unlimit(path string, id uint32) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	_ = quotactl(f, setQuota, id, &diskQuota{valid: validLimits})
}
