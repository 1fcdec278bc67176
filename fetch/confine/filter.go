// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter is an allow-list. What is not on it answers EPERM, not death:
// the Go runtime and its libraries probe for newer calls and fall back, and a
// worker killed by a kernel upgrade would be a broken fetch on a host where
// nothing is wrong. Calls that no worker could ever make by mistake kill the
// process, so that an exploit which tries one is seen in the parent's message.

// base is what the Go runtime on 6.12 and 6.18 and reading, writing and
// seeking in donated descriptors need. Calls whose arguments matter are in
// guards.
func base() []uint32 {
	return append(archBase(),
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV,
		unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_LSEEK, unix.SYS_CLOSE,
		unix.SYS_FSTAT, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_COPY_FILE_RANGE,
		unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_BRK, unix.SYS_MREMAP,
		unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY,
		unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
		unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETTID,
		unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
		unix.SYS_GETRESUID, unix.SYS_GETRESGID, unix.SYS_GETGROUPS, unix.SYS_CAPGET,
		unix.SYS_GETRLIMIT, unix.SYS_SETRLIMIT, unix.SYS_GETRUSAGE,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
		unix.SYS_PIPE2, unix.SYS_DUP, unix.SYS_DUP3,
		unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_GETSOCKOPT,
		unix.SYS_GETRANDOM, unix.SYS_RESTART_SYSCALL, unix.SYS_RSEQ, unix.SYS_SET_ROBUST_LIST,
		unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	)
}

// network is what the net worker needs beyond base.
func network() []uint32 {
	return []uint32{
		unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
		unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SHUTDOWN, unix.SYS_SPLICE, unix.SYS_SENDFILE,
		unix.SYS_OPENAT, unix.SYS_NEWFSTATAT, unix.SYS_GETDENTS64, unix.SYS_READLINKAT, unix.SYS_UNAME,
	}
}

// deadly calls have no business in any worker.
func deadly() []uint32 {
	return []uint32{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE,
		unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
		unix.SYS_MOUNT, unix.SYS_MOVE_MOUNT, unix.SYS_PIVOT_ROOT, unix.SYS_UNSHARE, unix.SYS_SETNS,
		unix.SYS_BPF, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_KEXEC_LOAD,
		unix.SYS_IO_URING_SETUP, unix.SYS_USERFAULTFD, unix.SYS_ADD_KEY, unix.SYS_KEYCTL,
	}
}

// Offsets in struct seccomp_data; arguments are 64 bits, low half first on
// the little-endian machines we build for.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

func lo(arg int) uint32 { return uint32(offArgs + 8*arg) }

// guard allows one call when the condition on its arguments holds.
type guard struct {
	nr   uint32
	test []unix.SockFilter // leaves by ret
}

var (
	allow = ret(unix.SECCOMP_RET_ALLOW)
	deny  = ret(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	kill  = ret(unix.SECCOMP_RET_KILL_PROCESS)
)

func ret(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
func load(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: k}
}

func jump(op uint16, k uint32, t, f uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: t, Jf: f, K: k}
}

// argument guards.
func guards(p Profile, pid uint32) []guard {
	noExec := []unix.SockFilter{load(lo(2)), jump(unix.BPF_JSET, unix.PROT_EXEC, 0, 1), deny, allow}
	g := []guard{
		// No memory becomes code: nothing we link maps any after start.
		{unix.SYS_MMAP, noExec},
		{unix.SYS_MPROTECT, noExec},
		// Threads, never processes. clone3 hides its flags from us; the
		// runtime does not use it.
		{unix.SYS_CLONE, []unix.SockFilter{load(lo(0)), jump(unix.BPF_JSET, unix.CLONE_THREAD, 0, 1), allow, deny}},
		// The runtime preempts its own threads by signal; nobody else's.
		{unix.SYS_TGKILL, []unix.SockFilter{load(lo(0)), jump(unix.BPF_JEQ, pid, 0, 1), allow, deny}},
		{unix.SYS_FCNTL, oneOf(1, unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD, unix.F_DUPFD_CLOEXEC)},
		{unix.SYS_PRCTL, oneOf(0, unix.PR_GET_NO_NEW_PRIVS, unix.PR_GET_SECCOMP, unix.PR_GET_DUMPABLE, unix.PR_GET_PDEATHSIG)},
		// Only our own limits: pid 0.
		{unix.SYS_PRLIMIT64, oneOf(0, 0)},
	}
	if p.Network {
		g = append(g, guard{unix.SYS_SOCKET, oneOf(0, unix.AF_INET, unix.AF_INET6)})
	}
	return g
}

// oneOf allows when the argument is one of values.
func oneOf(arg int, values ...uint32) []unix.SockFilter {
	prog := []unix.SockFilter{load(lo(arg))}
	for i, v := range values {
		prog = append(prog, jump(unix.BPF_JEQ, v, uint8(len(values)-i), 0))
	}
	return append(prog, deny, allow)
}

// program is the whole filter, a value: it can be tested without installing.
func program(p Profile, pid uint32) []unix.SockFilter {
	prog := []unix.SockFilter{
		load(offArch), jump(unix.BPF_JEQ, auditArch, 1, 0), kill,
		load(offNr),
	}
	prog = append(prog, archPrologue()...)
	for _, g := range guards(p, pid) {
		prog = append(prog, jump(unix.BPF_JEQ, g.nr, 0, uint8(len(g.test))))
		prog = append(prog, g.test...)
	}
	allowed := base()
	if p.Network {
		allowed = append(allowed, network()...)
	}
	slices.Sort(allowed)
	for _, nr := range slices.Compact(allowed) {
		prog = append(prog, jump(unix.BPF_JEQ, nr, 0, 1), allow)
	}
	for _, nr := range deadly() {
		prog = append(prog, jump(unix.BPF_JEQ, nr, 0, 1), kill)
	}
	return append(prog, deny)
}

// filter installs the program on every thread at once.
func filter(p Profile) error {
	prog := program(p, uint32(os.Getpid()))
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if e != 0 {
		return fmt.Errorf("install system call filter: %w", e)
	}
	return nil
}
