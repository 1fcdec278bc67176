// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"bufio"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/tests/ability"
)

// In a chroot the mount namespace has a larger root than ours. pivot_root alone
// put the app's where ours was, and left the host's tree around it: for an app
// with CAP_SYS_CHROOT to walk out to, and for exec to start in.
func TestLaunchFromAChrootLeavesTheHostBehind(t *testing.T) {
	ability.Require(t, ability.Root, ability.Tool("unshare"), ability.Tool("chroot"))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"/bin", "/dev", "/lib", "/lib64", "/proc", "/sys", "/usr"}
	for _, name := range []string{self, libexec, t.TempDir()} {
		names = append(names, "/"+strings.Split(name, "/")[1])
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for _, c := range []struct{ name, script string }{
		{"a mount point", `mount --rbind / "$inner"`},
		{"a directory", `
			for name in $names; do
				[ -e "$name" ] || continue
				if [ -L "$name" ]; then cp -P "$name" "$inner"; continue; fi
				mkdir "$inner$name"
				mount --rbind "$name" "$inner$name"
			done`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPod(t, "sleep", "1000")
			p.overlay()
			launch := p.command()
			cmd := exec.Command("unshare", "--mount", "--propagation", "private",
				"sh", "-euc", c.script+"\n"+`echo made; exec chroot "$inner" "$1"`, "sh", self)
			cmd.Env = append(launch.Env, "inner="+t.TempDir(), "names="+strings.Join(names, " "))
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "made\n" {
				t.Fatalf("the chroot is not made: %v", err)
			}
			st := waitRunning(t, p)
			// Who joins a mount namespace starts at its root.
			got, stderr, code := execIn(t, p, st, &specs.Process{
				Args: []string{"sh", "-c", `test ! -e "$0" && readlink /proc/self/exe`, p.request.PodDir},
				Env:  []string{"PATH=/bin"}, Cwd: "/",
			})
			if code != 0 || got != "/bin/busybox\n" {
				t.Errorf("exec sees the host, or nothing: exit status %d, %q %s", code, got, stderr)
			}
		})
	}
}
