// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/hooks"
)

// addHooks gives a bundle the hooks that the files of --hooks-dir have for
// it. They are the host's: an image has a say only through the command it
// runs, which their files may ask for.
func addHooks(spec *specs.Spec, o RunOptions) error {
	if len(o.HooksDirs) == 0 {
		return nil
	}
	files, err := hooks.Load(o.HooksDirs)
	if err != nil {
		return fmt.Errorf("--hooks-dir: %w", err)
	}
	binds := len(o.Volumes)+len(o.Mounts) > 0
	for _, f := range files {
		if !f.When.Match(spec, binds) {
			continue
		}
		for _, stage := range f.Stages {
			spec.Hooks = bundle.AddHook(spec.Hooks, bundle.HookEdit{Stage: stage, Hook: f.Hook})
		}
	}
	return nil
}
