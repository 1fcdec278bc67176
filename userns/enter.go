// SPDX-License-Identifier: Apache-2.0

//go:build amd64 || arm64

package userns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Enter becomes this program again, with the same arguments, descriptors and
// process id, as root of a user namespace that belongs to us, and with a mount
// namespace of its own. It returns only on failure.
//
// The kernel lets no process of several threads enter a user namespace, and a
// Go program has several before main. So a program of one thread takes our
// place for six system calls: see step_amd64.s.
func Enter(ns *os.File, environ []string) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find our own executable: %w", err)
	}
	// It is closed by the program that joins through it.
	fd, err := unix.FcntlInt(ns.Fd(), unix.F_DUPFD, 3)
	if err != nil {
		return fmt.Errorf("keep user namespace: %w", err)
	}
	defer unix.Close(fd)
	step, err := program(fd, exe)
	if err != nil {
		return err
	}
	defer step.Close()
	err = unix.Exec(fmt.Sprintf("/proc/self/fd/%d", step.Fd()), os.Args, environ)
	return fmt.Errorf("enter user namespace: %w", err)
}

// New makes a user namespace that nobody is in.
func New(uids, gids []Map) (*os.File, error) {
	// The process is stopped by its execve, before it does anything, because it
	// has its parent trace it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"gantry-userns"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, Ptrace: true, Pdeathsig: unix.SIGKILL},
	})
	if err != nil {
		return nil, &Refused{err}
	}
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
				return
			}
		}
	}()
	if err := write(pid, uids, gids); err != nil {
		return nil, err
	}
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
}

// Refused means that this user may make no user namespace.
type Refused struct{ Err error }

func (e *Refused) Error() string { return fmt.Sprintf("make user namespace: %v", e.Err) }

// Unwrap returns what the kernel said.
func (e *Refused) Unwrap() error { return e.Err }

// Hint says what usually stands in the way.
func (e *Refused) Hint() string {
	return "this host keeps ordinary users from it: see user.max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns (sysctl), or run gantry as root"
}

// write writes the maps of a process. Our own id we may map ourselves; more
// are given out by newuidmap(1) and newgidmap(1).
func write(pid int, uids, gids []Map) error {
	if own(uids, os.Geteuid()) && own(gids, os.Getegid()) {
		dir := fmt.Sprintf("/proc/%d/", pid)
		for _, f := range [][2]string{{"setgroups", "deny"}, {"uid_map", text(uids)}, {"gid_map", text(gids)}} {
			if err := os.WriteFile(dir+f[0], []byte(f[1]), 0); err != nil {
				return &Refused{err}
			}
		}
		return nil
	}
	for _, m := range []struct {
		program string
		maps    []Map
	}{{"newuidmap", uids}, {"newgidmap", gids}} {
		args := append([]string{strconv.Itoa(pid)}, strings.Fields(text(m.maps))...)
		if out, err := exec.Command(m.program, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("map ids: %s: %w: %s", m.program, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

func own(maps []Map, id int) bool {
	return len(maps) == 1 && maps[0].Size == 1 && int(maps[0].Outside) == id
}

func text(maps []Map) string {
	var b strings.Builder
	for _, m := range maps {
		fmt.Fprintf(&b, "%d %d %d\n", m.Inside, m.Outside, m.Size)
	}
	return b.String()
}

// step is the program; stepAddress is where its instructions are.
func step() //nolint:unused // its instructions are copied, nobody calls it
func stepAddress() uintptr

// Where the program and what it needs lie in memory and in its file. The
// instructions know stepBase+stepData.
const (
	stepBase = 0x400000
	stepCode = 0x200
	stepMost = 0x400 // more than the instructions take: what follows is never reached
	stepData = 0x800
	stepHead = 24 // descriptor, address and length of the message, the path
)

const stepMessage = "gantry: error: enter the user namespace: the kernel refused it\n"

// program makes the ELF file that joins the user namespace at fd, becomes its
// root and executes exe.
func program(fd int, exe string) (*os.File, error) {
	if strings.ContainsRune(exe, 0) || len(exe) >= unix.PathMax {
		return nil, errors.New("find our own executable: its path is too long")
	}
	b := make([]byte, stepData+stepHead+len(exe)+1+len(stepMessage))
	elfHeader(b)
	copy(b[stepCode:stepData], unsafe.Slice((*byte)(*(*unsafe.Pointer)(ptr(stepAddress()))), stepMost))
	data := b[stepData:]
	binary.LittleEndian.PutUint64(data, uint64(fd))
	binary.LittleEndian.PutUint64(data[8:], uint64(stepBase+stepData+stepHead+len(exe)+1))
	binary.LittleEndian.PutUint64(data[16:], uint64(len(stepMessage)))
	copy(data[stepHead:], exe)
	copy(data[stepHead+len(exe)+1:], stepMessage)
	return executable(b)
}

// ptr lets an address that is no object of Go's be read.
func ptr(a uintptr) unsafe.Pointer { return unsafe.Pointer(&a) }

// elfHeader writes a header with one segment: all of the file, to be read and
// executed.
func elfHeader(b []byte) {
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01") // 64 bits, little-endian
	machine := uint16(62)          // EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = 183
	}
	le.PutUint16(b[16:], 2) // ET_EXEC
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], stepBase+stepCode) // entry
	le.PutUint64(b[32:], 64)                // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	p := b[64:]
	le.PutUint32(p, 1)     // PT_LOAD
	le.PutUint32(p[4:], 5) // read, execute
	le.PutUint64(p[16:], stepBase)
	le.PutUint64(p[24:], stepBase)
	le.PutUint64(p[32:], uint64(len(b)))
	le.PutUint64(p[40:], uint64(len(b)))
	le.PutUint64(p[48:], 0x1000)
}

// executable puts a program into memory and opens it for nothing but reading:
// what somebody may write cannot be executed.
func executable(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("gantry-userns", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("gantry-userns", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make a program in memory (vm.memfd_noexec=2 forbids it): %w", err)
	}
	f := os.NewFile(uintptr(fd), "gantry-userns")
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return nil, fmt.Errorf("make a program in memory: %w", err)
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}
