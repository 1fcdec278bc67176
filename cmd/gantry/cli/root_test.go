// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// A command that is built alone says what it says in the whole tree: its help
// and its subcommands', and what it has against wrong flags and arguments.
func TestCommandAlone(t *testing.T) {
	whole := new(app).root("")
	table := new(app).commands()
	if len(whole.Commands()) != len(table) {
		t.Fatalf("the tree has %d commands, the table %d", len(whole.Commands()), len(table))
	}
	for _, e := range table {
		top, _, err := whole.Find([]string{e.name})
		if err != nil || top.Name() != e.name {
			t.Errorf("the table calls it %q: %v", e.name, err)
			continue
		}
		if alone := new(app).root(e.name).Commands(); len(alone) != 1 {
			t.Errorf("%s: %d commands were built", e.name, len(alone))
		}
		for _, c := range append([]*cobra.Command{top}, top.Commands()...) {
			path := strings.Fields(c.CommandPath())[1:]
			for _, last := range []string{"--help", "--no-such-flag", "no-such-command"} {
				if last == "no-such-command" && c.Runnable() {
					continue // it would be done
				}
				args := append(path[:len(path):len(path)], last)
				if alone, all := said(e.name, args), said("", args); alone != all || alone == "" {
					t.Errorf("%v: alone it says\n%s\namong all\n%s", args, alone, all)
				}
			}
		}
	}
}

func said(only string, args []string) string {
	var out bytes.Buffer
	a := &app{out: &out, err: &out, ctx: context.Background()}
	root := a.root(only)
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	if err := root.Execute(); err != nil {
		a.fail(err)
	}
	return out.String()
}

func TestNamed(t *testing.T) {
	for line, want := range map[string]string{
		"run --rm x":                             "run",
		"--dir /d --run-dir=/r exec -- web list": "exec",
		"--dir":                                  "",
		"--help run":                             "",
		"-h":                                     "",
		"":                                       "",
		"help run":                               "help", // the whole tree: it is in no table
		"ls":                                     "ls",
	} {
		if got := named(strings.Fields(line)); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	for _, word := range []string{"", "help", "ls", "__complete", "rnu"} {
		if n := len(new(app).root(word).Commands()); n < 2 {
			t.Errorf("%q: only %d commands were built", word, n)
		}
	}
}

func TestNearestFlag(t *testing.T) {
	run, _, err := Root().Find([]string{"run"})
	if err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string]string{
		"memorry": "memory", "vol": "volume", "netork": "network", "autfile": "authfile", "runn-dir": "run-dir",
		"zzz": "", "x": "", "dns-opt1": "", "priviledged": "privileged",
	} {
		if got := nearestFlag(run, word); got != want {
			t.Errorf("--%s: --%s, want --%s", word, got, want)
		}
	}
}
