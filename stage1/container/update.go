// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/cgroups"
)

// Update changes the limits of a container that has not ended. The kernel
// remembers them; config.json stays what the container was made from.
func (c *Container) Update(r *specs.LinuxResources) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status == specs.StateStopped || status == specs.StateCreating {
		return fmt.Errorf("container %q cannot be updated: it is %s", c.ID, status)
	}
	if err := cgroups.Update(cgroups.Existing(c.Cgroups), r); err != nil {
		return inBundle(nil, err)
	}
	return c.tellUnit(r)
}
