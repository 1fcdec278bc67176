// SPDX-License-Identifier: Apache-2.0

package quiet

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// Guards: it is the monitor that gets the slack, the one thread that never
// runs Go code and is there from the beginning, and no other.
func TestOnlyTheMonitorIsSlowed(t *testing.T) {
	if os.Getenv("QUIET_CHILD") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOnlyTheMonitorIsSlowed$", "-test.v")
		cmd.Env = append(os.Environ(), "QUIET_CHILD=1")
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "--- SKIP") {
			t.Skip("ability missing: CAP_SYS_NICE")
		}
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	Runtime()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	slowed := 0
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/" + task.Name() + "/timerslack_ns")
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(b)) != slack {
			continue
		}
		slowed++
		if tid, _ := strconv.Atoi(task.Name()); tid == os.Getpid() {
			t.Error("the main thread was slowed")
		}
		// sysmon is the thread that sleeps in nanosleep, or on its futex when
		// all processors are idle; it has run no goroutine of ours.
	}
	if slowed == 0 {
		t.Skip("ability missing: CAP_SYS_NICE")
	}
	if slowed > 1 {
		t.Errorf("%d threads were slowed", slowed)
	}
}
