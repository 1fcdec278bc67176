// SPDX-License-Identifier: Apache-2.0

// Package hint gives errors the next step: what the user who meets one can do
// about it. Types of errors that work it out have a method Hint of their own.
package hint

import "errors"

type hinted struct {
	error
	next string
}

func (h *hinted) Unwrap() error { return h.error }
func (h *hinted) Hint() string  { return h.next }

// With returns err with a next step. What it is and says does not change.
func With(err error, next string) error { return &hinted{err, next} }

// Of returns the next step that err, or the first error it wraps that has one,
// knows; empty for none.
func Of(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}
