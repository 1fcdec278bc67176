// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gantryrun/gantry/internal/hint"
)

// question is one key of --filter.
type question[T any] struct {
	holds func(thing T, value string) bool
	takes []string // the values there are; nil: any
	every bool     // values given several times must all hold
}

// selection reads --filter KEY=VALUE… as podman does: different keys must all
// hold, and of the values of one key any will do, but for labels.
func selection[T any](filter []string, questions map[string]question[T]) (func(T) bool, error) {
	asked := map[string][]string{}
	for _, f := range filter {
		key, value, ok := strings.Cut(f, "=")
		q, known := questions[key]
		if !ok || !known {
			keys := slices.Sorted(maps.Keys(questions))
			return nil, hint.With(fmt.Errorf("--filter %q is not KEY=VALUE with a key that is known", f), "the keys are "+strings.Join(keys, ", "))
		}
		if q.takes != nil && !slices.Contains(q.takes, value) {
			return nil, hint.With(fmt.Errorf("--filter %q: %s cannot be %q", f, key, value), "it is one of "+strings.Join(q.takes, ", "))
		}
		asked[key] = append(asked[key], value)
	}
	return func(thing T) bool {
		for key, values := range asked {
			q := questions[key]
			no := func(value string) bool { return !q.holds(thing, value) }
			if q.every && slices.ContainsFunc(values, no) || !q.every && !slices.ContainsFunc(values, func(value string) bool { return !no(value) }) {
				return false
			}
		}
		return true
	}, nil
}

// The questions that are asked of several kinds of things.

func named[T any](name func(T) string) question[T] {
	return question[T]{holds: func(thing T, value string) bool { return strings.Contains(name(thing), value) }}
}

func exactly[T any](of func(T) string, takes ...string) question[T] {
	return question[T]{holds: func(thing T, value string) bool { return of(thing) == value }, takes: takes}
}

func labelled[T any](labels func(T) map[string]string) question[T] {
	return question[T]{every: true, holds: func(thing T, value string) bool {
		key, want, valued := strings.Cut(value, "=")
		have, there := labels(thing)[key]
		return there && (!valued || have == want)
	}}
}

func dangling[T any](pods func(T) int) question[T] {
	return exactly(func(thing T) string { return strconv.FormatBool(pods(thing) == 0) }, "true", "false")
}
