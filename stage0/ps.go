// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/stage0/pod"
)

// stat is what we read of /proc/PID/stat.
type stat struct {
	state   string
	ppid    int
	cpu     uint64 // clock ticks, user and system
	start   uint64 // clock ticks since boot
	rss     int64  // pages
	command string
}

// userHZ is the unit of /proc's clock ticks on every Linux there is.
const userHZ = 100

// parseStat reads /proc/PID/stat. The command is the process's own word and
// may hold anything, brackets and spaces too: the last ')' ends it.
func parseStat(s string) (stat, error) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("read process: no command in stat")
	}
	f := strings.Fields(s[end+1:])
	if len(f) < 22 {
		return stat{}, errors.New("read process: stat is too short")
	}
	st := stat{state: f[0], command: s[open+1 : end]}
	var errs [5]error
	var user, system uint64
	st.ppid, errs[0] = strconv.Atoi(f[1])
	user, errs[1] = strconv.ParseUint(f[11], 10, 64)
	system, errs[2] = strconv.ParseUint(f[12], 10, 64)
	st.start, errs[3] = strconv.ParseUint(f[19], 10, 64)
	st.rss, errs[4] = strconv.ParseInt(f[21], 10, 64)
	st.cpu = user + system
	return st, errors.Join(errs[:]...)
}

func ps(e Env, id string) ([]Process, error) {
	p, err := e.find(id)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	proc, err := running(p)
	if err != nil {
		return nil, err
	}
	proc.close()
	pids, err := members(p, proc.pid)
	if err != nil {
		return nil, err
	}
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	out := make([]Process, 0, len(pids))
	for _, pid := range pids {
		q, err := readProcess(pid, boot)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, q)
	}
	return out, nil
}

// gone says that a process ended while we looked.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || strings.Contains(fmt.Sprint(err), "no such process")
}

// members are the processes of the pod's control group, or where it has none
// those below its first process.
func members(p *pod.Pod, first int) ([]int, error) {
	rt, err := readRuntime(p)
	if err != nil {
		return nil, err
	}
	if len(rt.Cgroups) > 0 {
		if pids, err := cgroups.Pids(cgroups.Existing(rt.Cgroups)); err != nil || len(pids) > 0 {
			return pids, err
		}
	}
	return descendants(first)
}

// descendants walks /proc for the children of a process and theirs.
func descendants(first int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(path.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		if s, err := parseStat(string(b)); err == nil {
			children[s.ppid] = append(children[s.ppid], pid)
		}
	}
	pids := []int{first}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	slices.Sort(pids)
	return pids, nil
}

func readProcess(pid int, boot time.Time) (Process, error) {
	dir := path.Join("/proc", strconv.Itoa(pid))
	b, err := os.ReadFile(path.Join(dir, "stat"))
	if err != nil {
		return Process{}, err
	}
	s, err := parseStat(string(b))
	if err != nil {
		return Process{}, err
	}
	q := Process{
		PID: pid, Inside: pid, PPID: s.ppid, State: s.state,
		CPU:     time.Duration(s.cpu) * time.Second / userHZ,
		RSS:     s.rss * int64(os.Getpagesize()),
		Started: boot.Add(time.Duration(s.start) * time.Second / userHZ),
		Command: "[" + s.command + "]",
	}
	if b, err = os.ReadFile(path.Join(dir, "cmdline")); err == nil && len(b) > 0 {
		q.Command = strings.Join(strings.Split(strings.TrimRight(string(b), "\x00"), "\x00"), " ")
	}
	if b, err = os.ReadFile(path.Join(dir, "status")); err != nil {
		return Process{}, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && f[0] == "Uid:":
			q.User, _ = strconv.Atoi(f[1])
		case len(f) > 1 && f[0] == "NSpid:":
			q.Inside, _ = strconv.Atoi(f[len(f)-1])
		}
	}
	return q, nil
}

// bootTime is when this host's clock of /proc began.
func bootTime() (time.Time, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "btime" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return time.Unix(n, 0), err
		}
	}
	return time.Time{}, errors.New("read boot time: /proc/stat has none")
}
