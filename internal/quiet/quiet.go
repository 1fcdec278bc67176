// SPDX-License-Identifier: Apache-2.0

// Package quiet keeps the Go runtime from working beside a launch.
//
// It samples allocations for a profile that nobody asks for, a fortieth of a
// launch of five milliseconds. And its monitor is a thread that sleeps 20 µs at
// a time until nothing happened for a millisecond, and begins anew after every
// wait of the program. In such a launch it wakes seventy times, mostly on the
// processor of the one thread that works, which it interrupts: an eighth of it.
// A larger timer slack lets the kernel put its wakings off until a processor
// is awake for something else anyway. What it does (taking processors back
// from long system calls, polling the network) comes as late as it does in any
// program that is idle.
package quiet

import (
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// slack is what the monitor sleeps at most by itself, in nanoseconds.
const slack = "10000000"

// Runtime turns the sampling off and slows the monitor of this process down.
// That takes CAP_SYS_NICE (the thread is not the one that writes); without it
// the monitor stays as it is.
func Runtime() {
	runtime.MemProfileRate = 0
	tid := second()
	if tid == 0 {
		return
	}
	// A thread is found by its number, though only processes are listed.
	fd, err := unix.Open("/proc/"+strconv.Itoa(tid)+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0) //nolint:forbidigo // our own, on the host
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte(slack))
	_ = unix.Close(fd)
}

// second is the thread the runtime starts after the first, which is its
// monitor; 0 if it cannot be told.
func second() int {
	fd, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) //nolint:forbidigo // our own, on the host
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var buf [512]byte
	n, err := unix.ReadDirent(fd, buf[:])
	if err != nil || n <= 0 {
		return 0
	}
	_, _, names := unix.ParseDirent(buf[:n], -1, nil)
	first, found := unix.Getpid(), 0
	for _, name := range names {
		if tid, err := strconv.Atoi(name); err == nil && tid > first && (found == 0 || tid < found) {
			found = tid
		}
	}
	return found
}
