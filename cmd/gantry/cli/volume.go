// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gantryrun/gantry/stage0"
)

func (a *app) volumeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "volume COMMAND",
		Short: "Look after named volumes",
		Long: `Look after named volumes: directories that outlive the pods that mount them
with 'gantry run --volume NAME:/DEST'. A volume that does not exist is made by
the first pod, and begins with what its image has at DEST.`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.NoArgs,
		RunE:                  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.volumeListCommand(), a.volumeCreateCommand(), a.volumeInspectCommand(),
		a.volumeRemoveCommand(), a.volumePruneCommand(), a.volumeExistsCommand(), a.volumeExportCommand())
	return c
}

func (a *app) volumeListCommand() *cobra.Command {
	var format string
	var quiet bool
	var filter []string
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List volumes, and how many pods mount them",
		Aliases: []string{"list"},
		Example: "  gantry volume ls --filter dangling=true",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			volumes, err := stage0.ListVolumes(e, filter)
			if err != nil {
				return err
			}
			for _, v := range volumes {
				if v.Problem != "" {
					a.warn("%s", v.Problem)
				}
			}
			if quiet {
				for _, v := range volumes {
					fmt.Fprintln(a.out, v.Name)
				}
				return nil
			}
			rows := make([][]string, 0, len(volumes))
			for _, v := range volumes {
				rows = append(rows, []string{v.Name, ago(v.Created), strconv.Itoa(len(v.Pods)), dash(v.LabelText())})
			}
			return a.table(format, volumes, []string{"VOLUME", "CREATED", "PODS", "LABELS"}, rows)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	filterFlag(c, &filter, "f")
	formatFlag(c, &format)
	return c
}

func filterFlag(c *cobra.Command, filter *[]string, short string) {
	c.Flags().StringArrayVarP(filter, "filter", short, nil, "only volumes with `KEY=VALUE`: name, label, opt or dangling=true (no pod mounts it); several values of one KEY are as with list")
}

func (a *app) volumeCreateCommand() *cobra.Command {
	var o stage0.VolumeSettings
	var driver string
	c := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Make an empty volume",
		Long: `Make an empty volume, and print its name; without a NAME it gets a random one.
The first pod that mounts it fills it with what its image has there.`,
		Example: `  gantry volume create --label app=shop db
  gantry volume create --opt size=10g --opt nocopy cache`,
		Args: rangeArgs(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			if driver != "local" {
				return fmt.Errorf("--driver %q is not supported: local is all there is", driver)
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			name, err = stage0.CreateVolume(e, name, o)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, name)
			return nil
		},
	}
	c.Flags().StringArrayVarP(&o.Labels, "label", "l", nil, "label the volume `NAME=VALUE`")
	c.Flags().StringArrayVarP(&o.Opts, "opt", "o", nil, "set `OPTION` size=SIZE or inodes=N (where the file system has project quotas), uid=N, gid=N, nocopy")
	c.Flags().BoolVar(&o.Ignore, "ignore", false, "leave one alone that exists already")
	c.Flags().StringVarP(&driver, "driver", "d", "local", "`NAME` local, the only one")
	return c
}

func (a *app) volumeInspectCommand() *cobra.Command {
	var all bool
	var format string
	c := &cobra.Command{
		Use:     "inspect VOLUME...",
		Short:   "Print everything known of volumes, as JSON",
		Example: "  gantry volume inspect db",
		Args:    rangeArgs(0, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			if all == (len(args) > 0) {
				return errors.New("name volumes, or say --all")
			}
			if all {
				volumes, err := stage0.ListVolumes(e, nil)
				if err != nil {
					return err
				}
				return a.inspection(format, volumes)
			}
			volumes, err := stage0.InspectVolumes(e, args)
			if err != nil {
				return err
			}
			return a.inspection(format, volumes)
		},
	}
	inspectFlag(c, &format)
	c.Flags().BoolVarP(&all, "all", "a", false, "all volumes")
	return c
}

func (a *app) volumeRemoveCommand() *cobra.Command {
	var force, all bool
	c := &cobra.Command{
		Use:     "rm VOLUME...",
		Short:   "Delete volumes with all that is in them",
		Example: "  gantry volume rm db",
		Args:    rangeArgs(0, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			if all == (len(args) > 0) {
				return errors.New("name volumes, or say --all")
			}
			if all {
				if args, err = stage0.VolumeNames(e); err != nil {
					return err
				}
			}
			removed, err := stage0.RemoveVolumes(a.ctx, e, args, force)
			for _, n := range removed {
				fmt.Fprintln(a.out, n)
			}
			return err
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "remove the pods that mount it first, running ones too; one that does not exist is no error")
	c.Flags().BoolVarP(&all, "all", "a", false, "all volumes")
	return c
}

func (a *app) volumePruneCommand() *cobra.Command {
	var force bool
	var filter []string
	c := &cobra.Command{
		Use:   "prune",
		Short: "Delete all volumes that no pod mounts",
		Long: `Delete all volumes that no pod mounts, whether it runs or not. What was in them
is gone: without --force the question is asked on the terminal.`,
		Example: "  gantry volume prune --filter label=app=shop",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			if !force {
				unused, err := stage0.ListVolumes(e, append(filter, "dangling=true"))
				if err != nil || len(unused) == 0 {
					return err
				}
				if err := a.agreed(len(unused)); err != nil {
					return err
				}
			}
			removed, err := stage0.PruneVolumes(a.ctx, e, filter)
			for _, n := range removed {
				fmt.Fprintln(a.out, n)
			}
			return err
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	filterFlag(c, &filter, "")
	return c
}

// agreed asks before data goes that nothing brings back.
func (a *app) agreed(n int) error {
	what := "1 volume"
	if n > 1 {
		what = strconv.Itoa(n) + " volumes"
	}
	no := withHint(fmt.Errorf("%s would be deleted, and what is in there", what), "'gantry volume ls --filter dangling=true' lists them, 'gantry volume prune --force' deletes them")
	if !term.IsTerminal(int(a.in.Fd())) {
		return no
	}
	fmt.Fprintf(a.err, "delete %s, and what is in there? [y/N] ", what)
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err != nil || answer != "y" && answer != "yes" {
		return no
	}
	return nil
}

func (a *app) volumeExistsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "exists VOLUME",
		Short:   "Say by the exit status whether there is a volume: 0 or 1",
		Example: "  gantry volume exists db || gantry volume create db",
		Args:    exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			names, err := stage0.VolumeNames(e)
			if err != nil {
				return err
			}
			for _, n := range names {
				if n == args[0] {
					return nil
				}
			}
			return exitError(1)
		},
	}
}

func (a *app) volumeExportCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "export VOLUME",
		Short: "Write a volume's files as a tar archive",
		Long: `Write a volume's files as a tar archive, with numeric owners, hard links and
capabilities, without devices and sockets. Stop what writes to it first: what
changes meanwhile is in it or not. The way back is a pod, whose tar reads the
archive where a bad one can do no harm: see the second example.`,
		Example: `  gantry volume export -o db.tar db
  gantry run --rm -i -v db:/v oci:busybox tar -x -C /v < db.tar`,
		Args: exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			export := func(w io.Writer) error { return stage0.ExportVolume(e, args[0], w) }
			if output != "" && output != "-" {
				return replaceFile(output, export)
			}
			if f, ok := a.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
				return withHint(errors.New("an archive is not for a terminal"), "write it to a file: --output FILE")
			}
			return export(a.out)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "write to `FILE` (default standard output)")
	return c
}
