// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/netns"
	"github.com/gantryrun/gantry/stage1"
)

// checkNetDevices refuses interfaces that have no namespace to go to, and
// names that are none.
func checkNetDevices(spec *specs.Spec) error {
	devices := spec.Linux.NetDevices
	if len(devices) == 0 {
		return nil
	}
	if namespaceOf(spec.Linux, specs.NetworkNamespace) == nil {
		return errors.New("linux.netDevices: need a network namespace in linux.namespaces")
	}
	taken := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		as := netDeviceName(name, devices[name])
		if !interfaceName(name) || !interfaceName(strings.Replace(as, "%d", "0", 1)) {
			return fmt.Errorf("linux.netDevices[%s].name: %q is not the name of an interface", name, as)
		}
		if other := taken[as]; other != "" && !strings.Contains(as, "%d") {
			return fmt.Errorf("linux.netDevices[%s].name: %s is the name of linux.netDevices[%s] already", name, as, other)
		}
		taken[as] = name
	}
	return nil
}

func netDeviceName(name string, d specs.LinuxNetDevice) string {
	if d.Name != "" {
		return d.Name
	}
	return name
}

// interfaceName is what the kernel's dev_valid_name takes.
func interfaceName(name string) bool {
	const longest = 15 // IFNAMSIZ less its end
	return name != "" && name != "." && name != ".." && len(name) <= longest && !strings.ContainsAny(name, "/:%\x00 \t\n\v\f\r")
}

// devicesLater tells whether the interfaces move when the process is born, which
// waits for that: a network namespace that belongs to a user namespace is made
// by who is in that. Others are made before.
func devicesLater(spec *specs.Spec) bool {
	if spec.Linux == nil || len(spec.Linux.NetDevices) == 0 {
		return false
	}
	network := namespaceOf(spec.Linux, specs.NetworkNamespace)
	return network != nil && network.Path == "" && owns(spec, specs.UserNamespace)
}

// devicesBefore moves interfaces to a namespace that is there before anybody is
// born in it. A launch that fails gives them back after its process.
func (b *birth) devicesBefore(all *hold, r *Request) error {
	if len(r.Spec.Linux.NetDevices) == 0 || devicesLater(r.Spec) {
		return nil
	}
	return moveNetDevices(all, r, b.source(func(s stage1.Source) bool { return s.Namespace == string(specs.NetworkNamespace) }))
}

// devicesOf moves them to that of a process, which waits and is our child.
func (r *Request) devicesOf(all *hold) func(pid int) error {
	if !devicesLater(r.Spec) {
		return nil
	}
	return func(pid int) error {
		ns, err := all.file(os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)))
		if err != nil {
			return err
		}
		return moveNetDevices(all, r, ns)
	}
}

// moveNetDevices gives the container the interfaces of the host that its
// bundle names. They go with its network namespace.
func moveNetDevices(all *hold, r *Request, ns *os.File) error {
	devices := r.Spec.Linux.NetDevices
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		back, err := netns.Move(ns, name, netDeviceName(name, devices[name]))
		if err != nil {
			return fmt.Errorf("linux.netDevices[%s]: %w", name, err)
		}
		all.Push(func() {
			if err := back(); err != nil && r.Notes != nil {
				r.Notes(fmt.Sprintf("linux.netDevices[%s]: %v", name, err))
			}
		})
	}
	return nil
}

func (b *birth) source(is func(stage1.Source) bool) *os.File {
	i := slices.IndexFunc(b.plan.Sources, is)
	return b.sources[i]
}
