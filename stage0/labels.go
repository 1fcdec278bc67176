// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"bytes"
	"os"
	"strings"

	"github.com/gantryrun/gantry/stage0/bundle"
)

// labelFacts are what AppArmor and SELinux say of themselves.
func labelFacts(selinux bool) bundle.Labels {
	var l bundle.Labels
	l.AppArmor = hasAppArmor()
	if l.AppArmor {
		for line := range strings.Lines(string(readOptional("/sys/kernel/security/apparmor/profiles"))) {
			name, _, _ := strings.Cut(strings.TrimSpace(line), " (") // its mode
			l.Profiles = append(l.Profiles, name)
		}
	}
	if selinux {
		l.Process, l.File = containerContexts()
	}
	return l
}

func hasAppArmor() bool {
	on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(on) > 0 && on[0] == 'Y'
}

func hasSELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// relabels tells whether executing a program may change the label it runs
// under.
func relabels() bool { return hasAppArmor() || hasSELinux() }

// containerContexts are those that the policy has for containers, as libselinux
// finds them: in the directory of the policy that /etc/selinux/config names.
func containerContexts() (process, file string) {
	value := func(b []byte, name string) string {
		for line := range bytes.Lines(b) {
			if key, v, ok := strings.Cut(strings.TrimSpace(string(line)), "="); ok && strings.TrimSpace(key) == name {
				return strings.Trim(strings.TrimSpace(v), `"`)
			}
		}
		return ""
	}
	policy := value(readOptional("/etc/selinux/config"), "SELINUXTYPE")
	if policy == "" || strings.ContainsAny(policy, "/.") {
		return "", ""
	}
	b := readOptional("/etc/selinux/" + policy + "/contexts/lxc_contexts")
	return value(b, "process"), value(b, "file")
}
