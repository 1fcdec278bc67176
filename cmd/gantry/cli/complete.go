// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/signature"
	"github.com/gantryrun/gantry/stage0"
	"github.com/gantryrun/gantry/stage0/bundle"
)

func (a *app) completionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print the completion script of a shell",
		Long: `Print what makes SHELL (bash, zsh or fish) complete gantry's commands, flags,
images, pods, networks and volumes. 'make install' and packages put it where
shells look by themselves.`,
		Example: `  source <(gantry completion bash)
  gantry completion zsh > "${fpath[1]}/_gantry"
  gantry completion fish > ~/.config/fish/completions/gantry.fish`,
		Args:      exactArgs(1),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(_ *cobra.Command, args []string) error {
			root := (&app{out: a.out, err: a.err}).root("")
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			}
			return withHint(fmt.Errorf("completion %s: no such shell is known", args[0]), "use bash, zsh or fish")
		},
	}
	return c
}

// source finds what a word may become: lines of a value, and what it is after
// a tab. What cannot be read is nothing to complete, and no error.
type source func(a *app) []string

// words is a source that knows without looking.
func words(list ...string) source { return func(*app) []string { return list } }

func images(a *app) []string {
	return found(a, stage0.ListImages, func(i stage0.ImageRecord) string {
		return i.Reference + "\t" + i.Trust
	})
}

// pods are those in one of the states, or all, by name if they have one.
func pods(states ...string) source {
	return func(a *app) []string {
		list := func(e stage0.Env) ([]stage0.Record, error) { return stage0.List(e, stage0.ListOptions{All: true}) }
		return found(a, list, func(r stage0.Record) string {
			if len(states) > 0 && !slices.Contains(states, r.State) {
				return ""
			}
			name := r.Name
			if name == "" {
				name = r.UUID
			}
			return fmt.Sprintf("%s\t%s, %s", name, r.State, r.Image)
		})
	}
}

func networks(a *app) []string {
	list := func(e stage0.Env) ([]stage0.Network, error) { return stage0.ListNetworks(e, nil) }
	return found(a, list, func(n stage0.Network) string { return n.Name + "\t" + n.Driver })
}

func volumes(a *app) []string {
	return found(a, stage0.VolumeNames, func(name string) string { return name })
}

func found[T any](a *app, list func(stage0.Env) ([]T, error), word func(T) string) []string {
	e, err := a.outside()
	if err != nil {
		return nil
	}
	all, _ := list(e)
	out := make([]string, 0, len(all))
	for _, one := range all {
		if w := word(one); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// prefixes are those rules are about.
func prefixes(a *app) []string {
	list := func(e stage0.Env) ([]signature.Rule, error) {
		p, err := signature.LoadPolicy(e.ConfigPath)
		if err != nil {
			return nil, err
		}
		return p.Rules(), nil
	}
	return found(a, list, func(r signature.Rule) string { return r.Prefix })
}

// around puts words before and after each of a source.
func around(before string, s source, after string) source {
	return func(a *app) []string {
		var out []string
		for _, w := range s(a) {
			value, about, _ := strings.Cut(w, "\t")
			out = append(out, before+value+after+"\t"+about)
		}
		return out
	}
}

func capabilities(*app) []string {
	all := []string{"ALL"}
	for _, name := range bundle.AllCapabilities() {
		all = append(all, strings.TrimPrefix(name, "CAP_"))
	}
	return all
}

func together(all ...source) source {
	return func(a *app) []string {
		var out []string
		for _, s := range all {
			out = append(out, s(a)...)
		}
		return out
	}
}

// argument is what stands at a place of a command line: the last of a command
// stands for all that follow if there may be more.
type argument struct {
	source source
	more   bool
	files  bool // or a file
}

func argumentsOf() map[string][]argument {
	one := func(s source) []argument { return []argument{{source: s}} }
	many := func(s source) []argument { return []argument{{source: s, more: true}} }
	running := pods("running")
	return map[string][]argument{
		"run": one(images), "prepare": one(images), "fetch": many(images), "sign": many(images),
		"image inspect": one(images), "image history": one(images), "image rm": many(images), "image verify": many(images),
		"image tag": one(images), "image export": many(images),
		"image extract": {{source: images}, {files: true}}, "image mount": {{source: images}, {files: true}},
		"image unmount": {{files: true, more: true}}, "trust explain": one(images), "trust add": {{files: true, more: true}},
		"exec": one(running), "ps": one(running), "stop": many(running), "kill": many(running), "healthcheck run": one(running),
		"port": one(running), "status": one(pods()), "logs": one(pods()), "inspect": one(pods()), "rm": many(pods()),
		"run-prepared":    one(pods("prepared")),
		"network inspect": many(networks), "network rm": many(networks), "network exists": one(networks), "network check": many(networks),
		"volume inspect": many(volumes), "volume rm": many(volumes), "volume exists": one(volumes), "volume export": one(volumes),
	}
}

// valuesOf is by the name of a flag: it means the same wherever it is.
func valuesOf() map[string]source {
	signals := words("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "STOP", "CONT", "WINCH", "RTMIN+")
	net := together(words("none\tonly a loopback", "host\tthe host's", "ns:\ta namespace by its path"), networks, around("pod:", pods("running"), ""))
	shared := words("private", "host")
	return map[string]source{
		"net": net, "network": net, "volumes-from": pods(), "volume": around("", volumes, ":"),
		"cap-add": capabilities, "cap-drop": capabilities, "signal": signals, "stop-signal": signals,
		"pull": words("missing", "always", "newer", "never"), "log-driver": words("passthrough", "file", "k8s-file", "journald", "none"),
		"log-opt": words("path=", "max-size=", "max-file=", "tag="),
		"userns":  words("host", "auto", "auto:size="), "pid": shared, "uts": shared, "ipc": words("private", "host", "none"),
		"cgroupns": shared, "image-volume": words("anonymous", "tmpfs", "ignore"), "format": words("table", "json"),
		"health-on-failure": words("none", "kill", "stop"), "insecure-options": words("image", "tls", "http"),
		"security-opt": words("apparmor=", "label=disable", "label=type:", "seccomp=unconfined", "seccomp=", "no-new-privileges", "mask=", "unmask=ALL", "proc-opts=", "systempaths=unconfined"),
		"mount":        words("type=bind,src=", "type=volume,src=", "type=tmpfs,dst=", "type=image,src=", "type=devpts,dst="),
		"accept":       words("sigstore-key", "reject", "insecure"), "transparency": words("ignore", "if-present", "require"),
		"prefix": prefixes, "personality": words("LINUX", "LINUX32"),
	}
}

// completes tells shells of the whole tree what a word may become. Only a
// command line that asks for it pays.
func (a *app) completes(root *cobra.Command) {
	arguments, values := argumentsOf(), valuesOf()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		path := strings.TrimPrefix(c.CommandPath(), root.Name()+" ")
		if c.ValidArgs == nil && c.Runnable() && !c.HasSubCommands() {
			c.ValidArgsFunction = a.argument(arguments[path])
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if s, ok := values[f.Name]; ok {
				_ = c.RegisterFlagCompletionFunc(f.Name, a.value(s))
			}
		})
	}
	walk(root)
}

func (a *app) argument(list []argument) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		at := len(args)
		if n := len(list); n > 0 && at >= n && list[n-1].more {
			at = n - 1
		}
		switch {
		case at >= len(list):
			return nil, cobra.ShellCompDirectiveNoFileComp
		case list[at].files:
			return nil, cobra.ShellCompDirectiveDefault
		}
		// What is there already is not offered once more.
		words := slices.DeleteFunc(list[at].source(a), func(w string) bool {
			value, _, _ := strings.Cut(w, "\t")
			return slices.Contains(args, value)
		})
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// value completes one value; a value that goes on is followed by no space, and
// a path is a file's.
func (a *app) value(s source) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		if strings.HasPrefix(typed, "/") || strings.HasPrefix(typed, ".") {
			return nil, cobra.ShellCompDirectiveDefault
		}
		words, goesOn := s(a), false
		for _, w := range words {
			value, _, _ := strings.Cut(w, "\t")
			goesOn = goesOn || strings.HasPrefix(value, typed) && strings.ContainsAny(value[len(value)-1:], ":=")
		}
		if goesOn {
			return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}
