// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantryrun/gantry/stage0"
)

// imageOptions are the flags of commands that hand an image of the store out
// of it, or name it.
type imageOptions struct {
	platform string
	insecure []string
}

func (o *imageOptions) register(c *cobra.Command) {
	c.Flags().StringVar(&o.platform, "platform", "", "`OS/ARCH[/VARIANT]` of a multi-platform image")
	c.Flags().StringSliceVar(&o.insecure, "insecure-options", nil, "give up a check, each time with a warning: image (signatures)")
}

func (a *app) admitOptions(o imageOptions) (stage0.AdmitOptions, error) {
	ins, err := a.parseInsecure(o.insecure)
	return stage0.AdmitOptions{Platform: o.platform, Insecure: ins.image, Warn: func(s string) { a.say("warning", s) }}, err
}

func (a *app) imageTagCommand() *cobra.Command {
	var o imageOptions
	c := &cobra.Command{
		Use:   "tag IMAGE NAME...",
		Short: "Give an image further names",
		Long: `Give an image of the store further names. A name is trusted by its own rule:
the signatures kept with the image are judged under each new name, now and at
every launch. What no rule accepts as NAME does not get that name. Of an image
for several platforms the name is for all that were fetched, or for --platform.`,
		Example: "  gantry image tag docker-archive:/srv/web.tar registry.example.com/acme/web:1",
		Args:    rangeArgs(2, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			admit, err := a.admitOptions(o)
			if err != nil {
				return err
			}
			return stage0.TagImage(e, args[0], args[1:], stage0.TagOptions{Platform: admit.Platform, Insecure: admit.Insecure, Warn: admit.Warn})
		},
	}
	o.register(c)
	return c
}

func (a *app) imageHistoryCommand() *cobra.Command {
	var format, platform string
	var full, quiet bool
	c := &cobra.Command{
		Use:   "history IMAGE",
		Short: "Show how an image was made, as it says itself",
		Long: `Show the steps in which an image was made, the newest first. All but the
sizes is what its maker wrote there.`,
		Example: "  gantry image history registry.example.com/acme/web:1",
		Args:    exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			lines, err := stage0.ImageHistory(e, args[0], platform)
			if err != nil {
				return err
			}
			rows := make([][]string, 0, len(lines))
			for _, l := range lines {
				id, by := "<none>", l.CreatedBy
				if l.Layer != "" {
					id = short(l.Layer)
				}
				if full && l.Layer != "" {
					id = string(l.Layer)
				}
				if !full {
					by = clipped(by, 45)
				}
				if quiet {
					rows = append(rows, []string{id})
					continue
				}
				rows = append(rows, []string{id, sinceMade(l.Created), dash(by), size(l.Size), l.Comment})
			}
			header := []string{"LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"}
			if quiet {
				header = nil
			}
			return a.table(format, lines, header, rows)
		},
	}
	c.Flags().StringVar(&platform, "platform", "", "`OS/ARCH[/VARIANT]` of a multi-platform image")
	c.Flags().BoolVar(&full, "no-trunc", false, "print digests and commands whole")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print layers only")
	formatFlag(c, &format)
	return c
}

// clipped cuts a text to so many characters.
func clipped(s string, most int) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

func sinceMade(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return ago(*t)
}
