// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/jsonout"
	"github.com/gantryrun/gantry/internal/rootfs"
	"github.com/gantryrun/gantry/stage1"
)

// finish does what the end of the app asks for, in an order that loses
// nothing when we are killed half-way: output, record, cgroups, place.
func (s *supervisor) finish() {
	s.dropLinks()
	s.dropTable()
	s.exit.OOM = s.oomKilled()
	s.endProbe()
	s.killCgroup()
	s.killOrphans()
	for _, st := range s.streams {
		st.drain()
	}
	if s.tty != nil {
		s.tty.restore()
	}
	if s.exit.OOM && s.Echo {
		s.tellOOM() // in the foreground: elsewhere the status says it
	}
	if !s.Remove {
		s.record() // else nobody could read it
	}
	s.answerAll()
	s.removeCgroups()
	s.release()
	s.poststop()
	if s.PidFile != "" {
		_ = unix.Unlink(s.PidFile) //nolint:forbidigo // the host's, as the user named it
	}
	s.movePod()
	s.abandonTable()
	if s.exit.Signal != 0 && !s.NoSignal && unix.Getpid() != 1 {
		dieBy(unix.Signal(s.exit.Signal))
	}
	unix.Exit(s.exit.Code)
}

func (s *supervisor) status() stage1.Status {
	st := stage1.Status{
		Version: stage1.StatusVersion, Pid: s.Pid, Start: s.Start, Boot: s.Boot, Started: s.Started,
	}
	if s.ended {
		st.Finished = time.Now().UnixNano()
		st.Exit = &s.exit
	}
	return st
}

// record replaces the status of the app, by rename where that can be.
func (s *supervisor) record() {
	if s.Pods < 0 {
		return
	}
	dir, err := unix.Openat(s.Lock, stage1.AppsDir+"/"+s.App, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	b, err := jsonout.Marshal(s.status())
	if err != nil {
		return
	}
	b = append(b, '\n')
	const temp = "." + stage1.StatusFile + ".new"
	if writeAt(dir, temp, unix.O_CREAT|unix.O_TRUNC, b) == nil && unix.Renameat(dir, temp, dir, stage1.StatusFile) == nil {
		return
	}
	// On a full disk there may be no room for another file, and there is where
	// this one stands: it says how the app began, and ends in its first block.
	_ = unix.Unlinkat(dir, temp, 0)
	_ = writeAt(dir, stage1.StatusFile, 0, b)
}

// writeAt writes a file of a directory at once.
func writeAt(dir int, name string, flags int, b []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := unix.Write(fd, b)
	if err == nil && n != len(b) {
		err = unix.ENOSPC
	}
	return err
}

// movePod moves the pod directory to where its phase is over. With Remove it
// goes through garbage, where the next gantry finds it if we are killed.
func (s *supervisor) movePod() {
	if s.Pods < 0 {
		return
	}
	_ = unix.Unlinkat(s.Lock, stage1.ControlFile, 0)
	to := stage1.PhaseExited
	if s.Remove {
		to = stage1.PhaseGarbage
	}
	_ = unix.Mkdirat(s.Pods, to, 0o700)
	name := to + "/" + s.ID
	if err := unix.Renameat(s.Pods, s.Phase+"/"+s.ID, s.Pods, name); err != nil || !s.Remove {
		return
	}
	if s.NameLink != "" {
		_ = unix.Unlink(s.NameLink) //nolint:forbidigo // ours, below the run directory
	}
	_ = removePod(s.Pods, to, s.ID)
}

// removePod removes a pod directory through a descriptor of its parent.
func removePod(pods int, phase, id string) error {
	dir, err := unix.Openat(pods, phase, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return rootfs.RemoveAllAt(dir, id)
}

// killCgroup kills what the app left behind. In a pid namespace of its own
// everything died with it.
func (s *supervisor) killCgroup() {
	for _, dir := range s.Cgroups {
		if writeFile(dir+"/cgroup.kill", "1") == nil {
			// It passes over processes whose first thread has ended before the
			// others (Linux 6.18).
			killMembers(dir)
			return
		}
	}
	for _, dir := range s.Cgroups {
		killMembers(dir)
	}
}

// killMembers kills the processes of a group one by one.
func killMembers(dir string) {
	b, err := readFile(dir + "/cgroup.procs")
	if err != nil {
		return
	}
	for line := range bytes.Lines(b) {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(line))); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// removeCgroups removes the recorded directories with the groups the app made
// below. Where the app was not everybody's process 1, what it left is only
// dying by now. What still is busy is swept by the next gantry.
func (s *supervisor) removeCgroups() {
	until := time.Now().Add(lastWords)
	for _, dir := range s.Cgroups {
		for unix.Rmdir(dir) == unix.EBUSY && time.Now().Before(until) {
			removeGroupsBelow(dir)
			s.killCgroup() // again: it may have forked
			if !awaitOne(dir, until) {
				_ = unix.Rmdir(dir)
				break
			}
		}
	}
}

// awaitOne waits for the end of a process in a group. It is false if there is
// none, or none that ends in time.
func awaitOne(dir string, until time.Time) bool {
	b, err := readFile(dir + "/cgroup.procs")
	if err != nil {
		return false
	}
	line, _, _ := bytes.Cut(b, []byte{'\n'})
	pid, err := strconv.Atoi(string(line))
	if err != nil || pid <= 0 {
		return false
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err == unix.ESRCH
	}
	defer unix.Close(fd)
	polls := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(polls, int(max(time.Until(until).Milliseconds(), 0)))
	return err == unix.EINTR || err == nil && n > 0
}

func removeGroupsBelow(dir string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) //nolint:forbidigo // a cgroup of the host, recorded at create
	if err != nil {
		return
	}
	defer unix.Close(fd)
	buf := make([]byte, 4<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil || n <= 0 {
			return
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			below := dir + "/" + name
			if unix.Rmdir(below) == unix.EBUSY {
				removeGroupsBelow(below)
				_ = unix.Rmdir(below)
			}
		}
	}
}

// oomKilled tells whether the kernel killed a process of the app for memory.
func (s *supervisor) oomKilled() bool {
	for _, dir := range s.Cgroups {
		for _, name := range []string{"/memory.events", "/memory.oom_control"} {
			b, err := readFile(dir + name)
			if err != nil {
				continue
			}
			for line := range bytes.Lines(b) {
				count, ok := bytes.CutPrefix(line, []byte("oom_kill "))
				if n, err := strconv.Atoi(strings.TrimSpace(string(count))); ok && err == nil && n > 0 {
					return true
				}
			}
		}
	}
	return false
}

// tellOOM says on standard error what otherwise looks like somebody's kill -9.
func (s *supervisor) tellOOM() {
	why := "it has no --memory limit: the group it was started in, or this host, ran out"
	if limit := s.memoryLimit(); limit != "" {
		why = "its limit is --memory=" + limit
	}
	_, _ = unix.Write(2, []byte("gantry: pod "+s.podName()+": the kernel killed a process of the app for memory: "+why+"\n"))
}

// podName is what people call the pod.
func (s *supervisor) podName() string {
	if s.NameLink != "" {
		return s.NameLink[strings.LastIndexByte(s.NameLink, '/')+1:]
	}
	return s.ID[:min(8, len(s.ID))]
}

// memoryLimit is the limit of the app's cgroup as --memory spells it, or "".
func (s *supervisor) memoryLimit() string {
	for _, dir := range s.Cgroups {
		for _, name := range []string{"/memory.max", "/memory.limit_in_bytes"} {
			b, err := readFile(dir + name)
			if err != nil {
				continue
			}
			n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
			switch {
			case err != nil || n > 1<<60: // "max", or version 1's way to say so
			case n%(1<<20) == 0:
				return strconv.FormatUint(n>>20, 10) + "m"
			case n%(1<<10) == 0:
				return strconv.FormatUint(n>>10, 10) + "k"
			default:
				return strconv.FormatUint(n, 10)
			}
		}
	}
	return ""
}

func writeFile(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0) //nolint:forbidigo // a cgroup file of the host
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) //nolint:forbidigo // a cgroup file of the host
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 16<<10)
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}
