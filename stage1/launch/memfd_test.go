// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
)

// vm.memfd_noexec=1 makes a memory file that does not say what it is not
// executable, and 2 refuses all that are to be executed.
func TestMemoryFilesSayWhetherTheyArePrograms(t *testing.T) {
	ability.Require(t, ability.Root, ability.Tool("unshare"))
	if _, err := os.Stat("/proc/sys/vm/memfd_noexec"); err != nil {
		t.Skip("ability missing: vm.memfd_noexec (Linux 6.3)")
	}
	// A mount that cannot be cloned, where gantry-init is copied to memory.
	const unclonable = `
		mount -t tmpfs tmpfs "$libexec"
		cp "$from/gantry-init" "$from/gantry-stage1" "$libexec"
		mount --make-unbindable "$libexec"
		`
	for _, c := range []struct {
		name, level, before string
		refused             string
	}{
		{"1", "1", "", ""},
		{"2", "2", "", ""},
		{"0 and a copy", "0", unclonable, ""},
		{"1 and a copy", "1", unclonable, ""},
		{"2 and a copy", "2", unclonable, "vm.memfd_noexec=2 forbids programs in memory: set it to 1, or keep "},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Longer than gantry waits itself: the supervisor's contract too.
			p := newPod(t, "sh", "-c", "sleep 0.1; echo done")
			if c.before != "" {
				p.request.Libexec = t.TempDir()
			}
			cmd := apart(t, p.command(), c.before+"echo "+c.level+" >/proc/sys/vm/memfd_noexec")
			cmd.Env = append(cmd.Env, "from="+libexec, "libexec="+p.request.Libexec)
			out, err := cmd.CombinedOutput()
			if c.refused != "" {
				if cmd.ProcessState.ExitCode() != 125 || !strings.Contains(string(out), c.refused+filepath.Join(p.request.Libexec, "gantry-init")) {
					t.Errorf("%v: %s", err, out)
				}
				return
			}
			if err != nil || string(out) != "done\n" {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
