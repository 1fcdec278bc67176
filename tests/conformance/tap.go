// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// line is one of TAP. What is indented belongs to a diagnostic and is none.
type line struct{ program, number, result, description string }

// outcome is what one program printed.
type outcome struct {
	program string
	lines   []line
	end     string // how it ended, unless it simply did
}

// findings are those of one runtime.
type findings struct {
	runtime
	outcomes []outcome
}

// steady takes out of a text what differs from one run to the next.
func steady(text string) string {
	for _, c := range [][2]string{
		{`[\t\r]`, " "},
		{`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`, "ID"},
		{`/\S*/ocitest\d+`, "BUNDLE"},
		{`(/proc/|pid )\d+`, "${1}N"},
		{`([a-z]+:\[)\d+\]`, "${1}N]"},
	} {
		text = regexp.MustCompile(c[0]).ReplaceAllString(text, c[1])
	}
	return text
}

func parse(program string, out []byte) outcome {
	tapLine := regexp.MustCompile(`^(not ok|ok)\b *(\d*)(?: -)? *(.*)$`)
	skipped := regexp.MustCompile(`(?i)^# *skip\S* *`)
	o := outcome{program: program}
	for text := range strings.SplitSeq(string(out), "\n") {
		m := tapLine.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		l := line{program, m[2], m[1], steady(m[3])}
		if skip := skipped.FindString(l.description); skip != "" {
			l.result, l.description = "skip", l.description[len(skip):]
		}
		o.lines = append(o.lines, l)
	}
	return o
}

func (o outcome) count(result string) int {
	n := 0
	for _, l := range o.lines {
		if l.result == result {
			n++
		}
	}
	return n
}

// summary is ok/not ok/skip, and a mark for a program that did not simply end.
func (o outcome) summary() string {
	s := fmt.Sprintf("%d/%d/%d", o.count("ok"), o.count("not ok"), o.count("skip"))
	if o.end != "" {
		s += " !"
	}
	return s
}

// behind lists the lines that another runtime passes more often than the first.
// Lines are told apart by their texts: numbers shift when a program stops early.
func behind(all []findings) []line {
	ours := passed(all[0])
	var lines []line
	listed := map[line]bool{}
	for _, other := range all[1:] {
		theirs := passed(other)
		for _, o := range other.outcomes {
			for _, l := range o.lines {
				key := line{program: l.program, description: l.description}
				if theirs[key] > ours[key] && !listed[key] {
					listed[key] = true
					lines = append(lines, key)
				}
			}
		}
	}
	return lines
}

// shorten leaves of a program that lacks many lines their number.
func shorten(lines []line) []line {
	const many = 10
	count := map[string]int{}
	for _, l := range lines {
		count[l.program]++
	}
	var out []line
	for _, l := range lines {
		n := count[l.program]
		if n > many {
			l.description = fmt.Sprintf("%d lines", n)
		}
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	slices.SortStableFunc(out, func(a, b line) int { return strings.Compare(a.program, b.program) })
	return out
}

func passed(f findings) map[line]int {
	n := map[line]int{}
	for _, o := range f.outcomes {
		for _, l := range o.lines {
			if l.result == "ok" {
				n[line{program: l.program, description: l.description}]++
			}
		}
	}
	return n
}
