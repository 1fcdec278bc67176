// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/signature"
)

// checkVerity tries fs-verity on a file of the directory's file system that
// has no name and so leaves nothing behind.
func checkVerity(e Env) CheckItem {
	c := CheckItem{Name: "fs-verity", State: yes, Have: "on " + e.Dir}
	if err := tryVerity(existing(e.Dir)); err != nil {
		c.State, c.Have = partly, errText(err)
		c.Means = "roots are hashed again once per boot instead of being enforced by the kernel"
		c.Mend = "keep the directory on ext4 (tune2fs -O verity), btrfs or f2fs"
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
			c.Mend = ""
		}
	}
	return c
}

// fsverityEnableArg is struct fsverity_enable_arg of <linux/fsverity.h>.
type fsverityEnableArg struct {
	version, hashAlgorithm, blockSize, saltSize uint32
	saltPtr                                     uint64
	sigSize, _                                  uint32
	sigPtr                                      uint64
	_                                           [11]uint64
}

func tryVerity(dir string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The kernel wants it open for reading only, by everybody.
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	defer f.Close()
	arg := fsverityEnableArg{version: 1, hashAlgorithm: 1, blockSize: uint32(os.Getpagesize())}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_ENABLE_VERITY, uintptr(unsafe.Pointer(&arg)))
	// ETXTBSY: the descriptor it was made by can still write. The file
	// system knows fs-verity, or it would have said ENOTTY or EOPNOTSUPP.
	if errno == 0 || errno == unix.ETXTBSY {
		return nil
	}
	return errno
}

// policyRules counts the rules in force, and those that are closed.
func policyRules(e Env) (rules, closed int) {
	p, err := signature.LoadPolicy(e.ConfigPath)
	if err != nil {
		return 0, 1
	}
	for _, r := range p.Rules() {
		if rules++; r.Problem != "" {
			closed++
		}
	}
	return rules, closed
}
