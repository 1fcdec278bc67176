// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/stage0"
)

const runLong = `Run a command in a new pod made from IMAGE.

The image is fetched if the store lacks it, its signatures are judged under
the rules of trust.d, and its files are checked against what was signed; then
the app starts as a direct child of this process, which stays in the
foreground as its supervisor: signals reach the app, its exit status is
gantry's, and when this process dies the app dies with it.

Everything after IMAGE is the app's: the command (or, when the image has an
entrypoint, its arguments). A "--" right after IMAGE is dropped.`

const runExample = `  gantry run --net=host registry.example.com/acme/web:1
  gantry run -it --rm oci:busybox sh
  gantry run -d --name db --memory 512m -v /srv/db:/data:rw registry.example.com/acme/redis:7
  gantry run --dry-run oci:busybox true`

// runFlags are the flags of run and prepare.
type runFlags struct {
	stage0.RunOptions
	detach, dryRun bool
	insecure       []string
	pull           string
	stopTimeout    int
	oomScoreAdj    int
	entrypoint     string
	readOnlyTmpfs  bool
	quiet          bool
	authFile       string
	cidFile        string
	cgroups        string
	healthCmd      string
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:     "run [flags] IMAGE [--] [COMMAND [ARG...]]",
		Short:   "Fetch, verify and launch an image",
		Long:    runLong,
		Example: runExample,
	}
	a.forImage(c, &f, func(e stage0.Env, ref string, o stage0.RunOptions) error {
		switch {
		case f.dryRun:
			d, err := stage0.Plan(a.ctx, e, ref, o)
			if err != nil {
				return err
			}
			return a.json(d)
		case f.detach:
			uuid, err := stage0.RunDetached(a.ctx, e, ref, o)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, uuid)
			return nil
		}
		return stage0.Run(a.ctx, e, ref, o)
	})
	c.Flags().BoolVarP(&f.detach, "detach", "d", false, "start the pod in a session of its own and print its UUID")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "print what was proven, the bundle and the ordered steps as JSON; launch nothing")
	c.Flags().StringVar(&f.PidFile, "pidfile", "", "write the app's PID to `FILE` once it runs")
	c.Flags().IntVar(&f.Preserve, "preserve-fds", 0, "pass `N` more descriptors on to the app, from 3 on")
	return c
}

// forImage gives a command the arguments of run and what is to be done with
// them.
func (a *app) forImage(c *cobra.Command, f *runFlags, do func(stage0.Env, string, stage0.RunOptions) error) {
	f.register(c.Flags())
	refusedUnlessSame(c.Flags())
	c.Flags().SetInterspersed(false)
	c.SetFlagErrorFunc(refused)
	c.Args = rangeArgs(1, -1)
	c.RunE = func(c *cobra.Command, args []string) error {
		e, err := a.env()
		if err != nil {
			return err
		}
		o, err := a.runOptions(c, e, f, args)
		if err != nil {
			return err
		}
		return do(e, args[0], o)
	}
}

// register adds what shapes the pod, in podman's spelling.
func (f *runFlags) register(s *pflag.FlagSet) {
	s.SortFlags = true
	o := &f.Options
	s.StringVar(&f.Name, "name", "", "call the pod `NAME`")
	s.BoolVar(&f.Replace, "replace", false, "remove the pod that has the name first")
	s.StringVar(&f.Platform, "platform", "", "choose `OS/ARCH[/VARIANT]` from a multi-platform image")
	s.StringVar(&f.pull, "pull", "missing", "look for the image outside the store: `POLICY` is missing, always, newer or never")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "show no progress")
	s.StringVar(&f.authFile, "authfile", "", "take registry credentials from `FILE` (default $REGISTRY_AUTH_FILE, else what podman login and docker login wrote)")
	s.StringSliceVar(&f.insecure, "insecure-options", nil, "give up a check, each time with a warning: `LIST` of image (signatures), tls, http")
	s.BoolVar(&f.Remove, "rm", false, "delete the pod when the app ends")
	s.StringVar(&f.UUIDFile, "uuid-file", "", "write the pod's UUID to `FILE`")
	s.StringVar(&f.cidFile, "cidfile", "", "same as --uuid-file")
	s.StringVar(&f.LogDriver, "log-driver", "", "`DRIVER` passthrough (default), file (default with -d; k8s-file is the same), journald or none")
	s.StringArrayVar(&f.LogOpts, "log-opt", nil, "of the log: `NAME=VALUE` path, max-size, max-file (with file), tag (with journald)")

	s.StringVar(&f.entrypoint, "entrypoint", "", "run `COMMAND`, or a JSON array of it, instead of the image's entrypoint")
	s.StringArrayVarP(&o.Env, "env", "e", nil, "set `NAME=VALUE`, or take NAME from this environment")
	s.StringArrayVar(&o.EnvFiles, "env-file", nil, "set the variables of `FILE`, one NAME=VALUE a line")
	s.StringArrayVar(&o.UnsetEnv, "unsetenv", nil, "drop `NAME` of the image's environment")
	s.StringVarP(&o.User, "user", "u", "", "run as `USER[:GROUP]`, names or numbers of the image")
	s.StringArrayVar(&o.GroupAdd, "group-add", nil, "add the supplementary `GROUP`")
	s.StringVarP(&o.Workdir, "workdir", "w", "", "start in `DIR`, made if missing")
	s.BoolVarP(&o.TTY, "tty", "t", false, "give the app a terminal")
	s.BoolVarP(&o.Interactive, "interactive", "i", false, "keep standard input connected")
	s.BoolVar(&o.Init, "init", false, "run a small init as PID 1 that forwards signals and reaps; its own threads, about eight, count against --pids-limit")
	s.StringVar(&o.StopSignal, "stop-signal", "", "`SIGNAL` that asks the app to end (default the image's, else TERM)")
	s.IntVar(&f.stopTimeout, "stop-timeout", 10, "kill it `SECONDS` after the stop signal")
	s.StringArrayVarP(&o.Labels, "label", "l", nil, "label the pod `NAME=VALUE`")
	s.StringArrayVar(&o.Annotations, "annotation", nil, "annotate the bundle `NAME=VALUE`")

	f.registerVolumes(s)

	registerNetworks(s, o)
	s.StringVarP(&o.Hostname, "hostname", "h", "", "`NAME` the app sees as its host's")
	s.BoolVar(&o.NoHosts, "no-hosts", false, "leave the image's /etc/hosts alone")
	s.StringArrayVar(&o.AddHosts, "add-host", nil, "add `NAME:IP` to /etc/hosts")
	s.StringArrayVar(&o.DNS, "dns", nil, "use the name server `IP`")
	s.StringArrayVar(&o.DNSSearch, "dns-search", nil, "search `DOMAIN`")
	s.StringArrayVar(&o.DNSOption, "dns-option", nil, "set the resolver `OPTION`")
	s.StringArrayVar(&o.DNSOption, "dns-opt", nil, "same as --dns-option")
	_ = s.MarkHidden("dns-opt") // Docker's name for it

	s.StringArrayVar(&o.CapAdd, "cap-add", nil, "add `CAPABILITY`, or ALL")
	s.StringArrayVar(&o.CapDrop, "cap-drop", nil, "drop `CAPABILITY`, or ALL")
	s.StringArrayVar(&o.SecurityOpt, "security-opt", nil, "set `OPTION` apparmor=PROFILE, label=…, seccomp=PROFILE|unconfined, no-new-privileges, mask=PATHS, unmask=PATHS|ALL, proc-opts=OPTIONS, systempaths=unconfined")
	s.StringVar(&o.SeccompProfile, "seccomp", "", "same as --security-opt seccomp=`PROFILE`")
	s.BoolVar(&o.Privileged, "privileged", false, "refused: says what to use instead")
	s.StringArrayVar(&o.Ulimits, "ulimit", nil, "limit `NAME=SOFT[:HARD]`, as in nofile=1024:4096")
	s.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "how likely the kernel kills the app when memory runs out, -1000 to 1000")
	s.StringArrayVar(&o.Sysctls, "sysctl", nil, "set `NAME=VALUE` inside the pod's namespaces")
	s.StringVarP(&o.Memory, "memory", "m", "", "limit memory to `SIZE`, as in 512m")
	s.StringVar(&o.MemorySwap, "memory-swap", "", "limit memory and swap together to `SIZE`; -1 is no limit")
	s.StringVar(&o.MemoryReserve, "memory-reservation", "", "keep memory at `SIZE` under pressure")
	s.StringVar(&o.CPUs, "cpus", "", "limit to `N` processors' time, as in 1.5")
	s.StringVarP(&o.CPUShares, "cpu-shares", "c", "", "relative `WEIGHT` of processor time (1024 is normal)")
	s.StringVar(&o.CPUSetCPUs, "cpuset-cpus", "", "run on processors `LIST`, as in 0-3,7")
	s.StringVar(&o.CPUSetMems, "cpuset-mems", "", "use memory nodes `LIST`")
	s.StringVar(&o.PidsLimit, "pids-limit", "", "limit processes and threads to `N` (default 2048), those of --init among them; -1 is no limit")
	f.registerHardware(s)
	f.registerHealth(s)
	f.registerResources(s)
	f.registerSurroundings(s)
	registerUserns(s, o)
	s.BoolP("help", "", false, "print this help")
}

// runOptions completes the flags with what pflag cannot say: whether a number
// was given, and what is wired to other packages.
func (a *app) runOptions(c *cobra.Command, e stage0.Env, f *runFlags, args []string) (stage0.RunOptions, error) {
	o := f.RunOptions
	o.Args = args[1:]
	if len(o.Args) > 0 && o.Args[0] == "--" {
		o.Args = o.Args[1:]
	}
	if c.Flags().Changed("entrypoint") {
		o.Entrypoint = &f.entrypoint
	}
	if c.Flags().Changed("health-cmd") {
		o.HealthCmd = &f.healthCmd
	}
	if c.Flags().Changed("oom-score-adj") {
		o.OOMScoreAdj = &f.oomScoreAdj
	}
	if c.Flags().Changed("stop-timeout") {
		if err := checkSeconds("--stop-timeout", f.stopTimeout); err != nil {
			return o, err
		}
		t := uint(f.stopTimeout)
		o.StopTimeout = &t
	}
	if err := checkSeconds("--timeout", o.Timeout); err != nil {
		return o, err
	}
	if err := f.checkMore(); err != nil {
		return o, err
	}
	o.NoReadOnlyTmp = !f.readOnlyTmpfs
	if o.UUIDFile == "" {
		o.UUIDFile = f.cidFile
	}
	o.Notes = func(s string) { a.say("note", s) }
	o.Warn = func(s string) { a.say("warning", s) }
	pull, err := parsePull(f.pull)
	if err != nil {
		return o, err
	}
	o.Pull = pull
	ins, err := a.parseInsecure(f.insecure)
	if err != nil {
		return o, err
	}
	o.Insecure = ins.image
	o.Fetch = a.fetcher(e, sourceFlags{platform: f.Platform, authFile: f.authFile}, f.quiet, ins)
	return o, nil
}

func parsePull(s string) (stage0.Pull, error) {
	switch p := stage0.Pull(s); p {
	case stage0.PullMissing, stage0.PullAlways, stage0.PullNewer, stage0.PullNever:
		return p, nil
	}
	return "", fmt.Errorf("--pull %q: use missing, always, newer or never", s)
}

// prepareCommand and runPreparedCommand are run cut in two; a detached run
// starts its supervisor through the second.
func (a *app) prepareCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:    "prepare [flags] IMAGE [--] [COMMAND [ARG...]]",
		Short:  "Do everything of run that can be done ahead; print the pod's UUID",
		Hidden: true,
	}
	a.forImage(c, &f, func(e stage0.Env, ref string, o stage0.RunOptions) error {
		uuid, err := stage0.Prepare(a.ctx, e, ref, o)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.out, uuid)
		return nil
	})
	return c
}

func (a *app) runPreparedCommand() *cobra.Command {
	var o stage0.LaunchOptions
	c := &cobra.Command{
		Use:    "run-prepared [flags] POD",
		Short:  "Launch a prepared pod",
		Hidden: true,
		Args:   exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			o.Notes = func(s string) { a.say("note", s) }
			o.Warn = func(s string) { a.say("warning", s) }
			return stage0.RunPrepared(a.ctx, e, args[0], o)
		},
	}
	c.Flags().BoolVarP(&o.Detach, "detach", "d", false, "start it in a session of its own")
	c.Flags().StringVar(&o.PidFile, "pidfile", "", "write the app's PID to `FILE` once it runs")
	c.Flags().IntVar(&o.ReadyFD, "ready-fd", 0, "descriptor to report readiness on")
	c.Flags().IntVar(&o.LockFD, "lock-fd", 0, "descriptor that holds the pod's lock")
	return c
}

// env says where everything is. An ordinary user's gantry goes on from here as
// root of a user namespace: that of the first pod that is named and runs, else
// a new one.
func (a *app) env(pods ...string) (stage0.Env, error) {
	e, err := a.outside()
	if err != nil {
		return e, err
	}
	return e, e.BecomeRoot(append(pods, "")[0])
}

// outside is env for what an ordinary user does without being root of anything.
func (a *app) outside() (stage0.Env, error) {
	g := a.globals
	return stage0.NewEnv(g.dir, g.runDir, g.configPath, g.libexec)
}

// maxSeconds is far below what a duration holds, past which waiting long would
// turn into not waiting at all.
const maxSeconds = math.MaxInt32

// checkSeconds refuses what is no time to wait.
func checkSeconds[N int | uint](flag string, n N) error {
	switch {
	case n < 0:
		return fmt.Errorf("%s %d: seconds cannot be negative", flag, n)
	case n > maxSeconds:
		return fmt.Errorf("%s %d: seconds go up to %d", flag, n, maxSeconds)
	}
	return nil
}

// stopwatch flags are shared by stop and its kin.
func seconds(n int) *time.Duration {
	d := time.Duration(n) * time.Second
	return &d
}

// fetchContext ends a fetch cleanly on the first interrupt.
func (a *app) fetchContext() (context.Context, context.CancelFunc) {
	return notifyContext(a.ctx, os.Interrupt)
}
