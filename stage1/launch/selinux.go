// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// contextOptions are those by which SELinux labels a file system (mount(8)).
var contextOptions = []string{"context", "fscontext", "defcontext", "rootcontext"}

// contextAnnotation says which of them linux.mountLabel is: crun's, which
// podman writes for containers that label their files themselves
// (--security-opt label=nested).
const contextAnnotation = "run.oci.mount_context_type"

// SELinux tells whether the kernel takes labels of files: without it an option
// that has one is an error.
func SELinux() bool {
	var fs unix.Statfs_t
	return unix.Statfs("/sys/fs/selinux", &fs) == nil && fs.Type == unix.SELINUX_MAGIC
}

// mountLabel plans the option that gives new file systems linux.mountLabel.
func (p *planner) mountLabel() error {
	if p.linux.MountLabel == "" {
		return nil
	}
	option := contextOptions[0]
	if word, ok := p.spec.Annotations[contextAnnotation]; ok {
		if !slices.Contains(contextOptions, word) {
			return fmt.Errorf("annotations[%s]: %q is none of %s", contextAnnotation, word, strings.Join(contextOptions, ", "))
		}
		option = word
	}
	if !p.o.SELinux {
		return nil
	}
	// Quotes are for the list of mount(2), where a comma ends a label;
	// fsconfig(2) gets each option by itself.
	p.plan.Context = option + "=" + p.linux.MountLabel
	return nil
}

// labelled adds it to the options of a new file system, as runc does: not to
// those of the kernel's that have labels from the policy, nor beside another
// of its kind.
func (p *planner) labelled(fstype string, options []string) []string {
	switch {
	case p.plan.Context == "", slices.Contains([]string{"proc", "sysfs", "mqueue", "cgroup", "cgroup2"}, fstype):
		return options
	case slices.ContainsFunc(options, isContext):
		return options
	}
	return append(slices.Clone(options), p.plan.Context)
}

func isContext(option string) bool {
	key, _, valued := strings.Cut(option, "=")
	return valued && slices.Contains(contextOptions, key)
}

// rootLabel is set on what cannot be mounted with one, and takes it afterwards.
func (p *planner) rootLabel(fstype string) string {
	if p.plan.Context == "" || fstype != "mqueue" {
		return ""
	}
	return p.linux.MountLabel
}
