// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1/launch"
)

// grantable leaves out of a bundle's capabilities those that no process can
// have here, and says so: "Any value which cannot be mapped to a relevant kernel
// interface, or cannot be granted otherwise MUST be logged as a warning by the
// runtime. Runtimes SHOULD NOT fail" (config.md, Linux Process). In a user
// namespace of its own the container's are not ours.
func grantable(spec *specs.Spec, note func(string)) error {
	if spec.Process == nil || spec.Process.Capabilities == nil {
		return nil
	}
	own := ^uint64(0)
	if !hasNamespace(spec, specs.UserNamespace) {
		var err error
		if own, err = permitted(); err != nil {
			return err
		}
	}
	for _, name := range limitCapabilities(spec.Process.Capabilities, own) {
		note(fmt.Sprintf("process.capabilities: %s cannot be granted here and is left out", name))
	}
	return nil
}

// limitCapabilities removes from all sets what is not in own, and returns the
// names.
func limitCapabilities(c *specs.LinuxCapabilities, own uint64) []string {
	var out []string
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted, &c.Inheritable, &c.Ambient} {
		*set = slices.DeleteFunc(*set, func(name string) bool {
			n, known := launch.Capability(name)
			if known && own&(1<<n) != 0 {
				return false
			}
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
			return true
		})
	}
	return out
}

// permitted is what this process may give.
func permitted() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read own capabilities: %w", err)
	}
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted), nil
}

func hasNamespace(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	return spec.Linux != nil && slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == kind })
}
