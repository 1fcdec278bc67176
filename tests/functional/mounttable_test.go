// SPDX-License-Identifier: Apache-2.0

package functional

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHostsMountTable: no launch puts anything into the mount table of the
// host, not even for a moment, where all of its mounts are shared, as systemd
// has them: what is there for a moment covers directories of ours and others'.
func TestHostsMountTable(t *testing.T) {
	h, ref := box(t)
	h.Must("fetch", ref)
	h.Must("volume", "create", "data")
	dir := t.TempDir()

	// The thread is not given back, and ends with its namespace.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	for _, propagation := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", unix.MS_REC|propagation, ""); err != nil {
			t.Fatal(err)
		}
	}
	// Not by package os, whose poller would be told instead of us.
	table, err := unix.Open("/proc/thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(table)
	changed := func() bool {
		polls := []unix.PollFd{{Fd: int32(table), Events: unix.POLLPRI}}
		if _, err := unix.Poll(polls, 0); err != nil {
			t.Fatal(err)
		}
		return polls[0].Revents&unix.POLLPRI != 0
	}
	changed() // the first look begins the count

	// What the test itself attaches is noticed.
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if !changed() {
		t.Fatal("the kernel does not tell of a new mount")
	}
	if err := unix.Unmount(dir, 0); err != nil || !changed() {
		t.Fatalf("the kernel does not tell of a mount that went: %v", err)
	}
	for _, options := range [][]string{
		nil,
		{"--read-only"},
		{"--userns=auto"},
		{"--userns=auto", "--read-only"},
		{"-v", "data:/srv"},
		{"--userns=auto", "-v", "data:/srv", "-v", dir + ":/mnt:ro"},
		{"--mount", "type=image,src=" + ref + ",dst=/img,subpath=etc"},
		{"--mount", "type=bind,src=" + dir + ",dst=/img,bind-propagation=rslave"},
	} {
		h.Must(append(append([]string{"run", "--rm"}, options...), ref, "true")...)
		if changed() {
			t.Errorf("gantry run %q changes the host's mount table", options)
		}
	}
}
