// SPDX-License-Identifier: Apache-2.0

package functional

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
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

// Launches on a network while others collect what no pod needs: the bridge goes
// between two pods again and again, and never from under one.
func TestLaunchesBesideCollection(t *testing.T) {
	h, ref := box(t)
	ability.Require(t, ability.Networks)
	h.Networked()
	h.Must("fetch", "--quiet", ref)
	launches := 20
	if testing.Short() {
		launches = 10
	}
	done := make(chan struct{})
	var collectors sync.WaitGroup
	for range 2 {
		collectors.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if r := h.Run("gc", "--grace-period=1h"); r.Status != 0 {
					t.Errorf("gc: exit status %d: %s", r.Status, r.Stderr)
					return
				}
			}
		})
	}
	for range launches {
		if r := h.Run("run", "--rm", "--cap-add=NET_RAW", ref, "sh", "-ec", "ip route | grep -q ^default; ping -c 1 -w 5 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') > /dev/null"); r.Status != 0 {
			t.Errorf("exit status %d: %s%s", r.Status, r.Stdout, r.Stderr)
		}
	}
	close(done)
	collectors.Wait()
}
