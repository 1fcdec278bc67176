// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image/tree/index"
)

// Other programs take and leave loop devices at any time; what fails for that
// reason is tried again with the next device, this often.
const loopTries = 64

// errNoLoop means that the device a file was last seen on has it no more.
var errNoLoop = errors.New("not attached any more")

// hinted returns an open loop device whose backing file is f, if the place
// where it was last seen still has it.
func (d *Dir) hinted(f *os.File, name string) (*os.File, error) {
	var st unix.Stat_t
	if err := fstat(f, &st); err != nil {
		return nil, err
	}
	b, err := d.root.ReadFile(hint(name))
	if err != nil {
		return nil, err
	}
	if loop := attached(string(b), &st); loop != nil {
		return loop, nil
	}
	return nil, errNoLoop
}

func hint(name string) string { return "loops/" + path.Base(name) + ".loop" }

// attach returns an open loop device whose backing file is f: the one that has
// it already, or a new one, read-only and gone with its last user. The caller
// holds the lock of all loop devices.
//
// It reads through the page cache of f, where the hash of f was taken from and
// where what was read stays when the device went with its last user. So it is in
// memory twice while a pod runs; that copy is the first to go when memory is
// short, since nothing counts how often it is used (Linux 6.3).
func (d *Dir) attach(f *os.File, name string) (*os.File, error) {
	loop, err := d.hinted(f, name)
	if err == nil {
		return loop, nil
	}
	// A hint is written under the lock whenever a device is attached, so one
	// that does not hold any more says that the device went with its last
	// user, the usual case. Only where there is none are all devices asked:
	// that takes longer the more there are.
	if !errors.Is(err, errNoLoop) {
		var st unix.Stat_t
		if err := fstat(f, &st); err != nil {
			return nil, err
		}
		loop = findLoop(&st)
	}
	if loop == nil {
		if loop, err = newLoop(f); err != nil {
			return nil, fmt.Errorf("attach %s: %w", name, err)
		}
	}
	d.remember(hint(name), loop)
	return loop, nil
}

// remember saves the search next time. A hint is always checked against the
// device itself, so it may be wrong, and it need not survive anything. Mostly
// the device is the one of last time, and a write would cost a discard.
func (d *Dir) remember(hint string, loop *os.File) {
	if b, err := d.root.ReadFile(hint); err == nil && string(b) == loop.Name() {
		return
	}
	_ = d.root.WriteFile(hint, []byte(loop.Name()), 0o600)
}

// attached opens a loop device if its backing file is the one of st.
func attached(name string, st *unix.Stat_t) *os.File {
	number, ok := strings.CutPrefix(name, "/dev/loop")
	if _, err := strconv.ParseUint(number, 10, 20); !ok || err != nil {
		return nil
	}
	loop, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	// Asked after the open: from then on it cannot be detached.
	var info unix.LoopInfo64
	err = ioctl(loop, unix.LOOP_GET_STATUS64, unsafe.Pointer(&info))
	const flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	if err != nil || info.Device != st.Dev || info.Inode != st.Ino ||
		info.Flags&flags != flags || info.Offset != 0 || info.Sizelimit != 0 || info.Encrypt_type != 0 {
		loop.Close()
		return nil
	}
	return loop
}

// findLoop asks every loop device in use. Sysfs says which are, so that no
// other is opened, which could make one.
func findLoop(st *unix.Stat_t) *os.File {
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "loop") {
			continue
		}
		if _, err := os.Lstat("/sys/block/" + e.Name() + "/loop"); err != nil {
			continue
		}
		if loop := attached("/dev/"+e.Name(), st); loop != nil {
			return loop
		}
	}
	return nil
}

func newLoop(f *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("get a free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, unix.ENXIO) || (errors.Is(err, fs.ErrNotExist) && n < 8) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		err = configure(loop, f)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return nil, fmt.Errorf("configure %s: %w", loop.Name(), err)
		}
	}
	return nil, fmt.Errorf("get a free loop device: %w after %d tries", unix.EBUSY, loopTries)
}

func configure(loop, f *os.File) error {
	_ = fadvise(f, unix.FADV_NOREUSE) // the device holds this very file
	c := unix.LoopConfig{Fd: uint32(f.Fd()), Size: index.BlockSize}
	c.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	copy(c.Info.File_name[:len(c.Info.File_name)-1], path.Base(f.Name()))
	return ioctl(loop, unix.LOOP_CONFIGURE, unsafe.Pointer(&c))
}
