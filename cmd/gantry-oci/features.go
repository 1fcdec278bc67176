// SPDX-License-Identifier: Apache-2.0

package main

import (
	ocifeatures "github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/internal/version"
	"github.com/gantryrun/gantry/stage1/launch"
)

// features prints what engines may ask for. Hooks hides the field of the
// specification's type, which would leave an empty list out: that would say
// "unknown".
func features(*pflag.FlagSet) func(*call) error {
	return func(*call) error {
		f := launch.Features()
		f.Annotations = map[string]string{"io.github.gantryrun.gantry-oci.version": version.String()}
		return printJSON(struct {
			*ocifeatures.Features
			Hooks []string `json:"hooks"`
		}{f, f.Hooks})
	}
}
