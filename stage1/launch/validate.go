// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// supported refuses by field name what a plan would otherwise leave out.
func supported(spec *specs.Spec, hooks bool) error {
	switch {
	case spec.Process == nil || len(spec.Process.Args) == 0 || spec.Process.Args[0] == "":
		return errors.New("process.args: is empty")
	case !strings.HasPrefix(spec.Process.Cwd, "/"):
		return fmt.Errorf("process.cwd: %q is not absolute", spec.Process.Cwd)
	case spec.Linux == nil:
		return errors.New("linux: is missing")
	case !hooks && spec.Hooks != nil && hasHooks(spec.Hooks):
		return errors.New("hooks: are not supported")
	}
	if err := CheckNamespaces(spec.Linux); err != nil {
		return err
	}
	if err := checkHooks(spec.Hooks); err != nil {
		return err
	}
	if err := checkNames(spec); err != nil {
		return err
	}
	if err := checkUser(spec.Process.User); err != nil {
		return err
	}
	return checkFields(spec)
}

// nobody is -1 of the kernel's numbers: who sets it keeps what it has.
const nobody = ^uint32(0)

// checkUser refuses what would leave an app with our own user or group.
func checkUser(u specs.User) error {
	switch {
	case u.UID == nobody:
		return fmt.Errorf("process.user.uid: %d is not a user", u.UID)
	case u.GID == nobody:
		return fmt.Errorf("process.user.gid: %d is not a group", u.GID)
	}
	if i := slices.Index(u.AdditionalGids, nobody); i >= 0 {
		return fmt.Errorf("process.user.additionalGids[%d]: %d is not a group", i, nobody)
	}
	return nil
}

// checkNames: without a namespace of their own they are the host's.
func checkNames(spec *specs.Spec) error {
	field := names(spec)
	if field == "" || owns(spec, specs.UTSNamespace) {
		return nil
	}
	return fmt.Errorf("%s: needs a uts namespace (linux.namespaces), else it is the host's", field)
}

// names is the field that sets one, if there is any.
func names(spec *specs.Spec) string {
	switch {
	case spec.Hostname != "":
		return "hostname"
	case spec.Domainname != "":
		return "domainname"
	}
	return ""
}

// changes is the field of a bundle that changes a namespace of a kind, which
// then must not be the host's under another name; empty if there is none.
func changes(spec *specs.Spec, kind specs.LinuxNamespaceType) string {
	switch kind {
	case specs.MountNamespace:
		return "root"
	case specs.UTSNamespace:
		if field := names(spec); field != "" {
			return field
		}
	}
	for _, key := range slices.Sorted(maps.Keys(spec.Linux.Sysctl)) {
		if of, ok := sysctlNamespace(key); ok && of == kind {
			return fmt.Sprintf("linux.sysctl[%s]", key)
		}
	}
	return ""
}

// noNUL refuses what execve would cut short.
func noNUL(p *specs.Process) error {
	return noNULs(map[string][]string{"process.args": p.Args, "process.env": p.Env})
}

func noNULs(fields map[string][]string) error {
	for field, values := range fields {
		for i, v := range values {
			if strings.ContainsRune(v, 0) {
				return fmt.Errorf("%s[%d]: contains a NUL byte", field, i)
			}
		}
	}
	return nil
}

func hasHooks(h *specs.Hooks) bool {
	//nolint:staticcheck // deprecated, but bundles have it and it must not be ignored
	n := len(h.Prestart) + len(h.CreateRuntime) + len(h.CreateContainer) + len(h.StartContainer) + len(h.Poststart) + len(h.Poststop)
	return n > 0
}
