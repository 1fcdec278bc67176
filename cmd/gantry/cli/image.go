// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantryrun/gantry/stage0"
)

func (a *app) imageCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "image COMMAND",
		Short: "Look after the images in the store",
		Long: `Look after the images in the store. The store is an OCI image layout that
other tools can read: 'skopeo copy oci:/var/lib/gantry/store:NAME …'.`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.NoArgs,
		RunE:                  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.imageListCommand(), a.imageInspectCommand(), a.imageRemoveCommand(), a.imageGCCommand(), a.imageVerifyCommand(),
		a.imageTagCommand(), a.imageHistoryCommand(), a.imageExportCommand(), a.imageExtractCommand(), a.imageMountCommand(), a.imageUnmountCommand())
	return c
}

func (a *app) imageListCommand() *cobra.Command {
	var format string
	var quiet bool
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List images, and whether they are trusted now",
		Aliases: []string{"list"},
		Example: "  gantry image ls",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			images, err := stage0.ListImages(e)
			if err != nil {
				return err
			}
			if quiet {
				for _, i := range images {
					fmt.Fprintln(a.out, i.Reference)
				}
				return nil
			}
			rows := make([][]string, 0, len(images))
			for _, i := range images {
				rows = append(rows, []string{i.Reference, short(i.Digest), i.Platform, size(i.Size), ago(i.Fetched), i.Trust})
			}
			return a.table(format, images, []string{"IMAGE", "DIGEST", "PLATFORM", "SIZE", "FETCHED", "TRUST"}, rows)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	formatFlag(c, &format)
	return c
}

func (a *app) imageInspectCommand() *cobra.Command {
	var platform, format string
	c := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Print everything known of an image, as JSON",
		Long: `Print everything known of an image in the store: manifest, configuration,
the verdict under the policy of this moment, and how its files' bytes are
proven on this host.`,
		Example: "  gantry image inspect registry.example.com/acme/web:1",
		Args:    exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			i, err := stage0.InspectImage(e, args[0], platform)
			if err != nil {
				return err
			}
			return a.inspection(format, i)
		},
	}
	inspectFlag(c, &format)
	c.Flags().StringVar(&platform, "platform", "", "`OS/ARCH[/VARIANT]` of a multi-platform image")
	return c
}

func (a *app) imageRemoveCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:     "rm IMAGE...",
		Short:   "Remove images and free what nothing else needs",
		Example: "  gantry image rm registry.example.com/acme/web:1",
		Args:    rangeArgs(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			freed, err := stage0.RemoveImages(e, args, force)
			for _, n := range freed.Names {
				fmt.Fprintln(a.out, n)
			}
			a.sayFetching(freed)
			return err
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "also an image that pods are made from")
	return c
}

func (a *app) imageGCCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "gc",
		Short: "Free what no image and no pod needs",
		Long: `Free what no name and no pod needs: blobs and trees of replaced images, and
what interrupted fetches left. It needs no room on the disk and may run beside
everything else.`,
		Example: "  gantry image gc",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			freed, err := stage0.GCImages(e)
			if err != nil {
				return err
			}
			a.sayFetching(freed)
			return a.table(format, freed, nil, [][]string{{fmt.Sprintf("freed %s", size(freed.Bytes)), fmt.Sprintf("%d blobs", freed.Blobs), fmt.Sprintf("%d tree files", freed.Trees)}})
		},
	}
	formatFlag(c, &format)
	return c
}

// sayFetching tells of what could not be freed yet.
func (a *app) sayFetching(freed stage0.ImageFreed) {
	if freed.Fetching {
		a.say("note", "an image is being fetched, so trees stay until it is here: 'gantry image gc' frees them then")
	}
}

func (a *app) imageVerifyCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "verify [IMAGE...]",
		Short: "Check images from their names to the last byte",
		Long: `Read everything the store has of the images (of all, if none is named), for
each platform that was fetched, and check it: blobs against their digests, the receipt against its seal, the
signatures under the policy of this moment, and every file of the tree,
whatever was checked before. The exit status is 1 when something is wrong.`,
		Example: "  gantry image verify",
		Args:    rangeArgs(0, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			ctx, cancel := a.fetchContext()
			defer cancel()
			checks, err := stage0.VerifyImages(ctx, e, args)
			if err != nil {
				return err
			}
			rows := make([][]string, 0, len(checks))
			bad := false
			for _, c := range checks {
				state := "ok"
				if !c.OK {
					state, bad = "WRONG", true
				}
				rows = append(rows, []string{state, c.Reference, dash(c.Platform), dash(c.Proof), strings.Join(c.Problems, "; ")})
			}
			if err := a.table(format, checks, nil, rows); err != nil {
				return err
			}
			if bad {
				return exitError(1)
			}
			return nil
		},
	}
	formatFlag(c, &format)
	return c
}
