// SPDX-License-Identifier: Apache-2.0

package ability

import (
	"os"
	"testing"
)

// TestReport states what this machine has, so that a log says what was tested.
func TestReport(t *testing.T) {
	version, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("Linux %s", version)
	t.Logf("Landlock ABI %d", LandlockABI())
	for _, a := range All() {
		if err := a.Missing(); err != nil {
			t.Logf("without %-16s %v", a.Name, err)
			continue
		}
		t.Logf("with    %s", a.Name)
	}
}

// TestNames keeps names usable as conditions of scripts, and unique.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range All() {
		if a.Name == "" || seen[a.Name] {
			t.Errorf("ability %q is nameless or listed twice", a.Name)
		}
		seen[a.Name] = true
	}
}

func TestTime(t *testing.T) {
	for until, short := range map[string]bool{"": false, "0": true, "1000000000": false} {
		t.Setenv("GANTRY_TEST_UNTIL", until)
		if err := Time.Missing(); (err != nil) != short {
			t.Errorf("GANTRY_TEST_UNTIL=%q: %v", until, err)
		}
	}
}
