// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
)

const output = "TAP version 13\n" +
	"ok 1 - has expected hostname\n" +
	"  ---\n  {\n    \"stdout\": \"not ok 9 - of another program\"\n  }\n  ...\n" +
	"not ok 2 - exit status 1\n" +
	"  not ok 3 - indented\n" +
	"ok 3 # SKIP linux.uidMappings not set\n" +
	"okay, that is no line\n" +
	"ok 4 - shared root propagation exposes \"/tmp/ocitest123/x\" of 3612b002-43bd-48aa-9a58-5c4b872d52a9\n" +
	"1..4\n"

func TestOnlyLinesOfTAPCount(t *testing.T) {
	got := parse("p", []byte(output)).lines
	want := []line{
		{"p", "1", "ok", "has expected hostname"},
		{"p", "2", "not ok", "exit status 1"},
		{"p", "3", "skip", "linux.uidMappings not set"},
		{"p", "4", "ok", "shared root propagation exposes \"BUNDLE/x\" of ID"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("lines\n%v\nwant\n%v", got, want)
	}
}

// A line we print and fail, one we do not get to, and one we pass less often
// are all behind; one that nobody passes, or that only we do, is not.
func TestBehindIsWhatAnotherPassesAndWeDoNot(t *testing.T) {
	run := func(text string) findings { return findings{outcomes: []outcome{parse("p", []byte(text))}} }
	ours := run("ok 1 - a\nnot ok 2 - b\nok 3 - twice\nnot ok 4 - nobody\nok 5 - only we\n")
	theirs := run("ok 1 - a\nok 2 - b\nok 3 - twice\nok 4 - twice\nok 5 - c\nnot ok 6 - nobody\n")
	var got []string
	for _, l := range behind([]findings{ours, theirs, theirs}) {
		got = append(got, l.description)
	}
	if want := []string{"b", "twice", "c"}; !slices.Equal(got, want) {
		t.Errorf("behind: %v, want %v", got, want)
	}
}

func TestOnlyLinesWithAnExcuseAreExcused(t *testing.T) {
	missing := []line{
		{program: "mounts", description: "mounts[9] (/b) found in order"},
		{program: "mounts", description: "mounts[9] (/b) found"},
		{program: "create", description: "x found in order"},
	}
	left, needed := excused(missing)
	if !slices.Equal(left, missing[1:]) || len(needed) != 1 || !strings.Contains(needed[0].why, "listed order") {
		t.Errorf("left %v, excuses %v", left, needed)
	}
}
