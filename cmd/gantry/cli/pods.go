// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/gantryrun/gantry/stage0"
	"github.com/gantryrun/gantry/stage0/podlog"
)

func (a *app) listCommand() *cobra.Command {
	var o stage0.ListOptions
	var format string
	var quiet, noTrunc bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List pods",
		Long:  "List pods, newest first: those that run, or with --all every pod gantry knows.",
		Example: `  gantry list --all
  gantry list --filter state=exited --quiet`,
		Aliases: []string{"ls"},
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			pods, err := stage0.List(e, o)
			if err != nil {
				return err
			}
			if quiet {
				for _, p := range pods {
					fmt.Fprintln(a.out, p.UUID)
				}
				return nil
			}
			return a.table(format, pods, []string{"UUID", "NAME", "IMAGE", "STATE", "CREATED", "PORTS", "COMMAND"}, listRows(pods, noTrunc))
		},
	}
	c.Flags().BoolVarP(&o.All, "all", "a", false, "show prepared and exited pods too")
	c.Flags().StringArrayVarP(&o.Filter, "filter", "f", nil, "show only pods with `KEY=VALUE`: state, name, label, image, volume, health or id; of several values of one KEY any will do, but of labels all must hold")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print UUIDs only")
	c.Flags().BoolVar(&noTrunc, "no-trunc", false, "print UUIDs and commands whole")
	formatFlag(c, &format)
	return c
}

func listRows(pods []stage0.Record, whole bool) [][]string {
	rows := make([][]string, 0, len(pods))
	for _, p := range pods {
		uuid, cmd, state := p.UUID, strings.Join(p.Command, " "), p.State
		if !whole {
			uuid = uuid[:min(8, len(uuid))]
			if r := []rune(cmd); len(r) > 40 {
				cmd = string(r[:39]) + "…"
			}
		}
		if p.Health != "" {
			state += " (" + p.Health + ")"
		}
		if p.Exit != nil {
			state += " " + p.Exit.Text()
		}
		if p.Problem != "" {
			cmd = p.Problem
		}
		rows = append(rows, []string{uuid, dash(p.Name), p.Image, state, ago(p.Created), dash(publishedNow(p)), cmd})
	}
	return rows
}

// publishedNow are the ports of a pod that has them.
func publishedNow(r stage0.Record) string {
	if r.PID == 0 {
		return ""
	}
	return portList(r.Ports)
}

func (a *app) statusCommand() *cobra.Command {
	var wait bool
	var format string
	c := &cobra.Command{
		Use:   "status POD",
		Short: "Show a pod's state and how its app ended",
		Long: `Show a pod's state and how its app ended.

A pod that was run with --rm, or that somebody removes meanwhile, leaves no
record: only who waits for it while it runs is told its end, up to sixteen at a
time. Others, and those who began to wait before the app was started, see it
removed and no more.`,
		Example: `  gantry status web
  gantry status --wait --format json 5f2c`,
		Args: exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env(args[0])
			if err != nil {
				return err
			}
			var r stage0.Record
			if wait {
				ctx, cancel := a.fetchContext()
				defer cancel()
				r, err = stage0.Wait(ctx, e, args[0])
			} else {
				r, err = stage0.Status(e, args[0])
			}
			if err != nil {
				return err
			}
			return a.table(format, r, nil, statusRows(r))
		},
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until the app ended; a pod that is only prepared has none, and is not waited for")
	formatFlag(c, &format)
	return c
}

func statusRows(r stage0.Record) [][]string {
	rows := [][]string{{"uuid", r.UUID}, {"name", dash(r.Name)}, {"state", r.State}, {"image", r.Image}}
	if r.Manifest != "" {
		rows = append(rows, []string{"manifest", r.Manifest})
	}
	if r.Health != "" {
		rows = append(rows, []string{"health", r.Health})
	}
	if r.PID != 0 {
		rows = append(rows, []string{"pid", strconv.Itoa(r.PID)})
	}
	if ports := publishedNow(r); ports != "" {
		rows = append(rows, []string{"ports", ports})
	}
	for _, t := range []struct {
		name string
		at   time.Time
	}{{"created", r.Created}, {"started", r.Started}, {"exited", r.Exited}} {
		if !t.at.IsZero() {
			rows = append(rows, []string{t.name, t.at.Format(time.RFC3339Nano)})
		}
	}
	if r.Exit != nil {
		rows = append(rows, []string{"exit", r.Exit.Text()})
	}
	if r.Problem != "" {
		rows = append(rows, []string{"problem", r.Problem})
	}
	return rows
}

func (a *app) psCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "ps POD",
		Short:   "Show the processes of a running pod",
		Example: "  gantry ps web",
		Aliases: []string{"top"},
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 { // podman's ps
				return withHint(errors.New("gantry ps: a pod is missing"), "'gantry list' shows the pods, 'gantry ps POD' the processes of one")
			}
			return exactArgs(1)(c, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env(args[0])
			if err != nil {
				return err
			}
			procs, err := stage0.Ps(e, args[0])
			if err != nil {
				return err
			}
			rows := make([][]string, 0, len(procs))
			for _, p := range procs {
				rows = append(rows, []string{
					strconv.Itoa(p.PID), strconv.Itoa(p.Inside), strconv.Itoa(p.User), p.State,
					p.CPU.Round(10 * time.Millisecond).String(), size(p.RSS), p.Command,
				})
			}
			return a.table(format, procs, []string{"PID", "INSIDE", "UID", "STATE", "CPU", "RSS", "COMMAND"}, rows)
		},
	}
	formatFlag(c, &format)
	return c
}

func (a *app) logsCommand() *cobra.Command {
	var o podlog.Options
	var since string
	c := &cobra.Command{
		Use:   "logs POD",
		Short: "Print what a pod wrote",
		Long: `Print what a pod's app wrote to its standard output and error.

Pods run with --log-driver=file (the default with -d) have a log; a pod in the
foreground writes straight to its caller's output, so its log is there.`,
		Example: `  gantry logs --tail 20 web
  gantry logs -f --timestamps web`,
		Args: exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env(args[0])
			if err != nil {
				return err
			}
			if since != "" {
				if o.Since, err = parseSince(since, time.Now()); err != nil {
					return err
				}
			}
			ctx, cancel := a.fetchContext()
			defer cancel()
			return stage0.Logs(ctx, e, args[0], o, a.out, a.err)
		},
	}
	c.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on as more is written, until the app ends")
	c.Flags().IntVarP(&o.Tail, "tail", "n", -1, "only the last `N` lines")
	c.Flags().StringVar(&since, "since", "", "only lines since `TIME`: RFC 3339, or a duration such as 10m ago")
	c.Flags().BoolVarP(&o.Timestamps, "timestamps", "t", false, "begin each line with its time")
	return c
}

// parseSince reads an absolute RFC 3339 time, or a duration before now.
func parseSince(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return time.Time{}, fmt.Errorf("--since %q: use a time such as 2026-01-02T15:04:05Z, or a duration such as 10m", s)
	}
	return now.Add(-d), nil
}

func (a *app) inspectCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "inspect POD",
		Short:   "Print everything recorded about a pod, as JSON",
		Example: "  gantry inspect web\n  gantry inspect --format '{{.State}} {{.PID}}' web",
		Args:    exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env(args[0])
			if err != nil {
				return err
			}
			i, err := stage0.Inspect(e, args[0])
			if err != nil {
				return err
			}
			return a.inspection(format, i)
		},
	}
	inspectFlag(c, &format)
	return c
}

func (a *app) execCommand() *cobra.Command {
	var o stage0.ExecOptions
	c := &cobra.Command{
		Use:   "exec [flags] POD [--] COMMAND [ARG...]",
		Short: "Run a command inside a running pod",
		Long: `Run a command inside a running pod, with exactly the sandbox of its app:
the same namespaces, cgroup, capabilities, system call filter and limits.
The command's exit status is gantry's.`,
		Example: `  gantry exec web ls -l /srv
  gantry exec -it web sh`,
		Aliases: []string{"enter"},
		Args:    rangeArgs(2, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env(args[0])
			if err != nil {
				return err
			}
			o.Command = args[1:]
			if o.Command[0] == "--" {
				o.Command = o.Command[1:]
			}
			if len(o.Command) == 0 {
				return errors.New("exec: no command given")
			}
			_, err = stage0.Exec(a.ctx, e, args[0], o)
			return err
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.TTY, "tty", "t", false, "give the command a terminal")
	f.BoolVarP(&o.Interactive, "interactive", "i", false, "keep standard input connected")
	f.BoolVarP(&o.Detach, "detach", "d", false, "do not wait for the command")
	f.StringArrayVarP(&o.Env, "env", "e", nil, "set `NAME=VALUE`")
	f.StringArrayVar(&o.EnvFiles, "env-file", nil, "set the variables of `FILE`")
	f.StringVarP(&o.User, "user", "u", "", "run as `USER[:GROUP]` of the image")
	f.StringVarP(&o.Workdir, "workdir", "w", "", "start in `DIR`")
	f.StringVar(&o.PidFile, "pidfile", "", "write the command's PID to `FILE`")
	f.IntVar(&o.ReadyFD, "ready-fd", 0, "descriptor to report readiness on")
	must(f.MarkHidden("ready-fd"))
	f.SetInterspersed(false)
	return c
}

func (a *app) stopCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "stop POD...",
		Short: "Ask pods to end, kill them after a time-out",
		Example: `  gantry stop web
  gantry stop --time 2 web db`,
		Args: rangeArgs(1, -1),
	}
	options := stopFlags(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		o, err := options()
		if err != nil {
			return err
		}
		return a.eachPod(args, func(e stage0.Env, id string) error { return stage0.Stop(a.ctx, e, id, o) })
	}
	return c
}

// stopFlags adds --time, which the function it returns reads.
func stopFlags(c *cobra.Command) func() (stage0.StopOptions, error) {
	timeout := c.Flags().IntP("time", "t", 10, "kill `SECONDS` after the stop signal (default the pod's own time-out)")
	return func() (o stage0.StopOptions, err error) {
		if c.Flags().Changed("time") {
			if err := checkSeconds("--time", *timeout); err != nil {
				return o, err
			}
			o.Timeout = seconds(*timeout)
		}
		return o, nil
	}
}

func (a *app) killCommand() *cobra.Command {
	var signal string
	c := &cobra.Command{
		Use:   "kill POD...",
		Short: "Send a signal to pods' apps",
		Example: `  gantry kill web
  gantry kill --signal HUP web`,
		Args: rangeArgs(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.eachPod(args, func(e stage0.Env, id string) error { return stage0.Kill(e, id, signal) })
		},
	}
	c.Flags().StringVarP(&signal, "signal", "s", "KILL", "send `SIGNAL`: KILL, SIGTERM, 15")
	return c
}

func (a *app) rmCommand() *cobra.Command {
	var o stage0.RemoveOptions
	c := &cobra.Command{
		Use:   "rm POD...",
		Short: "Delete pods that do not run",
		Example: `  gantry rm web
  gantry rm --force --time 0 web db`,
		Args: rangeArgs(1, -1),
	}
	c.Flags().BoolVarP(&o.Force, "force", "f", false, "stop the pod first if it runs")
	options := stopFlags(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		var err error
		if o.StopOptions, err = options(); err != nil {
			return err
		}
		if o.Timeout != nil && !o.Force {
			return withHint(errors.New("--time is for pods that run"), "add --force to stop them first")
		}
		return a.eachPod(args, func(e stage0.Env, id string) error { return stage0.Remove(a.ctx, e, id, o) })
	}
	return c
}

// eachPod acts on all arguments, many at a time since what is stopped may take
// its time to end, prints those that worked in their order and returns all that
// did not.
func (a *app) eachPod(ids []string, do func(stage0.Env, string) error) error {
	e, err := a.env(ids...)
	if err != nil {
		return err
	}
	errs := make([]error, len(ids))
	var group errgroup.Group
	group.SetLimit(64)
	for i, id := range ids {
		group.Go(func() error {
			errs[i] = do(e, id)
			return nil
		})
	}
	_ = group.Wait() // none returns an error
	for i, id := range ids {
		if errs[i] == nil {
			fmt.Fprintln(a.out, id)
		}
	}
	return errors.Join(errs...)
}

func (a *app) gcCommand() *cobra.Command {
	var o stage0.GCOptions
	var format string
	c := &cobra.Command{
		Use:   "gc",
		Short: "Delete exited pods and sweep what crashes left",
		Long: `Record exits nobody recorded, delete pods that exited before the grace
period, and sweep what crashes left: aborted preparations, names, cgroups.
Running pods are never touched. Images are collected by 'gantry image gc'.`,
		Example: "  gantry gc --grace-period 0s",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			r, err := stage0.GC(a.ctx, e, o)
			if err != nil {
				return err
			}
			rows := make([][]string, 0, len(r.Marked)+len(r.Removed)+len(r.Names)+len(r.Problems))
			for _, g := range []struct {
				what string
				ids  []string
			}{{"marked", r.Marked}, {"removed", r.Removed}, {"name freed", r.Names}, {"problem", r.Problems}} {
				for _, id := range g.ids {
					rows = append(rows, []string{g.what, id})
				}
			}
			return a.table(format, r, nil, rows)
		},
	}
	c.Flags().DurationVar(&o.Grace, "grace-period", 30*time.Minute, "keep pods that exited less than `TIME` ago")
	c.Flags().DurationVar(&o.ExpirePrepared, "expire-prepared", 24*time.Hour, "keep pods prepared less than `TIME` ago")
	c.Flags().BoolVar(&o.MarkOnly, "mark-only", false, "only record exits")
	formatFlag(c, &format)
	return c
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ago says how long since t in the largest fitting unit.
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}
