// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every wait for processes that were killed: one stuck in the
// kernel (a dead NFS server) must not hang the caller.
const patience = 5 * time.Second

// Left is what there still is of a group.
type Left []leftDir

type leftDir struct {
	path    string
	unified bool
}

// Find looks which directories of a group, recorded when it was made, still
// exist. It refuses those that are not groups below the top of a hierarchy: the
// paths come from a file, and a damaged one must not kill the host or remove
// its empty directories.
func Find(dirs []string) (Left, error) {
	var left Left
	for _, dir := range dirs {
		unified, err := isGroup(dir)
		if err == nil {
			left = append(left, leftDir{dir, unified})
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return left, nil
}

// KillAll kills every process in a group, given its directories in all
// hierarchies, and those born meanwhile. Directories that are gone are fine.
// It does not wait; RemoveAll does.
func KillAll(dirs []string) error {
	left, err := Find(dirs)
	if err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	return left.Kill()
}

// Kill is KillAll of what was found.
func (l Left) Kill() error {
	dir := l.holder()
	if dir == "" {
		return nil
	}
	err := writeFile(dir, "cgroup.kill", "1")
	switch {
	case err == nil && headless(dir):
		return killSlowly(dir)
	case err == nil || isNoDevice(err): // removed under our hands
		return nil
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP):
		// Before Linux 5.14, on v1, and where the app made its group threaded.
		return killSlowly(dir)
	}
	return fmt.Errorf("kill cgroup: %w", err)
}

// headless tells whether a group has a process whose first thread has ended
// before the others. cgroup.kill sends its signal to first threads, and to one
// that has ended it says nothing to the others (Linux 6.18): the process lives
// on until it is killed by its number.
func headless(dir string) bool {
	pids, err := Pids([]string{dir})
	return err == nil && slices.ContainsFunc(pids, firstThreadEnded)
}

func firstThreadEnded(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && bytes.HasPrefix(b[bytes.LastIndexByte(b, ')')+1:], []byte(" Z ")) // the name in brackets may have anything
}

func isGroup(dir string) (unified bool, err error) {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
		return false, fmt.Errorf("%q is not a clean absolute path", dir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if fs.Type != unix.CGROUP_SUPER_MAGIC && fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return false, fmt.Errorf("%s is not a control group", dir)
	}
	var self, parent unix.Stat_t
	if err := errors.Join(unix.Lstat(dir, &self), unix.Lstat(filepath.Dir(dir), &parent)); err != nil {
		return false, fmt.Errorf("stat %s: %w", dir, err)
	}
	if self.Mode&unix.S_IFMT != unix.S_IFDIR || self.Dev != parent.Dev {
		return false, fmt.Errorf("%s is the top of a hierarchy", dir)
	}
	return fs.Type == unix.CGROUP2_SUPER_MAGIC, nil
}

// holder picks the directory that knows the group's processes best: the
// unified one, then the freezer's, then any.
func (l Left) holder() string {
	for _, dir := range l {
		if dir.unified {
			return dir.path
		}
	}
	var best string
	for _, dir := range l {
		if _, err := os.Stat(filepath.Join(dir.path, "freezer.state")); err == nil || best == "" {
			best = dir.path
		}
	}
	return best
}

// killSlowly kills process by process, frozen where the kernel can freeze the
// group, so that none forks away meanwhile.
func killSlowly(dir string) error {
	// Nobody is born in a group that nobody is in, and freezing one makes the
	// kernel patch itself.
	if pids, err := Pids([]string{dir}); err != nil || len(pids) == 0 {
		return err
	}
	thaw := freeze(dir)
	defer thaw()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		killed, err := killRound(dir)
		if err != nil || killed == 0 {
			return err
		}
		thaw() // on v1 the frozen do not die
		waitDead(dir, deadline)
	}
	return fmt.Errorf("kill cgroup %s: processes keep coming", dir)
}

// freeze stops a group and returns what lets it go on. Where there is no
// freezer nothing is stopped, and the rounds of killSlowly have to do.
func freeze(dir string) (thaw func()) {
	for _, f := range []struct{ file, stop, run string }{
		{"cgroup.freeze", "1", "0"},
		{"freezer.state", "FROZEN", "THAWED"},
	} {
		if writeFile(dir, f.file, f.stop) == nil {
			return func() { _ = writeFile(dir, f.file, f.run) }
		}
	}
	return func() {}
}

// killRound sends SIGKILL to every process of the group and says to how many.
func killRound(dir string) (int, error) {
	pids, err := Pids([]string{dir})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, pid := range pids {
		fd := openMember(dir, pid)
		if fd < 0 {
			continue
		}
		if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
			n++
		}
		unix.Close(fd)
	}
	return n, nil
}

// openMember returns a pidfd of a process that is in the group, or -1. The
// number may have passed to a stranger since it was read, so membership is
// asked again once the descriptor pins the process.
func openMember(dir string, pid int) int {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1
	}
	pids, err := Pids([]string{dir})
	if err != nil || !slices.Contains(pids, pid) {
		unix.Close(fd)
		return -1
	}
	return fd
}

// waitDead waits until the processes now in the group are dead.
func waitDead(dir string, deadline time.Time) {
	pids, err := Pids([]string{dir})
	if err != nil {
		return
	}
	for _, pid := range pids {
		if fd := openMember(dir, pid); fd >= 0 {
			pollUntil(fd, unix.POLLIN, deadline)
			unix.Close(fd)
		}
	}
}

// pollUntil waits for events on a descriptor and reports whether they came.
func pollUntil(fd int, events int16, deadline time.Time) bool {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(left.Milliseconds())+1)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// RemoveAll removes a group's directories and the groups an app made below
// them, waiting a bounded time for processes that are dying. Directories that
// are gone are fine.
func RemoveAll(dirs []string) error {
	left, err := Find(dirs)
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return left.Remove()
}

// Remove is RemoveAll of what was found.
func (l Left) Remove() error {
	deadline := time.Now().Add(patience)
	// The unified hierarchy first: it alone tells when the last process has
	// gone, from all hierarchies at once.
	l = slices.Clone(l)
	slices.SortStableFunc(l, func(a, b leftDir) int { return btoi(b.unified) - btoi(a.unified) })
	var errs []error
	for _, dir := range l {
		if err := removeTree(dir.path, deadline); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

// RemoveEmpty removes directories that may be somebody else's: those with
// nobody and nothing in them.
func (l Left) RemoveEmpty() error {
	for _, dir := range l {
		err := unix.Rmdir(dir.path)
		if err != nil && err != unix.EBUSY && err != unix.ENOENT {
			return &os.PathError{Op: "rmdir", Path: dir.path, Err: err}
		}
		removeShared(dir.path)
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func removeTree(dir string, deadline time.Time) error {
	for {
		err := rmdirs(dir)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if time.Now().After(deadline) {
			pids, _ := Pids([]string{dir})
			return fmt.Errorf("%w (processes %s)", err, strings.Trim(fmt.Sprint(pids), "[]"))
		}
		waitEmpty(dir, deadline)
	}
}

// rmdirs removes dir with what is below it, and the shared parent if that is
// empty now.
func rmdirs(dir string) error {
	// EBUSY is both for groups below and for processes inside; looking below
	// costs a listing of every group, so it comes second.
	if err := unix.Rmdir(dir); err != nil {
		groups, err := groupsBelow(dir)
		if err != nil {
			return err
		}
		for _, g := range groups {
			if err := unix.Rmdir(g); err != nil && !errors.Is(err, unix.ENOENT) {
				return &os.PathError{Op: "rmdir", Path: g, Err: err}
			}
		}
	}
	removeShared(dir)
	return nil
}

// removeShared removes the parent of a group that is gone, if it is the shared one and
// empty now.
func removeShared(dir string) {
	if parent := filepath.Dir(dir); filepath.Base(parent) == sharedTop {
		_ = unix.Rmdir(parent) // whoever needs it makes it again
	}
}

// waitEmpty waits until a group looks empty. cgroup.events raises POLLPRI
// when that changes (cgroup-v2.rst, "populated"); v1 has no such thing, there
// the processes themselves are waited for.
func waitEmpty(dir string, deadline time.Time) {
	fd, err := unix.Open(filepath.Join(dir, "cgroup.events"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		waitDead(dir, deadline)
		// Between a death seen by pidfd and the task leaving its v1 group
		// there is a moment nothing announces.
		_, _ = unix.Poll(nil, 1)
		return
	}
	defer unix.Close(fd)
	var buf [256]byte
	for {
		n, err := unix.Pread(fd, buf[:], 0)
		if err != nil || !strings.Contains(string(buf[:max(n, 0)]), "populated 1") {
			return
		}
		if !pollUntil(fd, unix.POLLPRI, deadline) {
			return
		}
	}
}
