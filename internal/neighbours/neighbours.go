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
	"slices"

	"golang.org/x/sys/unix"
)

// maxHosts bounds a hosts file, which its pod can write.
const maxHosts = 1 << 20

// MaxMember bounds the lines of one pod. With more it could not be told of.
const MaxMember = 16 << 10

// Sync rewrites the part about a network in the hosts file of every pod that
// is on it. members is its directory, locked meanwhile; runs a descriptor of the
// directory with the pods that run. A member without a pod is forgotten. No file
// is rewritten when one that we have written cannot be read: the others would
// lose addresses that are there.
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
	pods, lines, err := present(dir, runs, names)
	if err != nil {
		return errors.New("read members of network " + network + ": " + err.Error())
	}
	w := newWriter(network, lines)
	for i, name := range pods {
		if err := w.rewriteAt(runs, name, i); err != nil {
			return errors.New("open " + name + "/hosts for network " + network + ": " + err.Error())
		}
	}
	return nil
}

// present returns the members whose pods are there, and the lines of each.
func present(dir, runs int, names []string) (pods []string, lines [][]byte, err error) {
	for _, name := range names {
		if len(name) == 0 || name[0] == '.' {
			continue
		}
		var st unix.Stat_t
		err := unix.Fstatat(runs, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			_ = unix.Unlinkat(dir, name, 0)
			continue
		}
		if err != nil {
			return nil, nil, errors.New(name + ": " + err.Error())
		}
		text, err := readAt(dir, name)
		if err == unix.ENOENT {
			continue // it has just left
		}
		if err != nil {
			return nil, nil, errors.New(name + ": " + err.Error())
		}
		pods, lines = append(pods, name), append(lines, text)
	}
	return pods, lines, nil
}

func readAt(dir int, name string) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return read(fd, nil, MaxMember)
}

// read returns what a file has, in a buffer that it makes larger if it has to.
func read(fd int, buf []byte, limit int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > int64(limit) {
		return nil, unix.EFBIG
	}
	buf = slices.Grow(buf[:0], int(st.Size))[:st.Size]
	n, err := unix.Pread(fd, buf, 0)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// writer rewrites hosts files: as many as the network has pods, each with a
// line for each of them, so that it takes care to copy nothing twice.
type writer struct {
	begin, end []byte
	lines      []byte // of all pods
	from       []int  // where those of one begin in lines; one more for the end
	old, text  []byte // buffers
}

func newWriter(network string, lines [][]byte) *writer {
	w := &writer{begin: []byte("# network " + network + "\n"), end: []byte("# end of network " + network + "\n"), from: []int{0}}
	for _, text := range lines {
		w.lines = append(w.lines, text...)
		w.from = append(w.from, len(w.lines))
	}
	return w
}

// rewriteAt rewrites the hosts file of a running pod, one open at a time: there
// may be more pods than this process may have descriptors.
func (w *writer) rewriteAt(runs int, pod string, self int) error {
	fd, err := unix.Openat(runs, pod+"/hosts", unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		w.rewrite(fd, self)
		return unix.Close(fd)
	case unix.EMFILE, unix.ENFILE, unix.ENOMEM:
		return err
	}
	// --no-hosts, or the pod made something else of it: it is told of nobody, and
	// others of it.
	return nil
}

// rewrite replaces the network's part of a hosts file in place: it is mounted
// into the pod as this file. What the pod wrote around it stays, and what is
// the same up to the first change is not written again: in the order of list
// that is nearly all of it where a pod has come.
func (w *writer) rewrite(fd, self int) {
	old, err := read(fd, w.old, maxHosts)
	if err != nil {
		return // the pod made something else of it
	}
	w.old, w.text = old, w.replace(old, self)
	const step = 1 << 8
	same := 0
	for n := step; n <= min(len(old), len(w.text)) && bytes.Equal(old[same:n], w.text[same:n]); n += step {
		same = n
	}
	for same < min(len(old), len(w.text)) && old[same] == w.text[same] {
		same++
	}
	changed := w.text[same:]
	if len(changed) > 0 {
		if n, err := unix.Pwrite(fd, changed, int64(same)); err != nil || n != len(changed) {
			return
		}
	}
	if len(old) > len(w.text) {
		_ = unix.Ftruncate(fd, int64(len(w.text)))
	}
}

// replace returns a hosts file with the network's part replaced: the lines of
// the pod itself come first.
func (w *writer) replace(old []byte, self int) []byte {
	before, rest, has := bytes.Cut(old, w.begin)
	after := []byte(nil)
	if has {
		if _, tail, whole := bytes.Cut(rest, w.end); whole {
			after = tail
		}
	}
	out := append(w.text[:0], before...)
	if !has && len(before) > 0 && before[len(before)-1] != '\n' {
		out = append(out, '\n')
	}
	out = append(out, w.begin...)
	own, behind := w.from[self], w.from[self+1]
	out = append(out, w.lines[own:behind]...)
	out = append(out, w.lines[:own]...)
	out = append(out, w.lines[behind:]...)
	out = append(out, w.end...)
	return append(out, after...)
}

// list returns the members, those that came last at the end: a tmpfs has them
// the other way round.
func list(dir int) ([]string, error) {
	if _, err := unix.Seek(dir, 0, 0); err != nil {
		return nil, err
	}
	var names []string
	buf := make([]byte, 8<<10)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if err != nil || n <= 0 {
			slices.Reverse(names)
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
