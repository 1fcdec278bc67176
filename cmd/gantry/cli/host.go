// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantryrun/gantry/internal/version"
	"github.com/gantryrun/gantry/stage0"
)

func (a *app) checkCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "check",
		Short: "Say what this host can and cannot do, and how to mend it",
		Long: `Say what this host can and cannot do for gantry, what is lost without it,
and how to get it. The exit status is 1 when something is missing without
which nothing can be launched.`,
		Example: "  gantry check\n  gantry check --format json",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.outside()
			if err != nil {
				return err
			}
			items := stage0.Check(e)
			rows := make([][]string, 0, 2*len(items))
			for _, i := range items {
				rows = append(rows, []string{i.State, i.Name, i.Have})
				if i.State == "yes" {
					continue
				}
				for _, more := range []struct{ label, text string }{{"without it: ", i.Means}, {"to mend: ", i.Mend}} {
					if more.text != "" {
						rows = append(rows, []string{"", "", more.label + more.text})
					}
				}
			}
			if err := a.table(format, items, nil, rows); err != nil {
				return err
			}
			for _, i := range items {
				if i.Required && i.State == "no" {
					return exitError(1)
				}
			}
			return nil
		},
	}
	formatFlag(c, &format)
	return c
}

func (a *app) configCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "config",
		Short:   "Show where gantry keeps and finds things",
		Long:    "Show the directories in use, after flags, environment variables and defaults.",
		Example: "  gantry config --format json",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.outside()
			if err != nil {
				return err
			}
			return a.table(format, e, nil, [][]string{
				{"dir", e.Dir, "images and pods"},
				{"run-dir", e.RunDir, "what a reboot forgets"},
				{"config-path", strings.Join(e.ConfigPath, ":"), "policy, later directories win"},
				{"libexec-dir", e.Libexec, "gantry's other executables"},
			})
		},
	}
	formatFlag(c, &format)
	return c
}

func (a *app) versionCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print gantry's version",
		Example: "  gantry version --format json",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{version.String(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			if format == "table" {
				fmt.Fprintf(a.out, "gantry %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
				return nil
			}
			return a.table(format, v, nil, nil)
		},
	}
	formatFlag(c, &format)
	return c
}

// notifyContext ends ctx on the first of the signals; the second has its
// default effect.
func notifyContext(ctx context.Context, signals ...os.Signal) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, signals...)
}
