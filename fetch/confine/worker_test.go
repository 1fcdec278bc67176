// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"testing"

	"github.com/gantryrun/gantry/internal/uidmap"
)

// A worker has an id that no image has, where there is one.
func TestWorkerID(t *testing.T) {
	for _, c := range []struct {
		maps string
		pid  int
		want int
	}{
		{"0 0 4294967295", 4242, userBase + 4242},
		{"0 1000 1\n1 100000 65536", 4096 + 5, 65536 - 5},
		{"0 1000 1\n1 100000 65536", 4095, 65536 - 4095},
		{"0 1000 1\n1 100000 9", 4242, 9},
		{"0 0 1000\n1000 1000 4294966295", 7, userBase + 7},
	} {
		if got := workerID(uidmap.Parse(c.maps), c.pid); got != c.want {
			t.Errorf("%q, process %d: got %d, want %d", c.maps, c.pid, got, c.want)
		}
	}
}
