// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/built"
)

// table is what a transcript came to with each runtime. It stands in
// docs/engines.md between two marks.
type table struct {
	name     string
	sections []section
	runtimes []string
	cells    []map[string]string
	notes    []string
}

func newTable(name string, sections []section) *table {
	t := &table{name: name, sections: sections, runtimes: []string{subject}}
	if *makeTable {
		t.runtimes = append(t.runtimes, "crun", "runc")
	}
	for range sections {
		t.cells = append(t.cells, map[string]string{})
	}
	return t
}

func (t *table) add(section int, runtime string, err error) {
	var u *unexpected
	switch {
	case err == nil:
		t.cells[section][runtime] = "yes"
	case errors.As(err, &u):
		t.notes = append(t.notes, fmt.Sprintf("%d. %s, of `%s`: %s", len(t.notes)+1, runtime, u.step.command, quote(u.got)))
		t.cells[section][runtime] = fmt.Sprintf("no (%d)", len(t.notes))
	default:
		t.cells[section][runtime] = "no"
	}
}

func (t *table) skip(section int) {
	for _, runtime := range t.runtimes {
		t.cells[section][runtime] = "not here"
	}
}

// quote is the gist of an output in one line.
func quote(s string) string {
	if s = strings.Join(strings.Fields(s), " "); s == "" {
		return "nothing is printed"
	}
	if r := []rune(s); len(r) > 300 {
		s = string(r[:300]) + " …"
	}
	return "`" + strings.ReplaceAll(s, "`", "'") + "`"
}

func (t *table) marks() (begin, end string) {
	return "<!-- " + t.name + ": made by the test -->\n", "<!-- " + t.name + ": end -->\n"
}

func (t *table) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(t.runtimes, " | "), strings.Repeat("---|", len(t.runtimes)))
	for i, s := range t.sections {
		fmt.Fprintf(&b, "| %s |", s.title)
		for _, r := range t.runtimes {
			fmt.Fprintf(&b, " %s |", t.cells[i][r])
		}
		b.WriteByte('\n')
	}
	if len(t.notes) > 0 {
		fmt.Fprintf(&b, "\n%s\n", strings.Join(t.notes, "\n"))
	}
	return b.String()
}

func page(t *testing.T) (file, text string) {
	t.Helper()
	root, err := built.Root()
	if err != nil {
		t.Skip("the documentation is not here: ", err)
	}
	file = filepath.Join(root, "docs/engines.md")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, string(b)
}

func (t *table) write(tt *testing.T) {
	file, text := page(tt)
	begin, end := t.marks()
	before, rest, ok := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		tt.Fatalf("%s has no marks for %s", file, t.name)
	}
	if err := os.WriteFile(file, []byte(before+begin+t.text()+end+after), 0o644); err != nil {
		tt.Fatal(err)
	}
}

// current fails when the table in the documentation is of another transcript.
func (t *table) current(tt *testing.T) {
	tt.Run("table", func(tt *testing.T) {
		file, text := page(tt)
		begin, end := t.marks()
		_, text, _ = strings.Cut(text, begin)
		text, _, _ = strings.Cut(text, end)
		var want, got []string
		for _, s := range t.sections {
			want = append(want, s.title)
		}
		for line := range strings.Lines(text) {
			if cell, ok := strings.CutPrefix(line, "| "); ok && !strings.HasPrefix(cell, "| ") {
				cell, _, _ = strings.Cut(cell, " |")
				got = append(got, cell)
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			tt.Errorf("%s lists other sections than the transcript: go test ./tests/engines -table", file)
		}
	})
}
