// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// usage prints what --help shows below the description: how the command is
// called, examples, its subcommands by group, its flags.
func usage(c *cobra.Command) error {
	w := c.OutOrStderr()
	fmt.Fprintf(w, "Usage:\n  %s\n", c.UseLine())
	if c.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", c.Example)
	}
	subcommands(w, c)
	if c.HasAvailableLocalFlags() {
		fmt.Fprintf(w, "\nFlags:\n%s", c.LocalFlags().FlagUsages())
	}
	if c.HasAvailableInheritedFlags() {
		fmt.Fprint(w, "\nFlags of every command: --dir, --run-dir, --config-path, --libexec-dir; see 'gantry --help'\n")
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n'%s COMMAND --help' says more about a command.\n", c.CommandPath())
	}
	return nil
}

// nameWidth is the column of the commands' names. Cobra's own depends on the
// names beside the command, which may not have been built.
const nameWidth = 12

func subcommands(w io.Writer, c *cobra.Command) {
	if !c.HasAvailableSubCommands() {
		return
	}
	groups := c.Groups()
	if len(groups) == 0 {
		groups = []*cobra.Group{{Title: "Commands:"}}
	}
	for _, g := range groups {
		fmt.Fprintf(w, "\n%s\n", g.Title)
		for _, sub := range c.Commands() {
			if sub.GroupID == g.ID && sub.IsAvailableCommand() && sub.Name() != "help" {
				fmt.Fprintf(w, "  %-*s  %s\n", nameWidth, sub.Name(), sub.Short)
			}
		}
	}
}

// unknownCommand is cobra's error for a word that names no command.
func unknownCommand(err error) bool { return strings.HasPrefix(err.Error(), "unknown command ") }
