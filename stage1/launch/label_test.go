// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/tests/ability"
)

// loadProfile gives the kernel an AppArmor profile that allows all but one
// file, until the test ends, and returns its name.
func loadProfile(t *testing.T, denied string) string {
	t.Helper()
	name := fmt.Sprintf("gantry-test-%d", os.Getpid())
	text := fmt.Sprintf(`profile %s flags=(attach_disconnected) {
	file,
	capability,
	network,
	signal,
	unix,
	ptrace,
	deny %s r,
}
`, name, denied)
	parser := func(action string) error {
		cmd := exec.Command("apparmor_parser", action, "--skip-cache", "--quiet")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apparmor_parser %s: %w: %s", action, err, out)
		}
		return nil
	}
	if err := parser("--replace"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := parser("--remove"); err != nil {
			t.Error(err)
		}
	})
	return name
}

func TestAppArmorProfileConfinesTheApp(t *testing.T) {
	ability.Require(t, ability.Root, ability.AppArmor, ability.Tool("apparmor_parser"))
	profile := loadProfile(t, "/etc/denied")
	const script = "cat /proc/self/attr/apparmor/current /etc/denied 2>&1"
	for _, c := range []struct {
		name string
		edit func(*pod)
	}{
		{"with no_new_privs", func(*pod) {}},
		{"without no_new_privs", func(p *pod) { p.request.Spec.Process.NoNewPrivileges = false }},
		{"of a user", func(p *pod) { p.request.Spec.Process.User = specs.User{UID: 1000, GID: 1000} }},
		{"below an init", func(p *pod) { p.request.Init = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPod(t, "sh", "-c", script)
			denyable(t, p)
			p.request.Spec.Process.ApparmorProfile = profile
			c.edit(p)
			out, stderr, code := p.run()
			confinedBy(t, profile, out, stderr, code)
		})
	}
	t.Run("in an exec", func(t *testing.T) {
		p, st := running(t, func(s *specs.Spec) { s.Process.ApparmorProfile = profile })
		denyable(t, p)
		// The profile is the app's, whatever the request says.
		process := &specs.Process{Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/"}
		out, stderr, code := execIn(t, p, st, process)
		confinedBy(t, profile, out, stderr, code)
	})
}

// denyable puts what the profile denies into the pod's root.
func denyable(t *testing.T, p *pod) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.request.Root.Dir, "etc/denied"), []byte("secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func confinedBy(t *testing.T, profile, out, stderr string, code int) {
	t.Helper()
	if !strings.HasPrefix(out, profile+" (enforce)\n") || !strings.Contains(out, "Permission denied") || strings.Contains(out, "secret") {
		t.Errorf("exit status %d, the app says %q %s", code, out, stderr)
	}
}

// A label that the kernel did not take is no label: neither one that nobody
// loaded, nor one of a security module that is not there.
func TestLabelThatIsNotAppliedFailsTheLaunch(t *testing.T) {
	p := newPod(t, "echo", "unconfined")
	p.request.Spec.Process.ApparmorProfile = "gantry-test-of-nobody"
	p.refused("set apparmor label gantry-test-of-nobody")
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		return // it may know the next one
	}
	p = newPod(t, "echo", "unconfined")
	p.request.Spec.Process.SelinuxLabel = "system_u:system_r:container_t:s0"
	p.refused("set selinux label system_u:system_r:container_t:s0")
}
