// SPDX-License-Identifier: Apache-2.0

package functional

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// The first launches of an image, all at once: one brings and converts it, and
// nothing that another has verified meanwhile is replaced.
func TestFirstLaunchesTogether(t *testing.T) {
	h, ref := box(t)
	rounds := 6
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		for _, dir := range []string{"lib", "run"} {
			if err := os.RemoveAll(filepath.Join(h.Dir, dir)); err != nil {
				t.Fatal(err)
			}
		}
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				if r := h.Run("run", "--rm", "--quiet", ref, "true"); r.Status != 0 {
					t.Errorf("exit status %d: %s", r.Status, r.Stderr)
				}
			})
		}
		all.Wait()
	}
}
