// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/fsverity.h; the numbers are the same on every architecture Go
// builds for that Linux encodes ioctls the usual way on.
const (
	fsIocEnableVerity  = 0x40806685
	fsIocMeasureVerity = 0xc0046686
	verityAlgSHA256    = 1
)

type verityEnable struct {
	version, algorithm, blockSize, saltSize uint32
	salt                                    uint64
	sigSize, reserved1                      uint32
	sig                                     uint64
	reserved2                               [11]uint64
}

type verityDigest struct {
	algorithm, size uint16
	digest          [64]byte
}

// enableVerity has the kernel build the file's Merkle tree and guard it from
// now on, and returns the measurement; "" where the file system cannot.
func enableVerity(f *os.File) (string, error) {
	arg := verityEnable{version: 1, algorithm: verityAlgSHA256, blockSize: 4096}
	err := ioctl(f, fsIocEnableVerity, unsafe.Pointer(&arg))
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return "", nil
	default:
		return "", fmt.Errorf("enable fs-verity of %s: %w", f.Name(), err)
	}
	return measure(f)
}

// measure returns the digest the kernel enforces, "" if there is none.
func measure(f *os.File) (string, error) {
	d := verityDigest{size: uint16(len(verityDigest{}.digest))}
	err := ioctl(f, fsIocMeasureVerity, unsafe.Pointer(&d))
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("measure %s: %w", f.Name(), err)
	case d.algorithm != verityAlgSHA256 || d.size != 32:
		return "", fmt.Errorf("measure %s: algorithm %d", f.Name(), d.algorithm)
	}
	return "sha256:" + hex.EncodeToString(d.digest[:d.size]), nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = c.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg))
	})
	if err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}
