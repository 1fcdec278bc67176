// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// played makes two runners that note who ran; the nth run of each takes n ms.
func played(order *strings.Builder) (ours, theirs func() (time.Duration, error)) {
	runner := func(name string) func() (time.Duration, error) {
		n := 0
		return func() (time.Duration, error) {
			n++
			order.WriteString(name)
			return time.Duration(n) * time.Millisecond, nil
		}
	}
	return runner("o"), runner("t")
}

// Guards: by turns neither side is always first, in loops neither is always
// late, and what is thrown away is what had no predecessor of its kind.
func TestWhoRunsWhen(t *testing.T) {
	for name, tt := range map[string]struct {
		how   measurement
		order string
		want  []pair
	}{
		"turns": {turns, "otto" + "otto", []pair{{2, 2}, {3, 3}, {4, 4}}},
		"loops": {loops, "oott" + "tttooo", []pair{{2, 2}, {4, 4}, {5, 5}}},
	} {
		var order strings.Builder
		ours, theirs := played(&order)
		pairs, err := tt.how(3, ours, theirs)
		if err != nil || !slices.Equal(pairs, tt.want) || order.String() != tt.order {
			t.Errorf("%s: %v in the order %s, %v", name, pairs, order.String(), err)
		}
	}
}

func TestRatioOfMedians(t *testing.T) {
	r := row{Pairs: []pair{{10, 5}, {20, 10}, {1000, 10}}}.judge()
	if r.A != 20 || r.B != 10 || r.Ratio != 2 || r.Low > 2 || r.High < 2 {
		t.Errorf("%+v", r)
	}
}

func TestTogether(t *testing.T) {
	var all, now, most atomic.Int32
	_, err := together(40, func() (time.Duration, error) {
		all.Add(1)
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(time.Millisecond)
		now.Add(-1)
		return 0, nil
	})
	if err != nil || all.Load() != 40 || most.Load() > atOnce || most.Load() < 2 {
		t.Errorf("%d runs, %d at once, %v", all.Load(), most.Load(), err)
	}
}
