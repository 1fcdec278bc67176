// SPDX-License-Identifier: Apache-2.0

// Package confine is what a gantry-fetch worker does to itself before it
// looks at the first foreign byte: foreign descriptors closed, limits, an
// empty root, a user of its own, no privileges and no way to get any,
// Landlock, a system-call allow-list. Each step is read back; a step that did
// not happen ends the worker, except Landlock, which older kernels lack and
// which is reported.
package confine

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/uidmap"
)

// Profile is what one kind of worker may have.
type Profile struct {
	Network   bool     // sockets to IPv4 and IPv6; otherwise there is not even a network namespace's worth
	Files     []string // host files copied, read-only, into the worker's root
	CABundle  bool     // certificate authorities, copied too
	OpenFiles uint64
	Threads   uint64 // RLIMIT_NPROC: exact, since no other process has the worker's user
	FileSize  uint64 // largest file it may write through donated descriptors
	Memory    uint64 // RLIMIT_DATA: the hard cap
	GoMemory  int64  // GOMEMLIMIT: where the collector starts to work hard
	CPU       uint64 // seconds, 0 for unlimited
}

// State is what the kernel says after Enter.
type State struct {
	UID, GID   int
	Seccomp    bool
	Landlock   int
	NoNewPrivs bool
	Root       string
}

// Enter confines the calling process. keep is the highest donated descriptor:
// everything above it that somebody leaked into us is closed. parent is the
// process that must outlive us. It must be called first in main, from the
// main goroutine locked to its thread.
func Enter(p Profile, keep, parent int) (State, error) {
	var st State
	if err := closeForeign(keep); err != nil {
		return st, err
	}
	ids := uidmap.Own() // while there is a /proc
	files, err := gather(p)
	if err != nil {
		return st, err
	}
	if err := enterRoot(files); err != nil {
		return st, err
	}
	// After the root was furnished: a worker may have no file size at all.
	if err := limit(p); err != nil {
		return st, err
	}
	id, err := becomeNobody(ids)
	if err != nil {
		return st, err
	}
	if err := bindToParent(parent); err != nil {
		return st, err
	}
	if err := noNewPrivs(); err != nil {
		return st, err
	}
	abi, err := restrictPaths(p, len(files) > 0)
	if err != nil {
		return st, err
	}
	if err := filter(p); err != nil {
		return st, err
	}
	st = State{UID: id, GID: id, Landlock: abi, Root: "empty"}
	if len(files) > 0 {
		st.Root = "files"
	}
	return st, readBack(&st)
}

// closeForeign closes what was not donated. The runtime's own epoll and
// eventfd may already exist and must live.
func closeForeign(keep int) error {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	self := int(dir.Fd())
	dir.Close()
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= keep || fd == self {
			continue
		}
		target, err := os.Readlink("/proc/self/fd/" + name)
		if err != nil || target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]" {
			continue
		}
		unix.Close(fd)
	}
	return nil
}

func limit(p Profile) error {
	// Past the file size limit write must answer EFBIG, not end the process.
	signal.Ignore(syscall.SIGXFSZ)
	debug.SetMemoryLimit(p.GoMemory)
	limits := []struct {
		what  int
		value uint64
	}{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_MEMLOCK, 0},
		{unix.RLIMIT_MSGQUEUE, 0},
		{unix.RLIMIT_NOFILE, p.OpenFiles},
		{unix.RLIMIT_FSIZE, p.FileSize},
		{unix.RLIMIT_DATA, p.Memory},
		{unix.RLIMIT_CPU, p.CPU},
	}
	for _, l := range limits {
		if l.what == unix.RLIMIT_CPU && l.value == 0 {
			continue
		}
		if err := lower(l.what, l.value); err != nil {
			return err
		}
	}
	return nil
}

// lower only ever lowers: raising a hard limit needs CAP_SYS_RESOURCE, which
// root lacks on some hosts. A hard limit of the host below ours stays.
func lower(what int, value uint64) error {
	var r unix.Rlimit
	if err := unix.Getrlimit(what, &r); err != nil {
		return fmt.Errorf("read limit %d: %w", what, err)
	}
	r.Max = min(r.Max, value)
	r.Cur = r.Max
	if err := unix.Setrlimit(what, &r); err != nil {
		return fmt.Errorf("lower limit %d to %d: %w", what, r.Max, err)
	}
	return nil
}

// userBase is the first of the ids workers live under: id = userBase + pid.
// A process of its own user can neither signal nor trace another worker, and
// RLIMIT_NPROC counts it alone. 2097152000…2101346304 lies above what subuid
// (to 600100000), systemd's containers (to 1879048191) and FreeIPA or SSSD
// (to 2000200000) hand out, and below systemd's foreign range (2147352576).
const userBase = 2097152000

// becomeNobody gives up root. It also empties the inheritable and ambient
// sets: leaving uid 0 clears the others.
//
// In the user namespace of an ordinary user it is one of the last ids that are
// mapped, which no image has. Where only one is, the worker keeps it, without
// any capability: what parts it from the user's other processes then is its
// root, its filter and Landlock.
func becomeNobody(ids uidmap.IDs) (int, error) {
	if os.Getuid() != 0 {
		return 0, errors.New("the worker has to be started by root to become a user of its own")
	}
	if ids.Sole() {
		return 0, giveUpCapabilities()
	}
	id := workerID(ids, os.Getpid())
	if err := syscall.Setgroups(nil); err != nil {
		return 0, fmt.Errorf("give up groups: %w", err)
	}
	if err := syscall.Setresgid(id, id, id); err != nil {
		return 0, fmt.Errorf("become group %d (is it mapped in this user namespace?): %w", id, err)
	}
	if err := syscall.Setresuid(id, id, id); err != nil {
		return 0, fmt.Errorf("become user %d (is it mapped in this user namespace?): %w", id, err)
	}
	return id, nil
}

// workerID chooses the id of a worker.
func workerID(ids uidmap.IDs, pid int) int {
	const some = 1 << 12 // so many ids at the end are the workers'
	switch {
	case ids.Host() || ids.Last() >= userBase:
		return userBase + pid
	case ids.Count() > 2*some:
		return int(ids.Last()) - pid%some
	}
	return int(ids.Last())
}

// giveUpCapabilities is for who stays root of a user namespace.
func giveUpCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give up ambient capabilities: %w", err)
	}
	for c := range uintptr(64) {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err == unix.EINVAL {
			break
		} else if err != nil {
			return fmt.Errorf("give up capability %d: %w", c, err)
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	// On all threads, as syscall.Setresuid is.
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&none[0])), 0); errno != 0 {
		return fmt.Errorf("give up capabilities: %w", errno)
	}
	return nil
}

// bindToParent ends the worker with its parent. It comes after the change of
// user, which clears the setting, and compares afterwards: the parent may
// have died in between.
func bindToParent(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("bind to parent: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("the parent is gone")
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("become undumpable: %w", err)
	}
	return nil
}

// noNewPrivs sets it on this thread; the filter's TSYNC carries it, with the
// filter, to every thread the runtime already has.
func noNewPrivs() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// readBack trusts the kernel's answer, not our own calls.
func readBack(st *State) error {
	ruid, euid, suid := unix.Getresuid()
	rgid, egid, sgid := unix.Getresgid()
	for _, id := range []int{ruid, euid, suid, rgid, egid, sgid} {
		if id != st.UID {
			return fmt.Errorf("still user or group %d", id)
		}
	}
	groups, err := unix.Getgroups()
	if err != nil {
		return fmt.Errorf("read back groups: %w", err)
	}
	if len(groups) != 0 && st.UID != 0 { // nobody may leave groups where one id is mapped
		return fmt.Errorf("still in groups %v", groups)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return fmt.Errorf("read back capabilities: %w", err)
	}
	if caps != [2]unix.CapUserData{} {
		return fmt.Errorf("still has capabilities %v", caps)
	}
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("read back no_new_privs: %w", err)
	}
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("read back seccomp mode: %w", err)
	}
	if nnp != 1 || mode != unix.SECCOMP_MODE_FILTER {
		return fmt.Errorf("no_new_privs is %d, seccomp mode is %d", nnp, mode)
	}
	st.NoNewPrivs, st.Seccomp = true, true
	return nil
}

// SetFileSize lowers the file size limit again once the order is known.
func SetFileSize(n uint64) error { return lower(unix.RLIMIT_FSIZE, n) }
