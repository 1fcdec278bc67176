// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"testing"

	"github.com/gantryrun/gantry/internal/undo"
)

// What a launch spends here before stage1 has its turn: the proof alone, and
// all of it, with pod directory, bundle and mounted root.
func BenchmarkAdmit(b *testing.B) {
	h := newHost(b)
	h.gantry("run", "--rm", h.ref, "true")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Admit(context.Background(), h.env, h.ref, AdmitOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMake(b *testing.B) {
	h := newHost(b)
	h.gantry("run", "--rm", h.ref, "true")
	b.ReportAllocs()
	for b.Loop() {
		var u undo.Stack
		if _, err := h.env.make(context.Background(), h.ref, RunOptions{}, &u, false); err != nil {
			b.Fatal(err)
		}
		u.Run()
	}
}
