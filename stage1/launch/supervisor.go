// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/jsonout"
	"github.com/gantryrun/gantry/internal/wire"
	"github.com/gantryrun/gantry/stage1/launch/supervise"
)

// brief is how long an app may take before it gets a supervisor of its own.
const brief = 20 * time.Millisecond

// Supervise becomes gantry-stage1 on this thread, unless the app is over before
// that pays. It returns only on error, and then has taken everything back.
func (s *Started) Supervise() (err error) {
	defer func() { s.Release() }()
	supervise.Brief(s.contract, brief)
	if err := s.lockFirst(); err != nil {
		return err
	}
	contract, err := memfile("contract", unix.MFD_NOEXEC_SEAL, wire.Encode(nil, &s.contract))
	if err != nil {
		return err
	}
	defer contract.Close()
	// Whatever our caller left open ends here: gantry-stage1 cannot tell it
	// from descriptors of its Go runtime, which dies without its poller.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors close-on-exec: %w", err)
	}
	for _, f := range append(s.inherit, contract) {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("hand %s to the supervisor: %w", f.Name(), err)
		}
	}
	path := filepath.Join(s.libexec, "gantry-stage1")
	args := []string{"gantry-stage1", strconv.Itoa(int(contract.Fd())), s.contract.ID}
	if err := s.signals.pend(); err != nil {
		return err
	}
	// One thread runs, garbage is not collected, and no huge page is spent on
	// a heap of a few hundred kilobytes. THP and environment are inherited.
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	err = syscall.Exec(path, args, []string{"GOMAXPROCS=1", "GOGC=off"})
	return fmt.Errorf("execute %s: %w", path, err)
}

// lockFirst gives the lock a lower number than the ports and the table have.
// A process that is killed notes its files in the order of their numbers and
// lets go of them in the opposite one (task_work is last in, first out since
// Linux 4.3); whoever gets the lock then is to find the ports free.
func (s *Started) lockFirst() error {
	c := &s.contract
	if c.Lock < 0 {
		return nil
	}
	above := []*int{&c.Table}
	for i := range c.Forward {
		above = append(above, &c.Forward[i].FD)
	}
	for i := range c.Held {
		above = append(above, &c.Held[i])
	}
	for _, number := range above {
		if *number <= 0 || *number > c.Lock {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(*number), unix.F_DUPFD_CLOEXEC, c.Lock+1)
		if err != nil {
			return fmt.Errorf("hand the pod's network to the supervisor: %w", err)
		}
		i := slices.IndexFunc(s.inherit, func(f *os.File) bool { return int(f.Fd()) == *number })
		s.inherit[i] = os.NewFile(uintptr(fd), s.inherit[i].Name())
		*number = fd
	}
	return nil
}

// listen makes a socket in a directory. Its name may be longer than a socket's
// may be: it is bound below a descriptor of its directory.
// With flags SOCK_NONBLOCK it never waits for a client.
func listen(in, name string, flags int) (*os.File, error) {
	dir, err := os.OpenFile(in, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		return nil, fmt.Errorf("make %s socket: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	// bind gives the file the mode of the socket.
	err = unix.Fchmod(fd, 0o600)
	if err == nil {
		_ = unix.Unlinkat(int(dir.Fd()), name, 0)
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)})
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make %s socket in %s: %w", name, in, err)
	}
	return f, nil
}

// writeJSON replaces a file of the pod by rename. It is not synced: what it
// says is true for this boot only, and a sync would cost more than the launch.
func writeJSON(dir, name string, v any) error {
	b, err := jsonout.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	temp := "." + name + ".new"
	if err := root.WriteFile(temp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return root.Rename(temp, name)
}
