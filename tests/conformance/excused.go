// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
)

// excuse is why a line that another runtime passes need not be passed.
type excuse struct {
	program, suffix string // of the lines it is about
	why             string // with what the specification says
}

// excuses are few.
func excuses() []excuse {
	return []excuse{{
		program: "mounts", suffix: "found in order",
		why: "config.md, Mounts: \"The runtime MUST mount entries in the listed order.\" They are mounted in that order " +
			"(`TestMountsAreAttachedInTheirOrder`). The program reads another one: `/proc/self/mountinfo` lists mounts by their " +
			"numbers since Linux 6.8, which they get when they are made. gantry-oci opens the sources of bind mounts before the " +
			"clone, by descriptor, so that nobody inside can exchange what a path leads to.",
	}}
}

// excused takes from the lines that are missing those with an excuse, and tells
// which excuses are needed.
func excused(missing []line) (left []line, needed []excuse) {
	for _, l := range missing {
		i := slices.IndexFunc(excuses(), func(e excuse) bool {
			return e.program == l.program && strings.HasSuffix(l.description, e.suffix)
		})
		if i < 0 {
			left = append(left, l)
			continue
		}
		if e := excuses()[i]; !slices.Contains(needed, e) {
			needed = append(needed, e)
		}
	}
	return left, needed
}
