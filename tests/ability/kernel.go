// SPDX-License-Identifier: Apache-2.0

package ability

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func usernsAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
}

// probeUsernsOrdinary tells whether who is not root may make a user namespace,
// and has capabilities in it: distributions forbid the one or the other.
func probeUsernsOrdinary() error {
	out, err := exec.Command("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
		"unshare", "--user", "--map-root-user", "--mount", "true").CombinedOutput()
	if err != nil {
		return fmt.Errorf("an ordinary user cannot make a user namespace: %w: %s", err, out)
	}
	return nil
}

// probeVerity enables fs-verity on a throw-away file where tests put theirs.
func probeVerity() error {
	f, err := os.CreateTemp("", "verity")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString("verity")
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	r, err := os.Open(f.Name())
	if err != nil {
		return err
	}
	defer r.Close()
	if err := enableVerity(r); err != nil {
		return fmt.Errorf("enable fs-verity in %s: %w", os.TempDir(), err)
	}
	return nil
}

// enableVerity is the smallest form of FS_IOC_ENABLE_VERITY: SHA-256 over
// blocks of 4 KiB, no salt, no signature.
func enableVerity(f *os.File) error {
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: 4096}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_ENABLE_VERITY, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

// probeErofsFile tells whether the kernel mounts EROFS straight from a file.
// A file of zeroes is refused either way: for being no block device, or,
// where files will do, for being no EROFS.
func probeErofsFile() error {
	if err := fileSystem("erofs")(); err != nil {
		return err
	}
	f, err := os.CreateTemp("", "erofs")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(8192); err != nil {
		return err
	}
	fd, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetString(fd, "source", f.Name()); err != nil {
		return err
	}
	if err := unix.FsconfigCreate(fd); errors.Is(err, unix.ENOTBLK) {
		return fmt.Errorf("mount EROFS from a file: %w", err)
	}
	return nil
}

// probeProjectQuota mounts an ext4 with project quotas where nobody sees it.
func probeProjectQuota() error {
	dir, err := os.MkdirTemp("", "quota")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	script := "truncate -s 16M $0/image && mkfs.ext4 -q -O quota,project -E quotatype=prjquota $0/image && mkdir $0/at && mount -o loop,prjquota $0/image $0/at"
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, dir)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mount ext4 with project quotas: %w: %s", err, out)
	}
	return nil
}
