// SPDX-License-Identifier: Apache-2.0

// Command gantry-oci is an OCI runtime: the command line that podman,
// containerd and CRI-O call, over stage1. It leaves when a container is
// created; docs/devel/oci-runtime.md tells who holds what then.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/internal/mainthread"
	"github.com/gantryrun/gantry/internal/quiet"
	"github.com/gantryrun/gantry/internal/version"
	"github.com/gantryrun/gantry/stage1/container"
	"github.com/gantryrun/gantry/stage1/launch"
)

// Namespaces and death signals belong to a thread: containers are made by the
// main one.
func main() {
	mainthread.Run(func() {
		quiet.Runtime()
		os.Exit(run(os.Args[1:]))
	})
}

// globals are the options before the command.
type globals struct {
	root, log, logFormat string
	debug, systemdCgroup bool
	cgroupManager        string
	rootless             string
	inside               bool // the user namespace of the bundle was entered
}

// call is one command line, parsed.
type call struct {
	globals
	args  []string
	line  []string // the command and all that was given to it
	notes []string // for the log
}

// command is one command. Its flags write where the closure reads.
type command struct {
	name, args, short string
	min, max          int // arguments; max -1: any number
	make              func(f *pflag.FlagSet) func(c *call) error
}

// exitError ends the process with a status and says nothing.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func run(args []string) int {
	g := globals{}
	if len(args) > 1 && args[0] == insideArg {
		if args[1] == readyArg {
			args, g.inside = args[2:], true
		} else {
			return g.fail(goInside(args[1:]))
		}
	}
	f := pflag.NewFlagSet("gantry-oci", pflag.ContinueOnError)
	f.SetInterspersed(false)
	f.Usage = func() {}
	f.StringVar(&g.root, "root", defaultRoot(), "keep the state of containers in `DIR`, best on a tmpfs")
	f.StringVar(&g.log, "log", "", "also write errors to `FILE`, and notes there only")
	f.StringVar(&g.logFormat, "log-format", "text", "write that file as `FORMAT`: text or json")
	f.BoolVar(&g.debug, "debug", false, "also write what was asked, to the file of --log or to standard error")
	f.BoolVar(&g.systemdCgroup, "systemd-cgroup", false, "read cgroupsPath as SLICE:PREFIX:NAME and have systemd make the group")
	f.StringVar(&g.cgroupManager, "cgroup-manager", "", "have the group made by `WHO`: cgroupfs (by us), systemd (as --systemd-cgroup), disabled (there is none, nor limits)")
	f.StringVar(&g.rootless, "rootless", "auto", "make containers of an ordinary user as root of their user namespace: auto and true do, `WHEN` false refuses")
	help := f.BoolP("help", "h", false, "help")
	wantVersion := f.BoolP("version", "v", false, "print the version")
	err := f.Parse(args)
	switch {
	case err != nil:
		return g.fail(err)
	case *wantVersion:
		printVersion()
		return 0
	case *help || f.NArg() == 0 || f.Arg(0) == "help":
		usage(f)
		return 0
	}
	if g.logFormat != "text" && g.logFormat != "json" {
		return g.fail(fmt.Errorf("--log-format %q: use text or json", g.logFormat))
	}
	if !slices.Contains([]string{"auto", "true", "false"}, g.rootless) {
		return g.fail(fmt.Errorf("--rootless %q: use auto, true or false", g.rootless))
	}
	if err := g.chooseManager(); err != nil {
		return g.fail(err)
	}
	if err := g.canLog(); err != nil {
		return g.fail(err)
	}
	if g.debug {
		g.tell(f.Args())
	}
	if err := dispatch(&g, f.Arg(0), f.Args()[1:]); err != nil {
		return g.fail(err)
	}
	return 0
}

func dispatch(g *globals, name string, args []string) error {
	for _, cmd := range commands() {
		if cmd.name != name {
			continue
		}
		f := pflag.NewFlagSet(name, pflag.ContinueOnError)
		f.SetInterspersed(name != "exec") // what follows the container is the command's own
		f.Usage = func() {}
		do := cmd.make(f)
		help := f.BoolP("help", "h", false, "help")
		if err := f.Parse(args); err != nil {
			return fmt.Errorf("%s: %w; see 'gantry-oci %s --help'", name, err, name)
		}
		if *help {
			fmt.Printf("usage: gantry-oci %s [flags] %s\n\n%s\n\n%s", name, cmd.args, cmd.short, f.FlagUsages())
			return nil
		}
		if n := f.NArg(); n < cmd.min || cmd.max >= 0 && n > cmd.max {
			return fmt.Errorf("usage: gantry-oci %s [flags] %s", name, cmd.args)
		}
		if g.root == "" {
			return errors.New("--root: is empty")
		}
		c := &call{globals: *g, args: f.Args(), line: append([]string{name}, args...)}
		err := do(c)
		if err == nil {
			c.record("warning", c.notes...)
		}
		return err
	}
	return fmt.Errorf("unknown command %q; 'gantry-oci --help' lists them", name)
}

// chooseManager brings the two flags about it into one: runc's and crun's.
func (g *globals) chooseManager() error {
	switch g.cgroupManager {
	case "", "systemd", "disabled", "cgroupfs":
	default:
		return fmt.Errorf("--cgroup-manager %q: use cgroupfs, systemd or disabled", g.cgroupManager)
	}
	if g.systemdCgroup && g.cgroupManager != "" && g.cgroupManager != "systemd" {
		return fmt.Errorf("--systemd-cgroup and --cgroup-manager %s contradict each other", g.cgroupManager)
	}
	if g.systemdCgroup {
		g.cgroupManager = "systemd"
	}
	return nil
}

func usage(f *pflag.FlagSet) {
	fmt.Println("usage: gantry-oci [flags] COMMAND [flags] [arguments]\n\nAn OCI runtime.\n\nCommands:")
	for _, c := range commands() {
		fmt.Printf("  %-10s %s\n", c.name, c.short)
	}
	fmt.Printf("\nFlags:\n%s", f.FlagUsages())
}

func printVersion() {
	fmt.Printf("gantry-oci version %s\nspec: %s\ngo: %s\n", version.String(), container.SpecVersion, runtime.Version())
}

func defaultRoot() string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		return "/run/gantry-oci"
	}
	// podman without root calls us as root of a user namespace.
	if own, err := launch.OwnUserns(); os.Geteuid() == 0 && (err != nil || own == nil) {
		return "/run/gantry-oci"
	}
	return filepath.Join(dir, "gantry-oci")
}

// fail says what went wrong, on standard error for people and in the log for
// engines, which read the JSON form.
func (g *globals) fail(err error) int {
	var exit exitError
	if errors.As(err, &exit) {
		return int(exit)
	}
	text := err.Error()
	fmt.Fprintln(os.Stderr, "gantry-oci: error: "+printable(text))
	if g.log != "" && g.log != "/dev/stderr" {
		g.record("error", text)
	}
	var c interface{ ExitCode() int }
	if errors.As(err, &c) && c.ExitCode() != 125 {
		return c.ExitCode()
	}
	return 1
}

// tell says what an engine asked for. It is nothing that they look for in
// the log, where podman wants one error and no line more.
func (g *globals) tell(args []string) {
	text := "gantry-oci " + version.String() + ": " + strings.Join(args, " ")
	if g.log != "" {
		g.record("debug", text)
		return
	}
	fmt.Fprintln(os.Stderr, "gantry-oci: debug: "+printable(text))
}

// canLog makes sure that there is a file for the errors to come, before anything
// is done whose errors nobody would read.
func (g *globals) canLog() error {
	if g.log == "" {
		return nil
	}
	f, err := os.OpenFile(g.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("--log: %w", err)
	}
	return f.Close()
}

func (g *globals) record(level string, texts ...string) {
	if len(texts) == 0 {
		return
	}
	f, err := os.OpenFile(g.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return // the message was printed
	}
	defer f.Close()
	now := time.Now().Format(time.RFC3339)
	for _, text := range texts {
		if g.logFormat == "json" {
			_ = json.NewEncoder(f).Encode(map[string]string{"level": level, "msg": text, "time": now})
			continue
		}
		fmt.Fprintf(f, "time=%q level=%s msg=%q\n", now, level, text)
	}
}

// printable replaces control characters: part of a message may come from a
// bundle, and a terminal must not obey it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}
