// SPDX-License-Identifier: Apache-2.0

// Package neighbours keeps the hosts files of the pods on one network telling
// of each other. Who is on it is a directory of files, one for each pod: its
// name is the pod's UUID and its text the pod's lines of a hosts file. It is
// used by whoever starts a pod and by the supervisor at its end, and so knows
// nothing but system calls.
package neighbours

import (
	"bytes"
	"errors"

	"golang.org/x/sys/unix"
)

// maxHosts bounds a hosts file, which its pod can write.
const maxHosts = 1 << 20

// maxMember bounds the lines of one pod.
const maxMember = 16 << 10

// Sync rewrites the part about a network in the hosts file of every pod that
// is on it. members is its directory, locked meanwhile; runs a descriptor of the
// directory with the pods that run. A member without a pod is forgotten.
func Sync(network, members string, runs int) error {
	dir, err := unix.Open(members, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) //nolint:forbidigo // ours, below the run directory
	if err != nil {
		return errors.New("open members of network " + network + ": " + err.Error())
	}
	defer unix.Close(dir)
	for {
		if err = unix.Flock(dir, unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return errors.New("lock members of network " + network + ": " + err.Error())
	}
	names, err := list(dir)
	if err != nil {
		return errors.New("list members of network " + network + ": " + err.Error())
	}
	pods, lines := present(dir, runs, names)
	defer func() {
		for _, fd := range pods {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}()
	for i, fd := range pods {
		if fd >= 0 {
			rewrite(fd, network, lines, i)
		}
	}
	return nil
}

// present opens the hosts file of every member, -1 where the pod has none, and
// reads its lines.
func present(dir, runs int, names []string) (pods []int, lines [][]byte) {
	for _, name := range names {
		if len(name) == 0 || name[0] == '.' {
			continue
		}
		fd, err := unix.Openat(runs, name+"/hosts", unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			var st unix.Stat_t
			if unix.Fstatat(runs, name, &st, unix.AT_SYMLINK_NOFOLLOW) == unix.ENOENT {
				_ = unix.Unlinkat(dir, name, 0)
				continue
			}
			fd = -1 // --no-hosts: it is told of nobody, and others of it
		} else if err != nil {
			continue
		}
		text, err := readAt(dir, name, maxMember)
		if err != nil {
			_ = unix.Close(fd)
			continue
		}
		pods, lines = append(pods, fd), append(lines, text)
	}
	return pods, lines
}

func readAt(dir int, name string, limit int) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return read(fd, limit)
}

func read(fd, limit int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > int64(limit) {
		return nil, unix.EFBIG
	}
	b := make([]byte, st.Size)
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// rewrite replaces the network's part of a hosts file in place: it is mounted
// into the pod as this file. What the pod wrote around it stays.
func rewrite(fd int, network string, lines [][]byte, self int) {
	old, err := read(fd, maxHosts)
	if err != nil {
		return // the pod made something else of it
	}
	text := Replace(old, network, lines, self)
	if bytes.Equal(text, old) {
		return
	}
	if n, err := unix.Pwrite(fd, text, 0); err == nil && n == len(text) {
		_ = unix.Ftruncate(fd, int64(len(text)))
	}
}

// Replace returns a hosts file with the network's part replaced: the lines of
// the pod itself come first.
func Replace(old []byte, network string, lines [][]byte, self int) []byte {
	begin, end := []byte("# network "+network+"\n"), []byte("# end of network "+network+"\n")
	before, rest, has := bytes.Cut(old, begin)
	after := []byte(nil)
	if has {
		if _, tail, whole := bytes.Cut(rest, end); whole {
			after = tail
		}
	} else if len(before) > 0 && before[len(before)-1] != '\n' {
		before = append(bytes.Clone(before), '\n')
	}
	out := append(bytes.Clone(before), begin...)
	if self >= 0 {
		out = append(out, lines[self]...)
	}
	for i, text := range lines {
		if i != self {
			out = append(out, text...)
		}
	}
	out = append(out, end...)
	return append(out, after...)
}

func list(dir int) ([]string, error) {
	if _, err := unix.Seek(dir, 0, 0); err != nil {
		return nil, err
	}
	var names []string
	buf := make([]byte, 8<<10)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if err != nil || n <= 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
