// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// unknownHint says what was meant by a word that names no command, or a flag
// that is missing: cobra's errors are only text.
func unknownHint(err error) string {
	var word, path string
	if n, _ := fmt.Sscanf(err.Error(), "unknown command %q for %q", &word, &path); n == 2 {
		return meant(word, path)
	}
	if flag, ok := strings.CutPrefix(err.Error(), "required flag(s) "); ok {
		return "give --" + strings.Trim(strings.TrimSuffix(flag, " not set"), `"`) + ": '--help' shows an example"
	}
	return ""
}

func meant(word, path string) string {
	words := strings.Fields(path)
	c, _, err := Root().Find(words[1:])
	if err != nil {
		return "'gantry --help' lists the commands"
	}
	if instead := podmans()[strings.Join(append(words[1:], word), " ")]; instead != "" {
		return instead
	}
	for c.SuggestionsMinimumDistance = 1; c.SuggestionsMinimumDistance <= 2; c.SuggestionsMinimumDistance++ {
		if near := c.SuggestionsFor(word); len(near) > 0 {
			return fmt.Sprintf("did you mean '%s %s'?", path, near[0])
		}
	}
	return fmt.Sprintf("'%s --help' lists the commands", path)
}

// nearestFlag is the flag of a command whose name is most like a word, if one
// is: two letters off at most, or a name that the word begins.
func nearestFlag(c *cobra.Command, word string) string {
	best, least := "", 3
	if len(word) < 4 {
		least = 2
	}
	look := func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		d := distance(word, f.Name)
		if len(word) > 2 && strings.HasPrefix(f.Name, word) {
			d = min(d, 1)
		}
		if d < least {
			best, least = f.Name, d
		}
	}
	c.Flags().VisitAll(look)
	c.InheritedFlags().VisitAll(look)
	return best
}

// distance counts the letters to be added, left out or changed (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, before+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// podmans are commands of podman that are called something else here, or are
// nothing of ours.
func podmans() map[string]string {
	const none = "gantry has no such command"
	return map[string]string{
		"pull": "'gantry fetch' brings images", "images": "'gantry image ls' lists them", "rmi": "'gantry image rm' removes them",
		"tag": "'gantry image tag' does that", "history": "'gantry image history' does that", "save": "'gantry image export' does that",
		"load": "'gantry fetch oci-archive:FILE' or docker-archive:FILE does that", "create": "'gantry prepare' makes a pod, 'gantry run-prepared' starts it",
		"start": "a pod runs once: 'gantry prepare' and 'gantry run-prepared', or 'gantry run' again", "restart": "restarting is the init system's: 'gantry stop' and 'gantry run'",
		"wait": "'gantry status --wait POD' waits", "container": "pods are named without it: 'gantry list', 'gantry inspect'", "pod": "pods are named without it: 'gantry list', 'gantry inspect'",
		"login": "'podman login' and 'docker login' write the file that gantry reads", "build": "buildah builds images", "push": "skopeo copies what 'gantry image export' writes",
		"cp": none + ": mount a volume, or use 'gantry exec POD tar'", "attach": none + ": run it in the foreground, or 'gantry logs --follow POD'",
		"image prune": "'gantry image gc' frees what nothing needs", "image pull": "'gantry fetch' brings images", "image save": "'gantry image export' does that",
		"pause": none + " yet", "unpause": none + " yet", "stats": none + " yet", "events": none + " yet", "commit": none + ": buildah builds images",
	}
}
