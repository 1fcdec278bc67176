// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"os"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/built"
)

// podmanFiles make podman forget the host's configuration. This machine's root
// may lack CAP_SYS_RESOURCE: limits are those it may have.
var podmanFiles = map[string]string{
	"containers.conf": `[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
netns = "none"
[engine]
cgroup_manager = "${MANAGER}"
events_logger = "file"
runtime = "under-test"
runtime_supports_nocgroup = ["under-test"]
[engine.runtimes]
under-test = ["${DIR}/bin/runtime"]
[network]
network_config_dir = "${DIR}/networks"
`,
	"storage.conf": `[storage]
driver = "overlay"
graphroot = "${DIR}/graph"
runroot = "${DIR}/run"
`,
	"policy.json": `{"default": [{"type": "insecureAcceptAnything"}]}
`,
	"registries.conf": "",
}

const podmanWrapper = `#!/bin/sh
exec /usr/bin/podman --root "$DIR/graph" --runroot "$DIR/run" --tmpdir "$DIR/tmp" "$@"
`

// removePod asks twice: podman 4.3 sometimes takes a container's directory away
// while the cleanup that its end has set off is still unmounting there, with any
// runtime (podman issue 11594). The second time there is nothing in the way.
const removePod = `#!/bin/sh
podman pod rm "$@" >/dev/null 2>why || ! grep -q "device or resource busy" why || exec podman pod rm "$@" >/dev/null
cat why
`

const removeContainers = "podman pod rm -fa -t0; podman rm -fa -t0; podman volume prune -f"

// autoUsers are those from which --userns=auto takes.
const autoUsers = "containers:2000000:1000000"

// newPodman makes a machine with podman and the images.
func newPodman(t *testing.T, runtime, manager string) *machine {
	t.Helper()
	m := newMachine(t, runtime)
	m.account("subuid", autoUsers)
	m.account("subgid", autoUsers)
	m.env = append(m.env, "MANAGER="+manager,
		"CONTAINERS_CONF="+m.dir+"/containers.conf", "CONTAINERS_STORAGE_CONF="+m.dir+"/storage.conf",
		"CONTAINERS_REGISTRIES_CONF="+m.dir+"/registries.conf", "IMAGE=localhost/busybox:latest")
	for name, text := range podmanFiles {
		m.write(name, text, 0o644)
	}
	m.write("bin/podman", podmanWrapper, 0o755)
	m.write("bin/remove-pod", removePod, 0o755)
	t.Cleanup(func() {
		m.command(removeContainers)
		removePodGroups(m)
	})
	m.must(built.Path(t, "tests/mkimage") + " -archive busybox.tar busybox oci:$DIR/layout:latest")
	m.must("podman pull -q --signature-policy policy.json oci-archive:busybox.tar >id && podman tag $(cat id) $IMAGE")
	return m
}

// TestPodman: what podman prints as root, container by container.
func TestPodman(t *testing.T) {
	ability.Require(t, ability.Root, ability.CgroupWritable, ability.Tool("podman"))
	engine{
		name:   "podman",
		start:  func(t *testing.T, runtime string) *machine { return newPodman(t, runtime, "cgroupfs") },
		reset:  removeContainers,
		left:   "podman ps -aq",
		groups: everyContainer,
	}.test(t)
}

// everyContainer names the groups of all containers there were by podman's
// journal.
func everyContainer(m *machine) []string {
	names := strings.Fields(m.must(journalIDs))
	for i := range names {
		names[i] = "libpod-" + names[i]
	}
	return names
}

const journalIDs = `grep -oE '"ID":"[0-9a-f]{64}"' $DIR/tmp/events/events.log | cut -d'"' -f4 | sort -u`

// removePodGroups removes what podman 4.3 leaves of pods, whatever the runtime:
// groups in the hierarchies of version 1 that it does not know.
func removePodGroups(m *machine) {
	for _, dir := range groups(strings.Fields(m.must(journalIDs))) {
		_ = os.Remove(dir)
	}
}
