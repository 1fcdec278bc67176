// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"math"
	"testing"
	"time"

	"github.com/gantryrun/gantry/stage1"
)

// The clock was set between the start of the app and that of its supervisor, as
// at the boot of a machine that has no clock of its own.
func TestAClockThatIsSetMovesNoDeadline(t *testing.T) {
	for name, started := range map[string]time.Time{"forwards": time.Unix(0, 0), "backwards": time.Now().AddDate(10, 0, 0)} {
		s := &supervisor{Contract: stage1.Contract{
			Started: started.UnixNano(), Timeout: int64(time.Hour), Probe: []string{"probe"}, ProbeEvery: int64(time.Minute),
		}}
		s.limitTime()
		s.openProber()
		if left := time.Until(s.deadline); left < 59*time.Minute || left > time.Hour {
			t.Errorf("%s: --timeout=1h ends the app in %v", name, left)
		}
		if left := time.Until(s.prober.next); left < 59*time.Second || left > time.Minute {
			t.Errorf("%s: the first probe of every minute comes in %v", name, left)
		}
	}
}

// The kernel takes more than an int of milliseconds for another number, and a
// negative one for no bound.
func TestAWaitOfAMonthIsBounded(t *testing.T) {
	s := &supervisor{deadline: time.Now().Add(30 * 24 * time.Hour)}
	if ms := s.patience(); ms <= 0 || ms > math.MaxInt32 {
		t.Errorf("poll is to wait %d ms", ms)
	}
}
