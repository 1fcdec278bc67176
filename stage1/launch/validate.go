// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
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
	case !owns(spec, specs.MountNamespace):
		return errors.New("linux.namespaces: a mount namespace is needed")
	case !hooks && spec.Hooks != nil && hasHooks(spec.Hooks):
		return errors.New("hooks: are not supported")
	case len(spec.Linux.NetDevices) > 0:
		return errors.New("linux.netDevices: are not supported")
	case spec.Linux.IntelRdt != nil:
		return errors.New("linux.intelRdt: is not supported")
	}
	if err := checkNamespaces(spec.Linux); err != nil {
		return err
	}
	if err := checkHooks(spec.Hooks); err != nil {
		return err
	}
	return noNUL(spec.Process)
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
