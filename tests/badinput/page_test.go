// SPDX-License-Identifier: Apache-2.0

package badinput

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const pageFile = "../../docs/errors.md"

const pageHead = `# What gantry says

Every kind of bad input, what gantry says to it, and its exit status: 125 when gantry itself refuses or fails, 126 when the app's command cannot be executed, 127 when it is not there, else the app's own. Of none of these anything is left behind. This page is made by ` + "`go test ./tests/badinput -update`" + ` from what gantry printed, and the test fails when it prints something else.
`

type page []outcome

func (o outcome) String() string {
	return fmt.Sprintf("### %s\n\nexit status %d\n\n```\n$ %s\n%s\n```\n", o.name, o.status, o.command, strings.TrimRight(o.said, "\n"))
}

func (p page) find(r row) (outcome, bool) {
	for _, o := range p {
		if o.group == r.group && o.name == r.name {
			return o, true
		}
	}
	return outcome{}, false
}

var entry = regexp.MustCompile("(?s)\n## ([^\n]+)\n|\n### ([^\n]+)\n\nexit status (\\d+)\n\n```\n\\$ ([^\n]*)\n(.*?)\n```\n")

func readPage(t *testing.T) page {
	t.Helper()
	b, err := os.ReadFile(pageFile)
	if err != nil && !*update {
		t.Fatal(err)
	}
	var p page
	group := ""
	for _, m := range entry.FindAllStringSubmatch(string(b), -1) {
		if m[1] != "" {
			group = m[1]
			continue
		}
		status, err := strconv.Atoi(m[3])
		if err != nil {
			t.Fatal(err)
		}
		p = append(p, outcome{group, m[2], m[4], m[5] + "\n", status})
	}
	return p
}

// check holds the page against the rows: none too many, none missing, in
// their order; or writes it.
func (p page) check(t *testing.T, all []outcome) {
	t.Helper()
	var b strings.Builder
	b.WriteString(pageHead)
	group := ""
	for _, o := range all {
		if o.group != group {
			group = o.group
			fmt.Fprintf(&b, "\n## %s\n", group)
		}
		fmt.Fprintf(&b, "\n%s", o)
	}
	if *update {
		if err := os.WriteFile(pageFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() && !t.Failed() {
		t.Error("docs/errors.md is not what the rows make: go test ./tests/badinput -update")
	}
}
