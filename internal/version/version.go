// SPDX-License-Identifier: Apache-2.0

// Package version says which gantry this is.
package version

import "runtime/debug"

// set by the linker: see VERSION in the Makefile.
var linked string

// String returns the version the build gave, else what the Go toolchain
// recorded of the checkout, else v0-dev.
func String() string {
	if linked != "" {
		return linked
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "v0-dev"
	}
	return recorded(build)
}

// recorded is the part of String that depends on nothing but its argument.
func recorded(build *debug.BuildInfo) string {
	if v := build.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	v := "v0-dev"
	dirty := false
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			v += "-" + s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty {
		v += "-dirty"
	}
	return v
}
