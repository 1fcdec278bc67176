// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// facts is what a process can see of its own confinement.
type facts struct {
	Args       []string          `json:"args"`
	Env        []string          `json:"env"`
	Cwd        string            `json:"cwd"`
	Pid        int               `json:"pid"`
	Ppid       int               `json:"ppid"`
	Sid        int               `json:"sid"`
	UID        []int             `json:"uid"` // real, effective, saved, fs
	GID        []int             `json:"gid"`
	Groups     []int             `json:"groups"`
	Umask      string            `json:"umask"`
	Hostname   string            `json:"hostname"`
	Caps       map[string]string `json:"caps"`
	NoNewPrivs bool              `json:"no_new_privs"`
	Seccomp    int               `json:"seccomp"`
	Label      string            `json:"label,omitempty"`
	Signals    map[string]string `json:"signals"`
	OOMScore   int               `json:"oom_score_adj"`
	Limits     map[string]string `json:"limits"`
	Namespaces map[string]string `json:"namespaces"`
	Cgroup     []string          `json:"cgroup"`
	Fds        map[string]string `json:"fds"`
	Mounts     []mount           `json:"mounts"`
	Links      []string          `json:"links"`
	Processes  []string          `json:"processes"`
	Dev        []string          `json:"dev"`
}

type mount struct {
	Target  string `json:"target"`
	Root    string `json:"root"`
	Type    string `json:"type"`
	Source  string `json:"source"`
	Options string `json:"options"` // of the mount
	Super   string `json:"super"`   // of the file system
	Shared  string `json:"propagation,omitempty"`
}

func observe() (facts, error) {
	status, err := readStatus("/proc/self/status")
	if err != nil {
		return facts{}, err
	}
	f := facts{
		Args: os.Args, Env: os.Environ(), Pid: os.Getpid(), Ppid: os.Getppid(),
		UID: ints(status["Uid"]), GID: ints(status["Gid"]), Groups: ints(status["Groups"]),
		Umask: status["Umask"], NoNewPrivs: status["NoNewPrivs"] == "1",
		Caps: map[string]string{}, Signals: map[string]string{},
		Limits: limits(), Namespaces: links("/proc/self/ns"), Fds: descriptors(),
		Cgroup: lines("/proc/self/cgroup"), Links: names("/sys/class/net"), Dev: names("/dev"),
		Processes: processes(),
	}
	f.Cwd, _ = os.Getwd()
	f.Hostname, _ = os.Hostname()
	f.Sid, _ = unix.Getsid(0)
	f.Seccomp, _ = strconv.Atoi(status["Seccomp"])
	f.OOMScore, _ = strconv.Atoi(strings.Join(lines("/proc/self/oom_score_adj"), ""))
	for _, k := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		f.Caps[k] = status[k]
	}
	for _, k := range []string{"SigBlk", "SigIgn"} {
		f.Signals[k] = status[k]
	}
	if b, err := os.ReadFile("/proc/self/attr/current"); err == nil {
		f.Label = strings.TrimRight(string(b), "\n\x00")
	}
	f.Mounts, err = mounts("/proc/self/mountinfo")
	return f, err
}

func printFacts([]string) (int, error) {
	f, err := observe()
	if err != nil {
		return 1, err
	}
	return printJSON(f)
}

// printFact prints single members, each as compact JSON on a line.
func printFact(args []string) (int, error) {
	f, err := observe()
	if err != nil {
		return 1, err
	}
	b, err := json.Marshal(f)
	if err != nil {
		return 1, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return 1, err
	}
	for _, name := range args {
		v, ok := all[name]
		if !ok {
			return 1, fmt.Errorf("no fact %q", name)
		}
		fmt.Println(string(v))
	}
	return 0, nil
}

func readStatus(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.TrimSpace(value)
	}
	return status, nil
}

func ints(s string) []int {
	out := []int{}
	for _, f := range strings.Fields(s) {
		if n, err := strconv.Atoi(f); err == nil {
			out = append(out, n)
		}
	}
	return out
}

func lines(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return []string{}
	}
	return strings.Split(strings.TrimRight(string(b), "\n"), "\n")
}

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	out := []string{}
	if err != nil {
		return out
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func links(dir string) map[string]string {
	out := map[string]string{}
	for _, name := range names(dir) {
		if target, err := os.Readlink(filepath.Join(dir, name)); err == nil {
			out[name] = target
		}
	}
	return out
}

// descriptors lists what is open, without the one used to look, and without
// the Go runtime's own poller, which opens its descriptors close-on-exec.
func descriptors() map[string]string {
	out := map[string]string{}
	for fd, target := range links("/proc/self/fd") {
		n, err := strconv.Atoi(fd)
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") || strings.HasSuffix(target, "/fd") {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err == nil && (n < 3 || flags&unix.FD_CLOEXEC == 0) {
			out[fd] = target
		}
	}
	return out
}

func limits() map[string]string {
	resources := map[string]int{
		"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
		"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
		"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
		"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
		"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
	}
	out := map[string]string{}
	for name, resource := range resources {
		var l syscall.Rlimit
		if syscall.Getrlimit(resource, &l) == nil {
			out[name] = limit(l.Cur) + ":" + limit(l.Max)
		}
	}
	return out
}

func limit(v uint64) string {
	if v == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(v, 10)
}

func mounts(path string) ([]mount, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []mount
	for line := range bytes.Lines(b) {
		before, after, _ := strings.Cut(strings.TrimSpace(string(line)), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 6 || len(right) < 3 {
			return nil, fmt.Errorf("odd line in %s: %q", path, line)
		}
		out = append(out, mount{
			Target: left[4], Root: left[3], Options: left[5], Shared: strings.Join(left[6:], " "),
			Type: right[0], Source: right[1], Super: right[2],
		})
	}
	return out, nil
}

func processes() []string {
	out := []string{}
	for _, name := range names("/proc") {
		if _, err := strconv.Atoi(name); err == nil {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out
}
