// SPDX-License-Identifier: Apache-2.0

package child

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// All of this thread, the one that becomes the app: the runtime's others end
// at its execve.

func schedAttr(s *stage1.Scheduler) unix.SchedAttr {
	return unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: s.Policy, Flags: s.Flags, Nice: s.Nice, Priority: s.Priority,
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
}

func scheduler(s *stage1.Scheduler) *stage1.StepError {
	attr := schedAttr(s)
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(&attr)), 0)
	return attempt("set scheduler", s.Name, errno)
}

// ioPriority is for the process group, as config.md says; it is the app's own.
func ioPriority(io *stage1.IOPriority) *stage1.StepError {
	const group = 2 // IOPRIO_WHO_PGRP
	_, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, group, 0, uintptr(io.Value))
	return attempt("set IO priority", io.Class+" "+itoa(io.Priority), errno)
}

func affinity(a *stage1.Affinity) *stage1.StepError {
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(8*len(a.Mask)), uintptr(unsafe.Pointer(&a.Mask[0])))
	return attempt("set CPU affinity", a.List, errno)
}

func memPolicy(m *stage1.MemPolicy) *stage1.StepError {
	var mask *uint64
	bits := 0
	if len(m.Mask) > 0 {
		mask, bits = &m.Mask[0], 64*len(m.Mask)+1 // the kernel takes one away
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SET_MEMPOLICY, uintptr(m.Mode), uintptr(unsafe.Pointer(mask)), uintptr(bits))
	return attempt("set memory policy", m.Name, errno)
}

func attempt(step, name string, errno unix.Errno) *stage1.StepError {
	if errno == 0 {
		return nil
	}
	return failed(step, name, errno)
}
