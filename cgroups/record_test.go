// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"os"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestRecordComesFirst guards that whoever is killed while a group is made has
// it on record: what Record is told covers what is made, and nothing is made
// when recording fails.
func TestRecordComesFirst(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("ability missing: root")
	}
	limit := int64(64)
	o := Options{Name: "gantry-test-record", Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}}
	var recorded []string
	refuse := errors.New("disk full")
	o.Record = func(dirs []string) error {
		recorded = dirs
		if made := Existing(dirs); len(made) > 0 {
			t.Errorf("made before it was recorded: %q", made)
		}
		return refuse
	}
	if _, err := Create(o); !errors.Is(err, refuse) {
		t.Fatalf("Create = %v, not the error of Record", err)
	}
	if made := Existing(recorded); len(made) > 0 {
		t.Errorf("made though recording failed: %q", made)
	}
	o.Record = func(dirs []string) error { recorded = dirs; return nil }
	g, err := Create(o)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Delete()
	for _, dir := range g.Dirs() {
		if !slices.Contains(recorded, dir) {
			t.Errorf("%s was made and not recorded", dir)
		}
	}
	if err := errors.Join(KillAll(recorded), RemoveAll(recorded)); err != nil {
		t.Errorf("sweep what was recorded: %v", err)
	}
	if left := Existing(recorded); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
