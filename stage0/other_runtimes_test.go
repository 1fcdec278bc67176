// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
)

// Other OCI runtimes run our bundles as they are: same file, a root beside it.
func TestOtherRuntimesRunOurBundle(t *testing.T) {
	h := newHost(t, "-volumes", "/data")
	uuid := h.gantry("prepare", "--read-only", "-e", "B=2", "-u", "web", "--cap-add", "net_raw", "--ulimit", "core=0",
		"--tmpfs", "/x", "-v", "/etc:/host:ro", "--memory", "64m", h.ref, "sh", "-c", "id -u; echo $B; grep CapEff /proc/self/status; cat /etc/hostname; ls /host/passwd")
	v := must(Admit(context.Background(), h.env, h.ref, AdmitOptions{}))(t)
	trees := must(h.env.trees())(t)
	defer trees.Close()
	root := must(trees.Materialise(context.Background(), v.Tree))(t)
	// The bundle speaks of the pod where it runs.
	pods := filepath.Join(h.env.Dir, "pods")
	if err := os.Rename(filepath.Join(pods, "prepared", uuid), filepath.Join(pods, "run", uuid)); err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(pods, "run", uuid, "apps", "app")
	h.ok(exec.Command("cp", "-a", root, filepath.Join(bundle, "rootfs")))
	for _, d := range []string{"data", "x", "host", "dev", "proc", "sys", "run", "tmp", "var/tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(bundle, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, runtime := range []string{"crun", "runc"} {
		t.Run(runtime, func(t *testing.T) {
			ability.Require(t, ability.Tool(runtime))
			// On a host with both cgroup versions they want only the old
			// ones, which is what a private mount namespace shows them.
			script := `umount /sys/fs/cgroup/unified 2>/dev/null; exec "$0" --root "$1" run --bundle "$2" "$3"`
			c := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, runtime, t.TempDir(), bundle, "gantry-test-"+uuid)
			out, err := c.CombinedOutput()
			if err != nil && strings.Contains(string(out), "cgroup") {
				t.Skipf("ability missing: control groups %s can use: %s", runtime, out)
			}
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			want := "1000\n2\nCapEff:\t0000000000002000\n" + uuid[:8] + "\n/host/passwd\n"
			if string(out) != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
}
