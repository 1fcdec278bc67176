// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/stage0"
)

// registerHealth adds how the app's health is probed.
func (f *runFlags) registerHealth(s *pflag.FlagSet) {
	o := &f.HealthOptions
	s.StringVar(&f.healthCmd, "health-cmd", "", "probe the app's health by `COMMAND` of a shell inside, or a JSON array of words; none is no check")
	s.StringVar(&o.HealthInterval, "health-interval", "", "probe every `TIME` (default 30s); disable: only by 'gantry healthcheck run'")
	s.StringVar(&o.HealthTimeout, "health-timeout", "", "a probe that takes longer than `TIME` has failed (default 30s)")
	s.StringVar(&o.HealthStartPeriod, "health-start-period", "", "failures do not count for `TIME` after the start, until a probe succeeds")
	s.StringVar(&o.HealthRetries, "health-retries", "", "so many failures in a row are unhealthy: `N` (default 3)")
	s.StringVar(&o.HealthOnFailure, "health-on-failure", "", "do `ACTION` when it becomes unhealthy: none (default), kill or stop")
	s.BoolVar(&o.NoHealthcheck, "no-healthcheck", false, "leave the image's health check out")
}

func (a *app) healthcheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "healthcheck COMMAND",
		Short: "Probe the health of pods",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:   "run POD",
		Short: "Probe a running pod's health once",
		Long: `Probe a running pod's health once, by the command of --health-cmd or of its
image, in the app's sandbox. The exit status is 0 when the probe succeeds, 1
when it fails. The result counts as one of those made at their times, and is
shown by status and inspect.`,
		Example: "  gantry healthcheck run web",
		Args:    exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			h, err := stage0.CheckHealth(a.ctx, e, args[0])
			if errors.Is(err, stage0.ErrUnhealthy) {
				fmt.Fprintln(a.out, h.Status)
				return exitError(1)
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, h.Status)
			return nil
		},
	})
	return c
}
