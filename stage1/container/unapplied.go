// SPDX-License-Identifier: Apache-2.0

package container

import specs "github.com/opencontainers/runtime-spec/specs-go"

// unapplied names what a bundle asks for and does not get. It is noted and not
// refused because engines fill these in unasked and other runtimes pass over
// them too.
func unapplied(spec *specs.Spec, selinux bool) []string {
	if spec.Linux == nil {
		return nil
	}
	var out []string
	if spec.Linux.MountLabel != "" && !selinux {
		out = append(out, "linux.mountLabel")
	}
	// No kernel has it since 5.16, and the specification does not recommend it.
	r := spec.Linux.Resources
	if r != nil && r.Memory != nil && r.Memory.Kernel != nil { //nolint:staticcheck // deprecated, but bundles have it
		out = append(out, "linux.resources.memory.kernel")
	}
	// All of it is hierarchical since 5.11; that it is not cannot be had.
	if r != nil && r.Memory != nil && r.Memory.UseHierarchy != nil && !*r.Memory.UseHierarchy {
		out = append(out, "linux.resources.memory.useHierarchy")
	}
	return out
}

// strict are the limits without which no container is made: all that a bundle
// asks for (runtime.md, Create: what "cannot be applied" MUST be an error), but
// for those that no kernel since 5.0 has, and the device rules, which every
// bundle has: where they cannot be had, there is no CAP_MKNOD.
var strict = map[string]bool{
	"memory": true, "oom": true, "cpu": true, "cpuset": true, "pids": true, "blkio": true, "device": true,
	"blkio-leaf-weight": false, "blkio-leaf-weight-device": false,
	"hugetlb": true, "rdma": true, "network": true, "unified": true,
}
