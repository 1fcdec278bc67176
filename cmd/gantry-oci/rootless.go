// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1/container"
)

// insideArg is the command of the process that is made for an ordinary user:
// it waits for its ids, and becomes us as root of its user namespace.
const (
	insideArg = "inside-userns"
	readyArg  = "ready"
)

// mustEnter tells whether we have to be root of a user namespace to make a
// container, and are not.
func (g *globals) mustEnter() bool { return os.Geteuid() != 0 && !g.inside }

// enterUserns runs this command line again in the user namespace of a bundle,
// and ends as that does.
func (c *call) enterUserns(bundle string) error {
	if c.rootless == "false" {
		return errors.New("--rootless=false: an ordinary user makes containers as root of a user namespace, or not at all")
	}
	uids, gids, err := container.UserMappings(bundle)
	if err != nil {
		return err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[1])
	again := append([]string{"gantry-oci", insideArg, strconv.Itoa(pipe[0])}, c.again()...)
	// Inherited like the descriptors a caller wants preserved, in its place.
	_, err = unix.FcntlInt(uintptr(pipe[0]), unix.F_SETFD, 0)
	if err != nil {
		return err
	}
	pid, err := syscall.ForkExec("/proc/self/exe", again, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS},
	})
	_ = unix.Close(pipe[0])
	if err != nil {
		return fmt.Errorf("linux.namespaces: make user namespace: %w", err)
	}
	if err := writeMaps(pid, uids, gids); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
		return err
	}
	if _, err := unix.Write(pipe[1], []byte{1}); err != nil {
		return err
	}
	return follow(pid)
}

// again is the command line that was given, with what depends on who we are.
func (c *call) again() []string {
	out := []string{"--root", c.root, "--log", c.log, "--log-format", c.logFormat, "--cgroup-manager", c.cgroupManager}
	return append(out, c.line...)
}

// follow passes signals on to a child and ends as it does.
func follow(pid int) error {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	go func() {
		for s := range signals {
			if sig, ok := s.(syscall.Signal); ok && sig != unix.SIGCHLD && sig != unix.SIGURG && sig != unix.SIGPIPE {
				_ = unix.Kill(pid, sig)
			}
		}
	}()
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		switch {
		case err != nil:
			return err
		case status.Signaled():
			return exitError(128 + int(status.Signal()))
		case status.ExitStatus() != 0:
			return exitError(status.ExitStatus())
		}
		return nil
	}
}

// writeMaps writes the maps of a process: our own id we may map ourselves,
// more are given out by newuidmap and newgidmap.
func writeMaps(pid int, uids, gids []specs.LinuxIDMapping) error {
	if single(uids, os.Geteuid()) && single(gids, os.Getegid()) {
		dir := fmt.Sprintf("/proc/%d/", pid)
		err := os.WriteFile(dir+"setgroups", []byte("deny"), 0)
		if err == nil {
			err = os.WriteFile(dir+"uid_map", mapText(uids), 0)
		}
		if err == nil {
			err = os.WriteFile(dir+"gid_map", mapText(gids), 0)
		}
		if err != nil {
			return fmt.Errorf("linux.uidMappings: %w", err)
		}
		return nil
	}
	for _, m := range []struct {
		program, field string
		maps           []specs.LinuxIDMapping
	}{{"newuidmap", "linux.uidMappings", uids}, {"newgidmap", "linux.gidMappings", gids}} {
		args := append([]string{strconv.Itoa(pid)}, strings.Fields(string(mapText(m.maps)))...)
		out, err := exec.Command(m.program, args...).CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("%s: more than the own id %d is asked for, and %s is not installed (package uidmap)", m.field, os.Geteuid(), m.program)
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w: %s", m.field, m.program, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

func single(maps []specs.LinuxIDMapping, id int) bool {
	return len(maps) == 1 && maps[0].Size == 1 && int(maps[0].HostID) == id
}

func mapText(maps []specs.LinuxIDMapping) []byte {
	var b strings.Builder
	for _, m := range maps {
		fmt.Fprintf(&b, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return []byte(b.String())
}

// goInside waits until the ids are mapped, and becomes gantry-oci as root of
// the namespace: before its execve it has the capabilities of nobody.
func goInside(args []string) error {
	if len(args) < 2 {
		return errors.New(insideArg + " is not for people")
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	if n, err := unix.Read(fd, b); err != nil || n != 1 {
		return errors.New("the ids of the user namespace were not mapped")
	}
	_ = unix.Close(fd)
	if err := syscall.Setresgid(0, 0, 0); err != nil {
		return fmt.Errorf("become root of the user namespace: %w", err)
	}
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return fmt.Errorf("become root of the user namespace: %w", err)
	}
	again := append([]string{"gantry-oci", insideArg, readyArg}, args[1:]...)
	return syscall.Exec("/proc/self/exe", again, os.Environ())
}
