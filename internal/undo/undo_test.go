// SPDX-License-Identifier: Apache-2.0

package undo_test

import (
	"testing"

	"github.com/gantryrun/gantry/internal/undo"
)

func TestRunsBackwardsOnce(t *testing.T) {
	var s undo.Stack
	got := ""
	s.Push(func() { got += "a" })
	s.Push(func() { got += "b" })
	s.Run()
	s.Run()
	if got != "ba" {
		t.Errorf("ran %q", got)
	}
	s.Push(func() { got += "c" })
	s.Release()
	s.Run()
	if got != "ba" {
		t.Errorf("ran %q after Release", got)
	}
}
