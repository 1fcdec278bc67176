// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/stage1/container"
)

func commands() []command {
	return []command{
		{"create", "ID", "make a container from a bundle, and leave", 1, 1, create},
		{"start", "ID", "run the command of a created container", 1, 1, start},
		{"run", "ID", "create and start, and stay until the command ends", 1, 1, runContainer},
		{"exec", "ID COMMAND [ARGUMENTS]", "run a command in a running container", 1, -1, execute},
		{"state", "ID", "print the state of a container as JSON", 1, 1, state},
		{"kill", "ID [SIGNAL]", "send a signal to a container (default SIGTERM)", 1, 2, kill},
		{"delete", "ID", "remove a container that has ended", 1, 1, remove},
		{"list", "", "list the containers of this root", 0, 0, list},
		{"ps", "ID [PS OPTIONS]", "list the processes of a container", 1, -1, ps},
		{"pause", "ID", "stop all processes of a container", 1, 1, freeze(true)},
		{"resume", "ID", "let them go on", 1, 1, freeze(false)},
		{"update", "ID", "change the limits of a container", 1, 1, update},
		{"events", "ID", "print the figures of a container as JSON", 1, 1, events},
		{"features", "", "print what this runtime supports, as JSON", 0, 0, features},
		{"checkpoint", "ID", "refused: the state of processes is not saved", 0, -1, outOfScope("checkpoint")},
		{"restore", "ID", "refused: the state of processes is not saved", 0, -1, outOfScope("restore")},
		{"spec", "", "write an example of a config.json", 0, 0, spec},
	}
}

func (c *call) store() container.Root { return container.Root{Dir: c.root, Warn: c.note} }

// note says what was left out though it had only been a default. Standard error
// is the container's own under an engine, which gives us a log. There podman
// looks for one error and no line more, so notes wait until there is none.
func (c *call) note(text string) {
	if c.log != "" && c.log != "/dev/stderr" {
		c.notes = append(c.notes, text)
		return
	}
	fmt.Fprintln(os.Stderr, "gantry-oci: note: "+printable(text))
}

// createFlags are those of create and run.
type createFlags struct {
	container.CreateOptions
	noPivot  bool
	preserve int
}

func (o *createFlags) register(f *pflag.FlagSet) {
	f.StringVarP(&o.Bundle, "bundle", "b", ".", "the bundle: a `DIR` with config.json")
	f.StringVar(&o.ConsoleSocket, "console-socket", "", "hand the terminal to who listens on `SOCKET`")
	f.StringVar(&o.PidFile, "pid-file", "", "write the process's number to `FILE`")
	f.StringVar(&o.PidfdSocket, "pidfd-socket", "", "hand the process's pidfd to who listens on `SOCKET`")
	f.BoolVar(&o.noPivot, "no-pivot", false, "refused: the root is always changed by pivot_root")
	f.BoolVar(&o.Keyring, "no-new-keyring", false, "keep the session keyring of the caller")
	f.IntVar(&o.preserve, "preserve-fds", 0, "pass `N` descriptors from 3 on")
}

func (o *createFlags) options(c *call) (container.CreateOptions, error) {
	if o.noPivot {
		return o.CreateOptions, errors.New("--no-pivot: is not supported: a root on a ramdisk cannot be left safely without pivot_root")
	}
	q := o.CreateOptions
	q.ID, q.Notes, q.InUserns = c.args[0], c.note, c.inside
	q.Systemd, q.NoCgroup = c.cgroupManager == "systemd", c.cgroupManager == "disabled"
	var err error
	if q.Listen, q.Preserve, err = container.Preserved(o.preserve); err != nil {
		return q, err
	}
	q.Libexec, err = container.Libexec()
	return q, err
}

func create(f *pflag.FlagSet) func(*call) error {
	o := &createFlags{}
	o.register(f)
	return func(c *call) error {
		if c.mustEnter() {
			return c.enterUserns(o.Bundle)
		}
		q, err := o.options(c)
		if err != nil {
			return err
		}
		_, err = c.store().Create(context.Background(), q)
		return err
	}
}

func start(*pflag.FlagSet) func(*call) error {
	return func(c *call) error {
		ct, err := c.store().Open(c.args[0])
		if err != nil {
			return err
		}
		defer ct.Close()
		return ct.Launch()
	}
}

func state(*pflag.FlagSet) func(*call) error {
	return func(c *call) error {
		ct, err := c.store().Look(c.args[0])
		if err != nil {
			return err
		}
		defer ct.Close()
		s, err := ct.State()
		if err != nil {
			return err
		}
		return printJSON(entry{s.Version, s.ID, s.Pid, string(s.Status), s.Bundle, ct.Rootfs(), ct.Created, s.Annotations, owner(ct.Owner)})
	}
}

// entry is the state of runtime.md with what runc adds, in its order; list
// prints the same.
type entry struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func owner(uid uint32) string {
	if u, err := user.LookupId(strconv.Itoa(int(uid))); err == nil {
		return u.Username
	}
	return "#" + strconv.Itoa(int(uid))
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func kill(f *pflag.FlagSet) func(*call) error {
	all := f.BoolP("all", "a", false, "send it to all processes of the container")
	return func(c *call) error {
		name := "SIGTERM"
		if len(c.args) == 2 {
			name = c.args[1]
		}
		sig, err := container.ParseSignal(name)
		if err != nil {
			return err
		}
		ct, err := c.store().Look(c.args[0])
		if err != nil {
			return err
		}
		defer ct.Close()
		return ct.Kill(sig, *all)
	}
}

func remove(f *pflag.FlagSet) func(*call) error {
	force := f.BoolP("force", "f", false, "kill it first; not there is no error")
	return func(c *call) error {
		ct, err := c.store().Open(c.args[0])
		if *force && errors.Is(err, container.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		defer ct.Close()
		return ct.Delete(*force)
	}
}

func list(f *pflag.FlagSet) func(*call) error {
	format := f.StringP("format", "f", "table", "print as `FORMAT`: table or json")
	quiet := f.BoolP("quiet", "q", false, "print ids only")
	return func(c *call) error {
		all, err := c.store().List()
		if err != nil {
			return err
		}
		entries := []entry{}
		for _, ct := range all {
			s, err := ct.State()
			ct.Close()
			if err != nil {
				continue // deleted meanwhile
			}
			entries = append(entries, entry{s.Version, s.ID, s.Pid, string(s.Status), s.Bundle, ct.Rootfs(), ct.Created, s.Annotations, owner(ct.Owner)})
		}
		switch {
		case *quiet:
			for _, e := range entries {
				fmt.Println(e.ID)
			}
			return nil
		case *format == "json":
			return printJSON(entries)
		case *format != "table":
			return fmt.Errorf("--format %q: use table or json", *format)
		}
		w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
		fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
		for _, e := range entries {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", e.ID, e.Pid, e.Status, e.Bundle, e.Created.Format(time.RFC3339Nano), e.Owner)
		}
		return w.Flush()
	}
}

// ps has ps(1) print and leaves out the lines of others, as runc does.
func ps(f *pflag.FlagSet) func(*call) error {
	format := f.StringP("format", "f", "table", "print as `FORMAT`: table, or json for the numbers only")
	f.SetInterspersed(false)
	return func(c *call) error {
		ct, err := c.store().Look(c.args[0])
		if err != nil {
			return err
		}
		defer ct.Close()
		pids, err := ct.Pids()
		if err != nil {
			return err
		}
		if *format == "json" {
			if pids == nil {
				pids = []int{}
			}
			return json.NewEncoder(os.Stdout).Encode(pids)
		}
		options := c.args[1:]
		if len(options) == 0 {
			options = []string{"-ef"}
		}
		out, err := exec.Command("ps", options...).Output()
		if err != nil {
			return fmt.Errorf("ps %s: %w", strings.Join(options, " "), err)
		}
		return filterPs(string(out), pids)
	}
}

func filterPs(out string, pids []int) error {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errors.New("ps: its options leave out the column PID")
	}
	fmt.Println(lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Println(line)
		}
	}
	return nil
}

// outOfScope answers whatever flags CRIU's users give.
func outOfScope(name string) func(*pflag.FlagSet) func(*call) error {
	return func(f *pflag.FlagSet) func(*call) error {
		f.ParseErrorsAllowlist.UnknownFlags = true
		return func(*call) error {
			return fmt.Errorf("%s: is out of scope: gantry-oci does not save the state of processes; use runc or crun for that", name)
		}
	}
}

func freeze(on bool) func(*pflag.FlagSet) func(*call) error {
	return func(*pflag.FlagSet) func(*call) error {
		return func(c *call) error {
			ct, err := c.store().Open(c.args[0])
			if err != nil {
				return err
			}
			defer ct.Close()
			return ct.Freeze(on)
		}
	}
}
