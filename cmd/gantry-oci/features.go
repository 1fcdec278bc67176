// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/internal/version"
	"github.com/gantryrun/gantry/stage1/launch"
)

// features prints what engines may ask for.
func features(*pflag.FlagSet) func(*call) error {
	return func(*call) error {
		f := launch.Features()
		f.Annotations = map[string]string{"io.github.gantryrun.gantry-oci.version": version.String()}
		return printJSON(f)
	}
}
