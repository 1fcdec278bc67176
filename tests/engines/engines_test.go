// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
)

// subject is what is tested; peers are what it is compared with.
const subject = "gantry-oci"

var makeTable = flag.Bool("table", false, "play the transcripts with crun and runc too, and write the tables of docs/engines.md")

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "pty" {
		os.Exit(pty(os.Args[1:]))
	}
	flag.Parse()
	os.Exit(m.Run())
}

// engine is one with a transcript.
type engine struct {
	name   string // of the transcript
	start  func(*testing.T, string) *machine
	reset  string                  // removes what a section that failed leaves
	untold bool                    // it has no table in the documentation
	left   string                  // prints what an engine still has, nothing at the end of a section
	groups func(*machine) []string // what the names of control groups of its containers have in them
}

// test plays every section over gantry-oci, and over its peers when the table is
// made.
func (e engine) test(t *testing.T) {
	t.Helper()
	sections := read(t, e.name)
	table := newTable(e.name, sections)
	for _, runtime := range table.runtimes {
		t.Run(runtime, func(t *testing.T) {
			m := e.start(t, runtime)
			for i, s := range sections {
				t.Run(strings.ReplaceAll(s.title, " ", "-"), func(t *testing.T) {
					if missing := s.missing(); missing != "" {
						table.skip(i)
						t.Skip(missing)
					}
					err := m.play(s, fmt.Sprintf("box%d", i))
					if err != nil {
						m.command(e.reset)
					}
					table.add(i, runtime, err)
					if runtime != subject { // others are looked at, not tested
						return
					}
					if err != nil {
						t.Error(err)
					}
					e.clean(t, m)
				})
			}
		})
	}
	switch {
	case e.untold:
	case *makeTable:
		table.write(t)
	default:
		table.current(t)
	}
}

// clean looks for what a section left behind.
func (e engine) clean(t *testing.T, m *machine) {
	t.Helper()
	if left := m.command(e.left); left != "" {
		t.Fatalf("the section leaves containers, or the runtime does: %s", left)
	}
	for _, dir := range m.stateDirs() {
		_ = filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
			if err == nil && d.Name() == "state.json" {
				t.Errorf("left by the runtime: %s", name)
			}
			return nil // there may be no such directory
		})
	}
	if left := groups(e.groups(m)); len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
	if mounts := m.command("grep -e /merged -e /shm -e /rootfs /proc/mounts | grep " + m.dir); !strings.HasSuffix(mounts, "[status 1]") {
		t.Errorf("left mounted:\n%s", mounts)
	}
}

func (s section) missing() string {
	for _, a := range ability.All() {
		if slices.Contains(s.needs, a.Name) {
			if err := a.Missing(); err != nil {
				return fmt.Sprintf("ability missing: %s: %v", a.Name, err)
			}
		}
	}
	return ""
}

func read(t *testing.T, name string) []section {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	sections, err := parse(string(b))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return sections
}
