// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// statxMountID asks for an id that is never used again (STATX_MNT_ID_UNIQUE,
// Linux 6.8); before, the kernel gives the one it knows.
const statxMountID = unix.STATX_MNT_ID | unix.STATX_MNT_ID_UNIQUE

func mountID(fd int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, statxMountID, &st); err != nil {
		return 0, fmt.Errorf("identify mount: %w", err)
	}
	return st.Mnt_id, nil
}

// shareMounts tells who wants to know which mount gantry-init will attach in
// our own mount namespace, because the bundle has none, and takes it away
// when the launch fails.
func (b *birth) shareMounts(all *hold, r *Request) error {
	at := slices.IndexFunc(b.plan.Steps, func(s stage1.Step) bool { return s.Root != nil && s.Root.Shared })
	if at < 0 || owns(r.Spec, specs.MountNamespace) {
		return nil
	}
	if r.RootMount == nil {
		return errors.New("linux.namespaces: a mount namespace is needed")
	}
	id, err := mountID(int(b.sources[b.plan.Steps[at].Root.FD].Fd()))
	if err != nil {
		return err
	}
	r.RootMount(id)
	all.Push(func() { _ = Unmount(r.Root.Dir, id) })
	return nil
}

// Unmount takes the mount with an id away from a path, with all that is
// mounted below. Not there is no error: another mount stays.
func Unmount(path string, id uint64) error {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if found, err := mountID(int(f.Fd())); err != nil || found != id {
		return err
	}
	if err := unix.Unmount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}
