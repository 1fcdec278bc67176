// SPDX-License-Identifier: Apache-2.0

// Command conformance runs the validation programs of runtime-tools against
// several OCI runtimes and writes down each line they print. The programs exit
// with 0 whatever they found, so lines are what counts. tests/conformance/run.sh
// prepares for it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// suite is where the programs are and what they are given.
type suite struct {
	dir     string // validation programs, runtimetest and the tarball of a root
	work    string
	keep    string // gets what the programs print, if set
	timeout time.Duration
}

// runtime is one under test.
type runtime struct{ name, command, version string }

func main() {
	var s suite
	var doc, results string
	flag.StringVar(&s.dir, "suite", "", "directory of the validation programs")
	flag.StringVar(&s.keep, "keep", "", "keep what the programs print in this directory")
	flag.DurationVar(&s.timeout, "timeout", time.Minute, "time for one program")
	flag.StringVar(&doc, "doc", "docs/conformance.md", "the table")
	flag.StringVar(&results, "results", "tests/conformance/results", "directory of the lines")
	only := flag.String("only", "*", "run programs that match; nothing is written unless all do")
	flag.Parse()
	if err := s.run(*only, flag.Args(), doc, results); err != nil {
		fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
		os.Exit(1)
	}
}

// run runs every program on every runtime. The first runtime is ours.
func (s *suite) run(only string, commands []string, doc, results string) error {
	if len(commands) == 0 {
		return errors.New("usage: conformance -suite DIR RUNTIME…")
	}
	programs, err := s.programs(only)
	if err != nil {
		return err
	}
	if s.work, err = os.MkdirTemp("", "gantry-conformance"); err != nil {
		return err
	}
	defer os.RemoveAll(s.work)
	if err := os.Chmod(s.work, 0o755); err != nil { // root of a user namespace goes through it
		return err
	}
	var found []findings
	for _, c := range commands {
		r, err := open(c)
		if err != nil {
			return err
		}
		f := findings{runtime: r}
		for _, p := range programs {
			o := s.program(r, p)
			fmt.Printf("%-12s %-40s %s\n", r.name, p, o.summary())
			f.outcomes = append(f.outcomes, o)
		}
		found = append(found, f)
	}
	missing, excuses := excused(behind(found))
	for _, l := range shorten(missing) {
		fmt.Printf("missing      %s: %s\n", l.program, l.description)
	}
	if only == "*" {
		err = write(found, missing, excuses, doc, results)
	}
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%s does not pass %d lines that others do", found[0].name, len(missing))
	}
	return err
}

func open(command string) (runtime, error) {
	path, err := exec.LookPath(command)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return runtime{}, err
	}
	out, err := exec.Command(path, "--version").Output()
	version, _, _ := strings.Cut(string(out), "\n")
	return runtime{filepath.Base(path), path, version}, err
}

// programs lists the validation programs: all but what runs inside.
func (s *suite) programs(pattern string) ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	var names []string
	for _, e := range entries {
		match, err := filepath.Match(pattern, e.Name())
		if err != nil {
			return nil, err
		}
		if match && e.Name() != "runtimetest" && !strings.HasSuffix(e.Name(), ".gz") {
			names = append(names, e.Name())
		}
	}
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("no program in %q matches %q", s.dir, pattern)
	}
	return names, err
}

// program runs one in a directory of its own, with a state directory of its own,
// and removes whatever containers it left.
func (s *suite) program(r runtime, name string) outcome {
	dir := filepath.Join(s.work, r.name, name)
	out, err := s.execute(r, name, dir)
	o := parse(name, out)
	if err != nil {
		o.end = err.Error()
		if line := lastLine(out); line != "" {
			o.end += ": " + line
		}
	}
	if s.keep != "" {
		kept := filepath.Join(s.keep, r.name)
		_ = os.MkdirAll(kept, 0o755)
		_ = os.WriteFile(filepath.Join(kept, name), out, 0o644)
	}
	r.sweep(filepath.Join(dir, "state"))
	_ = os.RemoveAll(dir)
	return o
}

func (s *suite) execute(r runtime, name, dir string) ([]byte, error) {
	tmp := filepath.Join(dir, "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return nil, err
	}
	for _, f := range []string{"runtimetest", "rootfs-" + goruntime.GOARCH + ".tar.gz"} {
		if err := copyFile(filepath.Join(s.dir, f), filepath.Join(dir, f)); err != nil {
			return nil, err
		}
	}
	// The programs know of no --root.
	wrapper := filepath.Join(dir, "runtime")
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' --root '%s' \"$@\"\n", r.command, filepath.Join(dir, "state"))
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		return nil, err
	}
	// A file, not a pipe: a container left over must not keep us waiting.
	out, err := os.OpenFile(filepath.Join(dir, "output"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.dir, name))
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = append(os.Environ(), "RUNTIME="+wrapper, "TMPDIR="+tmp)
	// Without a mount namespace in the bundle runc and crun mount in the caller's,
	// and leave it there.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Unshareflags: unix.CLONE_NEWNS}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	err = cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("no end after %v", s.timeout)
	}
	b, rerr := os.ReadFile(out.Name())
	return b, errors.Join(err, rerr)
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// sweep deletes containers that a program did not, and the groups above them.
func (r runtime) sweep(state string) {
	entries, _ := os.ReadDir(state)
	for _, e := range entries {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		_ = exec.CommandContext(ctx, r.command, "--root", state, "delete", "--force", e.Name()).Run()
		cancel()
	}
	for _, name := range []string{"cgrouptest", "testdir/cgrouptest", "testdir"} {
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
		for _, g := range append(groups, "/sys/fs/cgroup/"+name) {
			_ = unix.Rmdir(g) // refused while something is in it
		}
	}
}

// lastLine is the last thing a program said, but for how it ended.
func lastLine(out []byte) string {
	last := ""
	for line := range bytes.Lines(out) {
		if text := strings.TrimSpace(string(line)); text != "" && !strings.HasPrefix(text, "exit status ") {
			last = text
		}
	}
	return last
}
