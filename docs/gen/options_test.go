// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/cmd/gantry/cli"
)

var update = flag.Bool("update", false, "rewrite docs/options.md")

const optionsFile = "../options.md"

func TestOptionsPage(t *testing.T) {
	if *update {
		if err := writeOptions(optionsFile); err != nil {
			t.Fatal(err)
		}
	}
	want, err := optionTable()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(optionsFile)
	if err != nil || string(got) != want {
		t.Errorf("docs/options.md is not what the commands say, run make docs (%v)", err)
	}
}

// Whoever knows podman finds each of its options: under its name, or refused
// by it.
func TestEveryOptionOfPodman(t *testing.T) {
	flags, err := runFlags()
	if err != nil {
		t.Fatal(err)
	}
	podmans := podmanOptions()
	if len(podmans) < 100 {
		t.Fatalf("podman's list has %d options", len(podmans))
	}
	refused := map[string]cli.Refusal{}
	for _, r := range cli.Refusals() {
		if r.Why == "" || refused[r.Name].Name != "" {
			t.Errorf("--%s: refused twice, or without a reason", r.Name)
		}
		if f := flags.Lookup(r.Name); f != nil && !(f.Hidden && len(r.Same) > 0) {
			t.Errorf("--%s: is refused, and an option", r.Name)
		}
		refused[r.Name] = r
	}
	for name, short := range podmans {
		f := flags.Lookup(name)
		r, no := refused[name]
		switch {
		case f == nil && !no:
			t.Errorf("--%s: neither an option nor refused by name", name)
		case !no && f.Shorthand != short:
			t.Errorf("--%s: its short name is %q, podman's %q", name, f.Shorthand, short)
		case no && r.Short != short:
			t.Errorf("--%s: refused with the short name %q, podman's is %q", name, r.Short, short)
		}
	}
	for name := range differences() {
		if _, shared := podmans[name]; !shared {
			t.Errorf("--%s: differs from what podman does not have", name)
		}
		if _, no := refused[name]; no {
			t.Errorf("--%s: differs, and is refused", name)
		}
	}
}

// The list is podman's own, where it is installed.
func TestPodmansList(t *testing.T) {
	version, err := exec.Command("podman", "--version").Output()
	if err != nil || !strings.Contains(string(version), " 4.3.") {
		t.Skipf("ability missing: podman 4.3: %s%v", version, err)
	}
	help, err := exec.Command("podman", "run", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, options, _ := strings.Cut(string(help), "\nOptions:\n")
	said := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\s+(?:-(\w), )?--([\w-]+)`).FindAllStringSubmatch(options, -1) {
		said[m[2]] = m[1]
	}
	kept := podmanOptions()
	for name, short := range said {
		if s, ok := kept[name]; !ok || s != short {
			t.Errorf("podman has --%s (-%s), the list has %q, %v", name, short, s, ok)
		}
	}
	for name := range kept {
		if _, ok := said[name]; !ok {
			t.Errorf("the list has --%s, podman has not", name)
		}
	}
}
