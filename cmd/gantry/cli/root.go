// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// globals are the flags every command takes.
type globals struct {
	dir, runDir, libexec string
	configPath           string
}

const rootLong = `gantry runs OCI containers without a daemon.

It fetches an image, verifies who signed it, and launches it as a direct
child of the process that asked: under systemd, another init, or a shell.
Who is trusted to sign what is decided by rules in trust.d, and the verdict
is computed again at every launch. With no rule, nothing runs.`

const rootExample = `  gantry trust keygen --output acme
  gantry sign --key acme.key registry.example.com/acme/web:1
  gantry trust add --prefix registry.example.com/acme acme.pub
  gantry run --net=host registry.example.com/acme/web:1
  gantry list`

// entry is one command of the first level.
type entry struct {
	name, group string
	make        func() *cobra.Command
}

func (a *app) commands() []entry {
	return []entry{
		{"run", "pods", a.runCommand},
		{"prepare", "pods", a.prepareCommand},
		{"run-prepared", "pods", a.runPreparedCommand},
		{"exec", "pods", a.execCommand},
		{"list", "pods", a.listCommand},
		{"status", "pods", a.statusCommand},
		{"ps", "pods", a.psCommand},
		{"port", "pods", a.portCommand},
		{"logs", "pods", a.logsCommand},
		{"inspect", "pods", a.inspectCommand},
		{"stop", "pods", a.stopCommand},
		{"kill", "pods", a.killCommand},
		{"rm", "pods", a.rmCommand},
		{"healthcheck", "pods", a.healthcheckCommand},
		{"gc", "pods", a.gcCommand},
		{"fetch", "images", a.fetchCommand},
		{"image", "images", a.imageCommand},
		{"volume", "images", a.volumeCommand},
		{"trust", "trust", a.trustCommand},
		{"sign", "trust", a.signCommand},
		{"network", "networks", a.networkCommand},
		{"check", "host", a.checkCommand},
		{"config", "host", a.configCommand},
		{"version", "host", a.versionCommand},
		{"completion", "host", a.completionCommand},
	}
}

// named returns the word of a command line that stands where a command does,
// or "" when only the whole tree can tell.
func named(args []string) string {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		flag, _, whole := strings.Cut(args[0], "=")
		if !slices.Contains([]string{"--dir", "--run-dir", "--config-path", "--libexec-dir"}, flag) {
			return ""
		}
		args = args[1:]
		if !whole && len(args) > 0 {
			args = args[1:] // its value
		}
	}
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// root builds the command tree afresh: nothing is registered globally. When
// only names a command the rest is left out, which would take half a
// millisecond of every launch; else, for help, completion, aliases and
// mistakes, it is the whole tree.
func (a *app) root(only string) *cobra.Command {
	c := &cobra.Command{
		Use:                   "gantry COMMAND",
		Short:                 "Fetch, verify and launch OCI images without a daemon",
		Long:                  rootLong,
		Example:               rootExample,
		SilenceErrors:         true,
		SilenceUsage:          true,
		DisableAutoGenTag:     true,
		DisableFlagsInUseLine: true,
		Args:                  cobra.NoArgs,
		RunE:                  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.CompletionOptions.DisableDefaultCmd = true
	c.SetFlagErrorFunc(flagError)
	c.SetUsageFunc(usage)
	f := c.PersistentFlags()
	f.StringVar(&a.globals.dir, "dir", "", "keep images and pods in `DIR` (default /var/lib/gantry, or $GANTRY_DIR)")
	f.StringVar(&a.globals.runDir, "run-dir", "", "keep what a reboot forgets in `DIR` (default below /run/gantry, or $GANTRY_RUN_DIR)")
	f.StringVar(&a.globals.configPath, "config-path", "", "read configuration from the colon-separated `DIRS`, later ones win (default /usr/lib/gantry:/run/gantry/conf:/etc/gantry, or $GANTRY_CONFIG_PATH)")
	f.StringVar(&a.globals.libexec, "libexec-dir", "", "find gantry's other executables in `DIR` (default beside gantry, or $GANTRY_LIBEXEC_DIR)")
	f.SortFlags = true

	c.AddGroup(
		&cobra.Group{ID: "pods", Title: "Pods:"},
		&cobra.Group{ID: "images", Title: "Images:"},
		&cobra.Group{ID: "trust", Title: "Trust:"},
		&cobra.Group{ID: "networks", Title: "Networks:"},
		&cobra.Group{ID: "host", Title: "This host:"},
	)
	all := a.commands()
	if i := slices.IndexFunc(all, func(e entry) bool { return e.name == only }); i >= 0 {
		all = all[i : i+1]
	}
	for _, e := range all {
		cmd := e.make()
		cmd.GroupID = e.group
		c.AddCommand(cmd)
	}
	if only == cobra.ShellCompRequestCmd || only == cobra.ShellCompNoDescRequestCmd {
		a.completes(c)
	}
	return c
}

// flagError turns pflag's message into ours, with the command's own help as
// what to read next.
func flagError(c *cobra.Command, err error) error {
	// What package strconv calls its functions is nothing to people.
	if text, why, found := strings.Cut(err.Error(), ": strconv."); found {
		_, why, _ = strings.Cut(why, "invalid ")
		kind := map[string]string{"syntax": "it is not of that form"}[why]
		if strings.HasSuffix(err.Error(), "out of range") {
			kind = "it is out of range"
		}
		if kind != "" {
			err = errors.New(text + ": " + kind)
		}
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		if near := nearestFlag(c, unknown.GetSpecifiedName()); near != "" {
			return withHint(err, "did you mean --%s? See '%s --help'", near, c.CommandPath())
		}
	}
	return withHint(err, "see '%s --help'", c.CommandPath())
}

// exactArgs is cobra.ExactArgs with a message that shows the usage line.
func exactArgs(n int) cobra.PositionalArgs { return rangeArgs(n, n) }

// rangeArgs accepts from lo to hi arguments; hi < 0 means any number.
func rangeArgs(lo, hi int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < lo:
			return withHint(fmt.Errorf("%s: an argument is missing", c.CommandPath()), "usage: %s", c.UseLine())
		case hi >= 0 && len(args) > hi:
			return withHint(fmt.Errorf("%s: unexpected argument %q", c.CommandPath(), args[hi]), "usage: %s", c.UseLine())
		}
		return nil
	}
}
