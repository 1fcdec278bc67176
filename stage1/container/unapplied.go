// SPDX-License-Identifier: Apache-2.0

package container

import specs "github.com/opencontainers/runtime-spec/specs-go"

// unapplied names what a bundle asks for and does not get. It is noted and not
// refused because engines fill these in unasked and other runtimes pass over
// them too.
func unapplied(spec *specs.Spec) []string {
	if spec.Linux == nil {
		return nil
	}
	var out []string
	add := func(asked bool, field string) {
		if asked {
			out = append(out, field)
		}
	}
	add(spec.Linux.MountLabel != "", "linux.mountLabel")
	r := spec.Linux.Resources
	if r == nil {
		return out
	}
	add(r.Network != nil, "linux.resources.network")
	if m := r.Memory; m != nil {
		add(m.Kernel != nil, "linux.resources.memory.kernel") //nolint:staticcheck // deprecated, but bundles have it
		add(m.KernelTCP != nil, "linux.resources.memory.kernelTCP")
	}
	add(r.BlockIO != nil && r.BlockIO.LeafWeight != nil, "linux.resources.blockIO.leafWeight")
	return out
}
