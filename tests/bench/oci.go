// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// runtimes are given the very same bundles.
var runtimes = []string{"gantry-oci", "crun", "runc"}

// allSpaces is the trivial bundle with a network namespace more.
const allSpaces = "trivial bundle, all namespaces"

// oci times gantry-oci beside its peers, and counts what a launch costs each.
func (b *bench) oci() error {
	if err := b.bundles(); err != nil {
		return err
	}
	spec := least()
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	if err := b.writeBundle("crun", allSpaces, spec); err != nil {
		return err
	}
	for _, peer := range []struct{ name, budget string }{{"crun", "≤ 1.0"}, {"runc", "≤ 0.35"}} {
		pair := func(name, bundle string, n int, how measurement, one func(program, bundle string) func() (time.Duration, error)) {
			b.add(row{Name: name + ", " + bundle, Ours: "gantry-oci", Theirs: peer.name, Budget: peer.budget},
				n, how, one("gantry-oci", bundle), one(peer.name, bundle))
		}
		for _, bundle := range []string{trivial, allSpaces, full} {
			pair("run", bundle, b.pairs, turns, b.runOCI)
		}
		pair("run, each in a loop of its own", trivial, b.pairs, loops, b.runOCI)
		for _, bundle := range []string{trivial, full} {
			pair("create + start + delete", bundle, b.pairs, turns, b.stepsOCI)
		}
		bursts := []string{trivial, full}
		if peer.name == "runc" {
			// It makes /dev/ptmx in the root that all share, where the trivial
			// bundle mounts nothing, and stumbles over the one of another.
			bursts = []string{full}
		}
		for _, bundle := range bursts {
			pair(fmt.Sprintf("%d × run, %d at a time", b.burst, atOnce), bundle, max(2, b.pairs/10), turns,
				func(program, bundle string) func() (time.Duration, error) {
					return func() (time.Duration, error) { return together(b.burst, b.runOCI(program, bundle)) }
				})
		}
	}
	for _, bundle := range []string{trivial, full} {
		for _, program := range runtimes {
			b.count(program, bundle)
		}
	}
	fmt.Print(b.countsTable())
	return nil
}

// command is the command line of a runtime for one of the common bundles.
func (b *bench) command(program string, args ...string) []string {
	path := program
	if program == "gantry-oci" {
		path = filepath.Join(b.bin, program)
	}
	return append([]string{path, "--root", filepath.Join(b.work, "state-"+program)}, args...)
}

func (b *bench) bundle(name string) string { return filepath.Join(b.work, "crun "+name) }

func (b *bench) container() string {
	return fmt.Sprintf("bench-%d-%d", os.Getpid(), b.containers.Add(1))
}

func (b *bench) runOCI(program, bundle string) func() (time.Duration, error) {
	return func() (time.Duration, error) {
		argv := b.command(program, "run", "--bundle", b.bundle(bundle), b.container())
		return b.timed(argv[0], argv[1:]...)
	}
}

// stepsOCI is the way of an engine. Delete is told to end the app if it has not.
func (b *bench) stepsOCI(program, bundle string) func() (time.Duration, error) {
	return func() (time.Duration, error) {
		id := b.container()
		sum := time.Duration(0)
		for _, args := range [][]string{{"create", "--bundle", b.bundle(bundle), id}, {"start", id}, {"delete", "--force", id}} {
			argv := b.command(program, args...)
			took, err := b.left(argv[0], argv[1:]...)
			if err != nil {
				return 0, err
			}
			sum += took
		}
		return sum, nil
	}
}

// left times a command that leaves processes behind, which have its standard
// streams: a pipe would be waited for.
func (b *bench) left(name string, args ...string) (time.Duration, error) {
	said, err := os.CreateTemp(b.work, "stderr")
	if err != nil {
		return 0, err
	}
	defer os.Remove(said.Name())
	defer said.Close()
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stderr = b.env(), said
	begin := time.Now()
	err = cmd.Run()
	took := time.Since(begin)
	if err != nil {
		text, _ := os.ReadFile(said.Name())
		return 0, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, text)
	}
	return took, nil
}

// count is what one run costs, where a clock depends on who else is there.
type count struct {
	Program      string  `json:"program"`
	Bundle       string  `json:"bundle"`
	CPU          float64 `json:"cpu_ms"` // median, user and system, of all processes of the run
	Faults       float64 `json:"page_faults"`
	Switches     float64 `json:"context_switches"` // voluntary
	Calls        int     `json:"system_calls"`     // 0: not known
	Instructions int     `json:"instructions"`     // 0: not known
}

func (b *bench) count(program, bundle string) {
	c := count{Program: program, Bundle: bundle}
	var cpu, faults, switches []float64
	for range b.pairs {
		argv := b.command(program, "run", "--bundle", b.bundle(bundle), b.container())
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = b.env()
		if err := cmd.Run(); err != nil {
			b.leaveOut("what "+program+" costs", err)
			return
		}
		u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		cpu = append(cpu, milliseconds(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()))
		faults, switches = append(faults, float64(u.Minflt)), append(switches, float64(u.Nvcsw))
	}
	c.CPU, c.Faults, c.Switches = median(cpu), median(faults), median(switches)
	var err error
	if c.Calls, err = b.calls(program, bundle); err != nil {
		b.leaveOut("system calls of "+program, err)
	}
	if c.Instructions, err = b.instructions(program, bundle); err != nil && len(b.Counts) == 0 {
		b.leaveOut("instructions", err)
	}
	b.Counts = append(b.Counts, c)
	b.save()
}

// calls counts system calls of all processes, the app included.
func (b *bench) calls(program, bundle string) (int, error) {
	lines, err := b.watched([]string{"strace", "-f", "-c", "-o"}, program, bundle)
	if err != nil {
		return 0, err
	}
	for _, line := range slices.Backward(lines) {
		if f := strings.Fields(line); len(f) > 3 && f[len(f)-1] == "total" {
			return strconv.Atoi(f[3])
		}
	}
	return 0, errors.New("strace prints no total")
}

func (b *bench) instructions(program, bundle string) (int, error) {
	lines, err := b.watched([]string{"perf", "stat", "-x", ",", "-e", "instructions", "-o"}, program, bundle)
	if err != nil {
		return 0, err
	}
	for _, line := range lines {
		if value, rest, ok := strings.Cut(line, ","); ok && strings.Contains(rest, "instructions") {
			if n, err := strconv.Atoi(value); err == nil {
				return n, nil
			}
			return 0, errors.New("the processor has no counters here: " + value)
		}
	}
	return 0, errors.New("perf prints no count")
}

// watched runs a container below a tool that writes a file.
func (b *bench) watched(tool []string, program, bundle string) ([]string, error) {
	out := filepath.Join(b.work, "watched")
	argv := slices.Concat(tool, []string{out, "--"}, b.command(program, "run", "--bundle", b.bundle(bundle), b.container()))
	if _, err := b.timed(argv[0], argv[1:]...); err != nil {
		return nil, err
	}
	f, err := os.Open(out)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	return lines, s.Err()
}

func (b *bench) countsTable() string {
	if len(b.Counts) == 0 {
		return ""
	}
	known := func(n int) string {
		if n == 0 {
			return "?"
		}
		return strconv.Itoa(n)
	}
	var s strings.Builder
	s.WriteString("\n| one run | bundle | CPU (ms) | page faults | context switches | system calls | instructions |\n|---|---|---|---|---|---|---|\n")
	for _, c := range b.Counts {
		fmt.Fprintf(&s, "| %s | %s | %.1f | %.0f | %.0f | %s | %s |\n",
			c.Program, c.Bundle, c.CPU, c.Faults, c.Switches, known(c.Calls), known(c.Instructions))
	}
	return s.String()
}
