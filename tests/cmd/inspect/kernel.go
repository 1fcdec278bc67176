// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// probe is a system call that does nothing with the arguments it is given here,
// but tells by its errno whether a filter let it through.
type probe struct {
	number uintptr
	args   [6]uintptr
}

func probes() map[string]probe {
	bad := ^uintptr(0)
	return map[string]probe{
		"acct":               {unix.SYS_ACCT, [6]uintptr{bad}},
		"add_key":            {unix.SYS_ADD_KEY, [6]uintptr{bad, bad}},
		"bpf":                {unix.SYS_BPF, [6]uintptr{bad, bad}},
		"clone_newuser":      {unix.SYS_CLONE, [6]uintptr{unix.CLONE_NEWUSER | unix.CLONE_THREAD}},
		"fsopen":             {unix.SYS_FSOPEN, [6]uintptr{bad}},
		"init_module":        {unix.SYS_INIT_MODULE, [6]uintptr{bad}},
		"io_uring_setup":     {unix.SYS_IO_URING_SETUP, [6]uintptr{0, bad}},
		"kexec_load":         {unix.SYS_KEXEC_LOAD, [6]uintptr{0, bad, bad, bad}},
		"keyctl":             {unix.SYS_KEYCTL, [6]uintptr{bad}},
		"mount":              {unix.SYS_MOUNT, [6]uintptr{bad, bad}},
		"move_mount":         {unix.SYS_MOVE_MOUNT, [6]uintptr{bad, bad}},
		"name_to_handle_at":  {unix.SYS_NAME_TO_HANDLE_AT, [6]uintptr{bad, bad}},
		"open_by_handle_at":  {unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{bad, bad}},
		"perf_event_open":    {unix.SYS_PERF_EVENT_OPEN, [6]uintptr{bad}},
		"personality":        {unix.SYS_PERSONALITY, [6]uintptr{0xffffffff}},
		"pivot_root":         {unix.SYS_PIVOT_ROOT, [6]uintptr{bad, bad}},
		"ptrace":             {unix.SYS_PTRACE, [6]uintptr{bad}},
		"quotactl":           {unix.SYS_QUOTACTL, [6]uintptr{bad, bad}},
		"reboot":             {unix.SYS_REBOOT, [6]uintptr{0, 0}},
		"setns":              {unix.SYS_SETNS, [6]uintptr{bad}},
		"settimeofday":       {unix.SYS_SETTIMEOFDAY, [6]uintptr{bad}},
		"swapon":             {unix.SYS_SWAPON, [6]uintptr{bad}},
		"syslog":             {unix.SYS_SYSLOG, [6]uintptr{10}},
		"umount2":            {unix.SYS_UMOUNT2, [6]uintptr{bad}},
		"unshare_newns":      {unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWNS}},
		"unshare_newuser":    {unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWUSER}},
		"userfaultfd":        {unix.SYS_USERFAULTFD, [6]uintptr{bad}},
		"socket_vsock":       {unix.SYS_SOCKET, [6]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}},
		"getpid":             {unix.SYS_GETPID, [6]uintptr{}},
		"far_future_syscall": {1023, [6]uintptr{}},
	}
}

// probeSyscalls prints the errno each call ends with. A child makes the call,
// so that a filter that kills is told from one that refuses.
func probeSyscalls(args []string) (int, error) {
	all := probes()
	if len(args) == 2 && args[0] == "-raw" {
		p, ok := all[args[1]]
		if !ok {
			return 2, fmt.Errorf("no probe %q", args[1])
		}
		_, _, errno := unix.RawSyscall6(p.number, p.args[0], p.args[1], p.args[2], p.args[3], p.args[4], p.args[5])
		fmt.Print(strconv.Itoa(int(errno)))
		return 0, nil
	}
	if len(args) == 0 {
		for name := range all {
			args = append(args, name)
		}
	}
	out := map[string]string{}
	for _, name := range args {
		b, err := exec.Command("/proc/self/exe", "syscalls", "-raw", name).Output()
		if err != nil {
			out[name] = err.Error()
			continue
		}
		n, err := strconv.Atoi(string(b))
		if err != nil {
			return 1, fmt.Errorf("probe %s: %w", name, err)
		}
		out[name] = "ok"
		if n != 0 {
			out[name] = unix.ErrnoName(unix.Errno(n))
		}
	}
	return printJSON(out)
}
