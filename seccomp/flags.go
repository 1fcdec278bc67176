// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// flagTSync is in the specification and not in its Go package. It is about
// threads, of which none but the app's is left at its execve.
const flagTSync specs.LinuxSeccompFlag = "SECCOMP_FILTER_FLAG_TSYNC"

// KnownFlags are the words Validate takes for flags.
func KnownFlags() []specs.LinuxSeccompFlag {
	return []specs.LinuxSeccompFlag{
		flagTSync, specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv,
	}
}

// Flags are those of seccomp(2) that a valid section needs.
func Flags(sp *specs.LinuxSeccomp) uint64 {
	var flags uint64
	for _, f := range sp.Flags {
		flags |= flagBit(f)
	}
	if Notifies(sp) {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	return flags
}

func flagBit(f specs.LinuxSeccompFlag) uint64 {
	switch f {
	case specs.LinuxSeccompFlagLog:
		return unix.SECCOMP_FILTER_FLAG_LOG
	case specs.LinuxSeccompFlagSpecAllow:
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	case specs.LinuxSeccompFlagWaitKillableRecv:
		return unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	return 0
}

// FlagSupported asks the kernel for a flag.
func FlagSupported(f specs.LinuxSeccompFlag) bool {
	bit := flagBit(f)
	if bit == unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV { // says how a listener waits
		bit |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	return bit == 0 || kernelHas(bit)
}

// kernelHas asks for flags as seccomp(2) describes: without a filter, those the
// kernel has are answered with EFAULT, others with EINVAL.
func kernelHas(bits uint64) bool {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(bits), 0)
	return errno == unix.EFAULT
}

// checkKernel refuses by name what the kernel would with one word.
func checkKernel(sp *specs.LinuxSeccomp) error {
	for i, f := range sp.Flags {
		if !FlagSupported(f) {
			return fmt.Errorf("seccomp.flags[%d]: this kernel does not know %s", i, f)
		}
	}
	if Notifies(sp) && !kernelHas(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER) {
		return fmt.Errorf("seccomp.listenerPath: this kernel cannot notify of system calls")
	}
	return nil
}
