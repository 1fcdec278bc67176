// SPDX-License-Identifier: Apache-2.0

// Package undo is a stack of what must be taken back when an operation of
// several steps stops half-way.
package undo

// Stack collects undo steps. Push right after each acquire, defer Run at the
// start, Release at the one place that returns success. The zero value is
// ready for use.
type Stack struct {
	steps []func()
}

// Push adds a step, run before all that were pushed earlier.
func (s *Stack) Push(step func()) {
	s.steps = append(s.steps, step)
}

// Run runs and forgets all steps, last pushed first.
func (s *Stack) Run() {
	for len(s.steps) > 0 {
		last := len(s.steps) - 1
		step := s.steps[last]
		s.steps = s.steps[:last]
		step()
	}
}

// Release forgets all steps: what was acquired now belongs to the caller.
func (s *Stack) Release() {
	s.steps = nil
}
