// SPDX-License-Identifier: Apache-2.0

// Package engines holds other people's engines, with gantry-oci as their
// runtime, to transcripts of what they print with crun and runc.
package engines

import (
	"fmt"
	"regexp"
	"strings"
)

// section is one story of a transcript: a title, what it needs, and commands
// with what they print.
type section struct {
	title string
	needs []string // abilities
	steps []step
}

type step struct {
	command string
	want    string // "…" stands for anything, alone in a line for any lines
}

// parse reads a transcript. "# [needs …] title" begins a section, "$ command" a
// step, and "[status N]" ends what a command prints that fails.
func parse(text string) ([]section, error) {
	var sections []section
	for number, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if title, ok := strings.CutPrefix(line, "# "); ok {
			sections = append(sections, newSection(title))
			continue
		}
		if len(sections) == 0 {
			continue // what comes before the first section is for readers
		}
		s := &sections[len(sections)-1]
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			s.steps = append(s.steps, step{command: command})
			continue
		}
		if len(s.steps) == 0 && line != "" {
			return nil, fmt.Errorf("line %d: output without a command", number+1)
		}
		if len(s.steps) > 0 {
			s.steps[len(s.steps)-1].want += line + "\n"
		}
	}
	for i := range sections {
		for j := range sections[i].steps {
			want := &sections[i].steps[j].want
			*want = strings.Trim(*want, "\n")
		}
	}
	return sections, nil
}

func newSection(title string) section {
	var s section
	if rest, ok := strings.CutPrefix(title, "["); ok {
		needs, after, _ := strings.Cut(rest, "] ")
		s.needs, title = strings.Fields(needs), after
	}
	s.title = title
	return s
}

// matches compares what a command printed with what the transcript says.
func (s step) matches(got string) bool {
	pattern := regexp.QuoteMeta(s.want)
	pattern = regexp.MustCompile(`(^|\n)…(\n|$)`).ReplaceAllString(pattern, "${1}(?s:.*)${2}")
	pattern = strings.ReplaceAll(pattern, "…", ".*")
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(strings.Trim(got, "\n"))
}
