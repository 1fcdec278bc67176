// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

// The manual shows the very table the code uses.
func TestTableInManual(t *testing.T) {
	const file, begin, end = "../../docs/pod-lifecycle.md", "<!-- table -->\n", "<!-- /table -->\n"
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("ability missing: the source tree")
	}
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), begin)
	table, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	if *update {
		if err := os.WriteFile(file, []byte(head+begin+Markdown()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != Markdown() {
		t.Errorf("%s is not what the code does (go test -update rewrites it):\n%s", file, Markdown())
	}
}

// Pods only ever travel forward: that is what makes looking in this order
// safe.
func TestTableIsForward(t *testing.T) {
	phases := Phases()
	rows := Lifecycle()
	if len(rows) != len(phases) {
		t.Fatalf("%d rows, %d phases", len(rows), len(phases))
	}
	for i, r := range rows {
		if r.Phase != phases[i] {
			t.Errorf("row %d is %s, phase %d is %s", i, r.Phase, i, phases[i])
		}
		for _, to := range r.To {
			if slices.Index(phases, to) <= i {
				t.Errorf("%s may go back to %s", r.Phase, to)
			}
		}
		if r.Locked != r.Unlocked && !lockMatters(r.Phase) && r.Phase != Prepared && r.Phase != Exited && r.Phase != Garbage {
			t.Errorf("%s: nobody would tell %s from %s", r.Phase, r.Locked, r.Unlocked)
		}
	}
}
