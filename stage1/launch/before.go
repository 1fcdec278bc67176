// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// onSpareThread runs f on a thread that ends with it: a goroutine that ends
// while it is locked takes its thread along, so that no other ever runs in
// the namespaces it entered. The main thread cannot end; it is occupied until
// f ran elsewhere.
func onSpareThread(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// before does what the plan wants done in front of the clone, on this thread,
// which is not used for anything else any more. What the whole process has is
// given back by the function it returns.
func (b *birth) before() (back func() error, err error) {
	back = func() error { return nil }
	for _, r := range b.plan.Before.Limits {
		if err := raiseLimit(r); err != nil {
			return back, err
		}
	}
	if o := b.plan.Before.OOMScore; o != nil {
		if back, err = lowerScore(o.Adj); err != nil {
			return back, err
		}
	}
	for _, j := range b.plan.Before.Join {
		source := b.plan.Sources[j.FD]
		err := unix.Setns(int(b.sources[j.FD].Fd()), int(j.Kinds))
		if err == unix.EPERM && isOwn(b.sources[j.FD], source.Namespace) {
			continue // it is where we are, and the host's
		}
		if err != nil {
			return back, errors.Join(fmt.Errorf("%s.path: join %s namespace %s: %w", source.For, source.Namespace, source.Path, err), back())
		}
	}
	if b.plan.Before.Time {
		if err := newClocks(b.plan.Before.Offsets); err != nil {
			return back, errors.Join(err, back())
		}
	}
	return back, nil
}

// isOwn tells whether a namespace is the one of this thread: podman without root
// names /proc/self/ns/cgroup.
func isOwn(f *os.File, kind string) bool {
	file := map[string]string{"network": "net"}[kind]
	if file == "" {
		file = kind
	}
	own, err := os.Stat("/proc/thread-self/ns/" + file)
	if err != nil {
		return false
	}
	there, err := f.Stat()
	return err == nil && os.SameFile(own, there)
}

// raiseLimit raises the hard limit, which no user namespace gives the right
// to, for the child to inherit. What cannot be is told when it is set.
func raiseLimit(r stage1.Rlimit) error {
	var own unix.Rlimit
	if err := unix.Getrlimit(r.Type, &own); err != nil {
		return fmt.Errorf("read limit %s: %w", r.Name, err)
	}
	if r.Hard <= own.Max {
		return nil
	}
	own.Max = r.Hard
	err := unix.Setrlimit(r.Type, &own)
	if err == unix.EPERM {
		return nil
	}
	return err
}

const ownScore = "/proc/self/oom_score_adj"

// lowerScore gives this process, and so the child, a lower score than root of
// a user namespace may set, and returns what raises it again.
func lowerScore(adj int) (back func() error, err error) {
	back = func() error { return nil }
	b, err := os.ReadFile(ownScore)
	if err != nil {
		return back, fmt.Errorf("read OOM score: %w", err)
	}
	was := strings.TrimSpace(string(b))
	if n, err := strconv.Atoi(was); err != nil || n <= adj {
		return back, err
	}
	err = os.WriteFile(ownScore, []byte(strconv.Itoa(adj)), 0)
	if errors.Is(err, unix.EACCES) {
		return back, nil // told when it is set
	}
	if err != nil {
		return back, fmt.Errorf("set OOM score: %w", err)
	}
	return func() error { return os.WriteFile(ownScore, []byte(was), 0) }, nil
}

// newClocks has the next child born in a new time namespace, and sets its
// clocks, which nobody may once somebody is in there.
func newClocks(offsets []stage1.TimeOffset) error {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fmt.Errorf("make time namespace: %w", err)
	}
	if len(offsets) == 0 {
		return nil
	}
	var text strings.Builder
	for _, o := range offsets {
		fmt.Fprintf(&text, "%s %d %d\n", o.Clock, o.Secs, o.Nanosecs)
	}
	// The file is in the directory of a process, which a thread has too.
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/timens_offsets", unix.Gettid()), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text.String())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("linux.timeOffsets: %w", err)
	}
	return nil
}

// users has gantry-init born in a user namespace, as its root. Package syscall
// writes the maps between the clone and the execve.
func (b *birth) users(sys *syscall.SysProcAttr) {
	if len(b.plan.UIDs) == 0 {
		return
	}
	sys.UidMappings, sys.GidMappings = sysMaps(b.plan.UIDs), sysMaps(b.plan.GIDs)
	sys.GidMappingsEnableSetgroups = true
	sys.Credential = &syscall.Credential{}
}

func sysMaps(maps []stage1.IDMap) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, 0, len(maps))
	for _, m := range maps {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.Container), HostID: int(m.Host), Size: int(m.Size)})
	}
	return out
}
