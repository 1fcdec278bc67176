// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CgroupLayout is how a host's cgroups are mounted.
type CgroupLayout struct {
	V1      []string // hierarchies of version 1 by their controllers, as /proc/self/cgroup names them
	Unified bool     // version 2 is there
}

// HostCgroups reads the layout of this host.
func HostCgroups() (CgroupLayout, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return CgroupLayout{}, fmt.Errorf("read cgroup layout: %w", err)
	}
	return parseCgroups(string(b)), nil
}

func parseCgroups(text string) CgroupLayout {
	var l CgroupLayout
	for line := range strings.Lines(text) {
		fields := strings.SplitN(line, ":", 3)
		switch {
		case len(fields) < 3:
		case fields[0] == "0":
			l.Unified = true
		default:
			l.V1 = append(l.V1, fields[1])
		}
	}
	return l
}

// startTime is when a process started, in clock ticks since boot; with the
// pid and the boot it is an identity.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The command name may contain anything; it ends at the last bracket.
	_, rest, ok := bytes.Cut(b[bytes.LastIndexByte(b, ')'):], []byte(" "))
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("read /proc/%d/stat: too short", pid)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// terminalSize is the bundle's, or that of our own terminal.
func terminalSize(box *specs.Box) (rows, columns uint16) {
	if box != nil && box.Height|box.Width != 0 {
		return uint16(box.Height), uint16(box.Width)
	}
	for fd := range 3 {
		if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
			return size.Row, size.Col
		}
	}
	return 0, 0
}

// memfile is an anonymous sealed file with content. Its kind is MFD_EXEC or
// MFD_NOEXEC_SEAL: for who does not say, vm.memfd_noexec decides. Kernels
// before 6.3 know neither.
func memfile(name string, kind int, content []byte) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|kind)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("fill memory file: %w", err)
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("seal memory file: %w", err)
	}
	return f, nil
}
