// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"testing"
	"time"

	"github.com/gantryrun/gantry/stage0/bundle"
)

// One that succeeds is healthy; so many failures in a row, and not fewer, are
// unhealthy; those while it starts do not count, until one succeeded.
func TestHealthAdds(t *testing.T) {
	c := bundle.Health{Retries: 2, StartPeriod: 10 * time.Second}
	for _, tt := range []struct {
		exits string // one digit a second
		want  string
	}{
		{"1", HealthStarting},
		{"111111111", HealthStarting},
		{"0", HealthHealthy},
		{"01", HealthHealthy},
		{"011", HealthUnhealthy},
		{"0110", HealthHealthy},
		{"010101", HealthHealthy},
		{"11111111111", HealthStarting},
		{"111111111111", HealthUnhealthy},
	} {
		var h Health
		for i, exit := range tt.exits {
			h.add(Probe{Exit: int(exit - '0')}, c, time.Duration(i)*time.Second)
		}
		if h.Status != tt.want || len(h.Log) != min(len(tt.exits), maxProbes) {
			t.Errorf("%s: %s with %d probes kept, want %s", tt.exits, h.Status, len(h.Log), tt.want)
		}
	}
}

func TestHeadKeepsTheBeginning(t *testing.T) {
	var h head
	for range 100 {
		if n, err := h.Write([]byte("0123456789")); n != 10 || err != nil {
			t.Fatal(n, err)
		}
	}
	if len(h.b) != maxProbeText {
		t.Errorf("%d bytes were kept", len(h.b))
	}
}
