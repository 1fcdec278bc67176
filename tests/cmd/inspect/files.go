// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func writeFile(args []string) (int, error) {
	if err := want(args, 2, "write PATH TEXT"); err != nil {
		return 2, err
	}
	return 0, os.WriteFile(args[0], []byte(args[1]), 0o666)
}

func appendFile(args []string) (int, error) {
	if err := want(args, 2, "append PATH TEXT"); err != nil {
		return 2, err
	}
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return 1, err
	}
	_, err = f.WriteString(args[1])
	return 0, errors.Join(err, f.Close())
}

func readFile(args []string) (int, error) {
	for _, name := range args {
		b, err := os.ReadFile(name)
		if err != nil {
			return 1, err
		}
		os.Stdout.Write(b)
	}
	return 0, nil
}

// stat is what stat(2) says, in numbers and one word for the type.
type stat struct {
	Path  string `json:"path"`
	Type  string `json:"type"`
	Mode  string `json:"mode"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"`
	Nlink uint64 `json:"nlink"`
	Rdev  string `json:"rdev,omitempty"`
	Link  string `json:"link,omitempty"`
}

func statFile(args []string) (int, error) {
	var out []stat
	for _, name := range args {
		fi, err := os.Lstat(name)
		if err != nil {
			return 1, err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return 1, fmt.Errorf("no stat of %s", name)
		}
		s := stat{
			Path: name, Type: fileType(fi.Mode()), Mode: fmt.Sprintf("%04o", st.Mode&0o7777),
			UID: st.Uid, GID: st.Gid, Size: st.Size, Mtime: st.Mtim.Sec, Nlink: uint64(st.Nlink),
		}
		if fi.Mode()&os.ModeDevice != 0 {
			s.Rdev = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if fi.Mode()&os.ModeSymlink != 0 {
			s.Link, _ = os.Readlink(name)
		}
		out = append(out, s)
	}
	return printJSON(out)
}

func fileType(m os.FileMode) string {
	switch {
	case m.IsRegular():
		return "file"
	case m.IsDir():
		return "dir"
	case m&os.ModeSymlink != 0:
		return "symlink"
	case m&os.ModeCharDevice != 0:
		return "char"
	case m&os.ModeDevice != 0:
		return "block"
	case m&os.ModeNamedPipe != 0:
		return "fifo"
	case m&os.ModeSocket != 0:
		return "socket"
	}
	return "unknown"
}

// openFile tries to open each path read-write, and then read-only, and says
// what came of it, errno by name.
func openFile(args []string) (int, error) {
	out := map[string]string{}
	for _, name := range args {
		out[name] = "rw"
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != nil {
			fd, err = unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
			out[name] = "ro"
		}
		if err != nil {
			out[name] = errnoName(err)
			continue
		}
		unix.Close(fd)
	}
	return printJSON(out)
}

func makeNode(args []string) (int, error) {
	if err := want(args, 3, "mknod PATH MAJOR MINOR"); err != nil {
		return 2, err
	}
	major, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return 2, err
	}
	minor, err := strconv.ParseUint(args[2], 10, 32)
	if err != nil {
		return 2, err
	}
	return 0, unix.Mknod(args[0], unix.S_IFCHR|0o666, int(unix.Mkdev(uint32(major), uint32(minor))))
}

func unmount(args []string) (int, error) {
	for _, target := range args {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			return 1, fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	return 0, nil
}

// overwriteExe is the attack of CVE-2019-5736: open for writing what every
// visible process executes, ours excepted, and the program that started us.
func overwriteExe([]string) (int, error) {
	out := map[string]string{}
	for _, pid := range append(processes(), "self") {
		path := "/proc/" + pid + "/exe"
		target, err := os.Readlink(path)
		if err != nil {
			continue
		}
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			out[pid+" "+target] = errnoName(err)
			continue
		}
		unix.Close(fd)
		out[pid+" "+target] = "writable"
	}
	return printJSON(out)
}

// output writes N bytes in lines of 100, for log paths and their speed.
func output(args []string) (int, error) {
	n, err := number(args, 1<<20)
	if err != nil {
		return 2, err
	}
	w := bufio.NewWriterSize(os.Stdout, 64<<10)
	line := []byte(strings.Repeat("0123456789", 10)[:99] + "\n")
	for n > 0 {
		k := min(n, len(line))
		if _, err := w.Write(line[len(line)-k:]); err != nil {
			return 1, err
		}
		n -= k
	}
	return 0, w.Flush()
}

func cat([]string) (int, error) {
	_, err := io.Copy(os.Stdout, os.Stdin)
	return 0, err
}

func echo(args []string) (int, error) {
	fmt.Println(strings.Join(args, " "))
	return 0, nil
}

func errnoName(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		if name := unix.ErrnoName(errno); name != "" {
			return name
		}
	}
	return err.Error()
}
