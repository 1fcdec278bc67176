// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/stage1/launch"
)

// hookState is the document that hooks get on their standard input.
func (c *Container) hookState(spec *specs.Spec, status specs.ContainerState, pid int) specs.State {
	return specs.State{
		Version: specs.Version, ID: c.ID, Status: status, Pid: pid, Bundle: c.Bundle, Annotations: spec.Annotations,
	}
}

// createRuntime runs the hooks that come while the container is created, in
// our own namespaces.
func (c *Container) createRuntime(spec *specs.Spec, pid int) error {
	if spec.Hooks == nil {
		return nil
	}
	state := c.hookState(spec, specs.StateCreating, pid)
	//nolint:staticcheck // deprecated, but bundles have it
	if err := launch.RunHooks("prestart", spec.Hooks.Prestart, state); err != nil {
		return err
	}
	return launch.RunHooks("createRuntime", spec.Hooks.CreateRuntime, state)
}

// poststartError is of a container that runs although it may not.
type poststartError struct{ error }

func (e poststartError) Unwrap() error { return e.error }

// poststart runs the hooks that come when the app runs.
func (c *Container) poststart() error {
	spec, err := c.Spec()
	if err != nil || spec.Hooks == nil {
		return err
	}
	if err := launch.RunHooks("poststart", spec.Hooks.Poststart, c.hookState(spec, specs.StateRunning, c.Pid)); err != nil {
		return poststartError{fmt.Errorf("%w; the container is stopped and deleted", err)}
	}
	return nil
}

// poststop runs the hooks that come when nothing of the container is left.
func (c *Container) poststop(spec *specs.Spec) {
	if spec == nil || spec.Hooks == nil {
		return
	}
	// All of them run, whichever fails.
	for i, h := range spec.Hooks.Poststop {
		if err := launch.RunHook(h, c.hookState(spec, specs.StateStopped, 0)); err != nil && c.root.Warn != nil {
			c.root.Warn(fmt.Sprintf("warning: hooks.poststop[%d]: %v", i, err))
		}
	}
}
