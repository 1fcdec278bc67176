// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
)

// TestPodmanGuest is the short form of TestPodman, for machines with cgroup v2
// and AppArmor, which here are emulated ones.
func TestPodmanGuest(t *testing.T) {
	ability.Require(t, ability.Root, ability.Cgroup2, ability.Systemd, ability.Tool("podman"))
	engine{
		name: "guest", untold: true, start: func(t *testing.T, runtime string) *machine { return newPodman(t, runtime, "systemd") },
		reset: removeContainers, left: "podman ps -aq", groups: everyContainer,
	}.test(t)
}

// TestContainerdGuest is that of TestContainerd.
func TestContainerdGuest(t *testing.T) {
	ability.Require(t, ability.Root, ability.Cgroup2, ability.Systemd, ability.Tool("containerd"))
	engine{
		name: "guest-containerd", untold: true, start: newContainerd,
		reset: removeTasks, left: "ctr c ls -q", groups: func(*machine) []string { return []string{"engine-box"} },
	}.test(t)
}
