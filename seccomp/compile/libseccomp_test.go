// SPDX-License-Identifier: Apache-2.0

//go:build cgo && libseccomp

package compile

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/seccomp"
)

const (
	allow   = uint32(unix.SECCOMP_RET_ALLOW)
	mainArg = "GANTRY_SECCOMP_TEST_FILTER"
)

func compileDefault(t testing.TB, caps ...string) (*specs.LinuxSeccomp, []byte) {
	t.Helper()
	sp, err := seccomp.Default(caps)
	if err != nil {
		t.Fatal(err)
	}
	program, err := Compile(sp)
	if err != nil {
		t.Fatal(err)
	}
	return sp, program
}

// Every call of every architecture gets what the profile says, by a reading
// of the profile that is as dumb as can be.
func TestDefaultProfileDecidesAsWritten(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("ability missing: amd64")
	}
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN"}, {"CAP_SYS_PTRACE", "CAP_NET_ADMIN", "CAP_SYS_TIME"}} {
		sp, program := compileDefault(t, caps...)
		for _, a := range []struct {
			token libseccomp.ScmpArch
			word  uint32
			base  uint32
		}{
			{libseccomp.ArchAMD64, unix.AUDIT_ARCH_X86_64, 0},
			{libseccomp.ArchX86, unix.AUDIT_ARCH_I386, 0},
			{libseccomp.ArchX32, unix.AUDIT_ARCH_X86_64, x32Bit},
		} {
			top := topOf(sp, a.token)
			for nr := a.base; nr <= a.base+700; nr++ {
				name, err := libseccomp.ScmpSyscall(nr).GetNameByArch(a.token)
				if err != nil {
					name = ""
				}
				want, sure := expect(sp, name, a.token, nr, top)
				if !sure {
					continue
				}
				if got := simulate(t, program, a.word, nr); got != want {
					t.Errorf("caps %v: %s call %d %q gives %#x, want %#x", caps, a.token, nr&^x32Bit, name, got, want)
				}
			}
		}
	}
}

func topOf(sp *specs.LinuxSeccomp, arch libseccomp.ScmpArch) uint32 {
	top := int64(-1)
	for _, c := range sp.Syscalls {
		for _, name := range c.Names {
			if n, err := libseccomp.GetSyscallFromNameByArch(name, arch); err == nil {
				top = max(top, int64(n))
			}
		}
	}
	return uint32(top)
}

// expect reads the profile for a call with all arguments zero. It is not sure
// where libseccomp translates calls between architectures (socket and ipc
// calls of i386).
func expect(sp *specs.LinuxSeccomp, name string, arch libseccomp.ScmpArch, nr, top uint32) (uint32, bool) {
	if nr > top {
		return errno(unix.ENOSYS), true
	}
	if name == "" {
		return errno(unix.EPERM), true
	}
	if arch != libseccomp.ArchAMD64 {
		if _, err := libseccomp.GetSyscallFromName(name); err != nil {
			return 0, false
		}
	}
	if n, err := libseccomp.GetSyscallFromNameByArch(name, arch); err != nil || uint32(n) != nr || name == "socketcall" || name == "ipc" {
		return 0, false
	}
	named := false
	for _, c := range sp.Syscalls {
		if !slices.Contains(c.Names, name) {
			continue
		}
		named = true
		if len(c.Args) == 0 {
			if c.Action == specs.ActErrno {
				return errno(unix.Errno(*c.ErrnoRet)), true
			}
			return allow, true
		}
	}
	return errno(unix.EPERM), !named
}

// Arguments: what the default profile lets through and what not.
func TestDefaultProfileArguments(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("ability missing: amd64")
	}
	_, plain := compileDefault(t)
	_, admin := compileDefault(t, "CAP_SYS_ADMIN")
	const perm = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for _, tt := range []struct {
		name    string
		program []byte
		nr      uint32
		args    []uint64
		want    uint32
	}{
		{"a thread", plain, unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_THREAD}, allow},
		{"a user namespace", plain, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER}, perm},
		{"a user namespace, upper half set", plain, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | 1<<40}, perm},
		{"with CAP_SYS_ADMIN", admin, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER}, allow},
		{"clone3 cannot be looked into", plain, unix.SYS_CLONE3, nil, errno(unix.ENOSYS)},
		{"clone3 with CAP_SYS_ADMIN", admin, unix.SYS_CLONE3, nil, allow},
		{"unshare", plain, unix.SYS_UNSHARE, []uint64{unix.CLONE_NEWNS}, perm},
		{"mount", plain, unix.SYS_MOUNT, nil, perm},
		{"mount with CAP_SYS_ADMIN", admin, unix.SYS_MOUNT, nil, allow},
		{"fsopen", plain, unix.SYS_FSOPEN, nil, perm},
		{"a stream socket", plain, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM}, allow},
		{"vsock", plain, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK}, perm},
		{"the kernel's crypto", plain, unix.SYS_SOCKET, []uint64{unix.AF_ALG}, perm},
		{"personality as it is", plain, unix.SYS_PERSONALITY, []uint64{0}, allow},
		{"no address randomisation", plain, unix.SYS_PERSONALITY, []uint64{0x40000}, perm},
		{"keys", plain, unix.SYS_ADD_KEY, nil, perm},
		{"bpf", plain, unix.SYS_BPF, nil, perm},
		{"io_uring", plain, unix.SYS_IO_URING_SETUP, nil, perm},
		{"modules", admin, unix.SYS_FINIT_MODULE, nil, perm},
	} {
		if got := simulate(t, tt.program, unix.AUDIT_ARCH_X86_64, tt.nr, tt.args...); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

func section(t *testing.T, text string) *specs.LinuxSeccomp {
	t.Helper()
	sp, err := seccomp.Load([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return sp
}

// Every action and operator, and two conditions on one argument, which mean
// "or" by custom.
func TestActionsAndOperators(t *testing.T) {
	sp := section(t, `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
		{"names": ["read"], "action": "SCMP_ACT_KILL"},
		{"names": ["write"], "action": "SCMP_ACT_KILL_PROCESS"},
		{"names": ["open"], "action": "SCMP_ACT_TRAP"},
		{"names": ["close"], "action": "SCMP_ACT_ERRNO", "errno": "EIO"},
		{"names": ["stat"], "action": "SCMP_ACT_LOG"},
		{"names": ["fstat"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
		{"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 5, "op": "SCMP_CMP_LT"}]},
		{"names": ["mmap"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 5, "op": "SCMP_CMP_GE"}, {"index": 2, "value": 4, "valueTwo": 4, "op": "SCMP_CMP_MASKED_EQ"}]},
		{"names": ["dup2"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}
	]}`)
	program, err := Compile(sp)
	if err != nil {
		t.Fatal(err)
	}
	const perm = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for _, tt := range []struct {
		nr   uint32
		args []uint64
		want uint32
	}{
		{unix.SYS_READ, nil, unix.SECCOMP_RET_KILL_THREAD},
		{unix.SYS_WRITE, nil, unix.SECCOMP_RET_KILL_PROCESS},
		{unix.SYS_OPEN, nil, unix.SECCOMP_RET_TRAP},
		{unix.SYS_CLOSE, nil, errno(unix.EIO)},
		{unix.SYS_STAT, nil, unix.SECCOMP_RET_LOG},
		{unix.SYS_FSTAT, nil, unix.SECCOMP_RET_TRACE | 7},
		{unix.SYS_LSEEK, []uint64{4}, perm},
		{unix.SYS_LSEEK, []uint64{5}, allow},
		{unix.SYS_LSEEK, []uint64{1 << 40}, allow},
		{unix.SYS_MMAP, []uint64{0, 5, 4}, perm},
		{unix.SYS_MMAP, []uint64{0, 5, 3}, allow},
		{unix.SYS_MMAP, []uint64{0, 4, 4}, allow},
		{unix.SYS_DUP2, []uint64{1}, perm},
		{unix.SYS_DUP2, []uint64{2}, perm},
		{unix.SYS_DUP2, []uint64{3}, allow},
		{9999, nil, allow},
	} {
		if got := simulate(t, program, unix.AUDIT_ARCH_X86_64, tt.nr, tt.args...); got != tt.want {
			t.Errorf("call %d%v gives %#x, want %#x", tt.nr, tt.args, got, tt.want)
		}
	}
	// i386 is not in this profile: libseccomp's answer is to kill.
	if got := simulate(t, program, unix.AUDIT_ARCH_I386, 1); got != unix.SECCOMP_RET_KILL_THREAD {
		t.Errorf("a call of another architecture gives %#x, want a kill", got)
	}
}

// A name libseccomp does not know: allowing it is nothing, forbidding it
// cannot be promised.
func TestUnknownNames(t *testing.T) {
	if _, err := Compile(section(t, `{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read", "flux_capacitor"], "action": "SCMP_ACT_ALLOW"}]}`)); err != nil {
		t.Errorf("allow: %v", err)
	}
	_, err := Compile(section(t, `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["flux_capacitor"], "action": "SCMP_ACT_ERRNO"}]}`))
	if err == nil || !strings.Contains(err.Error(), "flux_capacitor") {
		t.Errorf("forbid: %v, want an error with the name", err)
	}
}

func TestDefaultProfileFits(t *testing.T) {
	_, program := compileDefault(t)
	t.Logf("libseccomp %s: %d instructions", Version(), len(program)/8)
	if len(program)/8 > maxInstructions {
		t.Error("too many")
	}
}

// In a child: install the filter named by the environment and try the calls
// on the command line.
func TestMain(m *testing.M) {
	path := os.Getenv(mainArg)
	if path == "" {
		os.Exit(m.Run())
	}
	if err := tryCalls(path, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func tryCalls(path string, calls []string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(b) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&b[0]))}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); e != 0 {
		return fmt.Errorf("install filter: %w", e)
	}
	got := map[string]syscall.Errno{}
	for _, call := range calls {
		var nr, arg uintptr
		if _, err := fmt.Sscanf(call, "%d:%d", &nr, &arg); err != nil {
			return err
		}
		_, _, e := unix.RawSyscall(nr, arg, 0, 0)
		got[call] = e
	}
	return json.NewEncoder(os.Stdout).Encode(got)
}

// The kernel agrees: in a process under the default profile, a call that does
// not exist is answered as by a kernel without it, a known denied one with
// EPERM, and allowed ones run.
func TestDefaultProfileInTheKernel(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("ability missing: amd64")
	}
	_, program := compileDefault(t)
	path := t.TempDir() + "/filter"
	if err := os.WriteFile(path, program, 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]syscall.Errno{}
	var calls []string
	try := func(nr, arg uintptr, e syscall.Errno) {
		call := fmt.Sprintf("%d:%d", nr, arg)
		calls, want[call] = append(calls, call), e
	}
	try(unix.SYS_GETPID, 0, 0)
	try(unix.SYS_UNAME, 0, unix.EFAULT) // allowed: the kernel itself looks at the pointer
	try(unix.SYS_MOUNT, 0, unix.EPERM)
	try(unix.SYS_BPF, 9999, unix.EPERM) // the kernel would say EINVAL
	try(unix.SYS_UNSHARE, unix.CLONE_NEWUSER, unix.EPERM)
	try(unix.SYS_CLONE3, 0, unix.ENOSYS)
	try(unix.SYS_SOCKET, unix.AF_VSOCK, unix.EPERM)
	try(9999, 0, unix.ENOSYS)
	try(x32Bit|unix.SYS_MOUNT, 0, unix.EPERM)
	try(x32Bit|9999, 0, unix.ENOSYS)

	cmd := exec.Command("/proc/self/exe", calls...)
	cmd.Env = []string{mainArg + "=" + path}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]syscall.Errno
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	for _, call := range calls {
		if got[call] != want[call] {
			t.Errorf("call %s: %v, want %v", call, got[call], want[call])
		}
	}
}

func BenchmarkCompileDefault(b *testing.B) {
	sp, err := seccomp.Default(nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Compile(sp); err != nil {
			b.Fatal(err)
		}
	}
}
