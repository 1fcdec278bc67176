// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/built"
)

// crioFiles keep CRI-O in the machine's directory. It pins namespaces below
// /run/crio, which is a tmpfs of the machine's.
var crioFiles = map[string]string{
	"storage.conf": podmanFiles["storage.conf"],
	"policy.json":  podmanFiles["policy.json"],
	"crio.conf": `[crio]
root = "${DIR}/graph"
runroot = "${DIR}/run"
storage_driver = "overlay"
log_dir = "${DIR}/logs"
version_file = "${DIR}/version"
version_file_persist = "${DIR}/version-persist"
clean_shutdown_file = "${DIR}/clean"
[crio.api]
listen = "${DIR}/c.sock"
stream_port = "0"
[crio.runtime]
default_runtime = "under-test"
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
pinns_path = "${PINNS}"
container_exits_dir = "${DIR}/exits"
container_attach_socket_dir = "${DIR}/attach"
namespaces_dir = "${DIR}/ns"
hooks_dir = ["${DIR}/hooks"]
apparmor_profile = "unconfined"
drop_infra_ctr = true
default_ulimits = ["nofile=1024:4096"]
[crio.runtime.runtimes.under-test]
runtime_path = "${RUNTIME}"
runtime_type = "oci"
runtime_root = "${STATE}"
monitor_path = "/usr/bin/conmon"
[crio.image]
pause_image = "localhost/busybox:latest"
pause_command = "/bin/sleep 10000"
signature_policy = "${DIR}/policy.json"
[crio.network]
network_dir = "${DIR}/cni"
plugin_dirs = ["${DIR}/bin"]
[crio.nri]
enable_nri = false
`,
}

func newCRIOItself(t *testing.T, runtime string) *machine {
	t.Helper()
	m := newMachine(t, runtime)
	for key, program := range map[string]string{"CRIO": "crio", "PINNS": "pinns"} {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		m.env = append(m.env, key+"="+path)
	}
	m.env = append(m.env, "IMAGE=localhost/busybox:latest", "CONTAINERS_STORAGE_CONF="+m.dir+"/storage.conf")
	for name, text := range crioFiles {
		m.write(name, text, 0o644)
	}
	for _, dir := range []string{"hooks", "cni", "logs"} {
		m.mkdir(dir)
	}
	m.crictl()
	m.must(built.Path(t, "tests/mkimage") + " busybox oci:$DIR/layout:latest")
	m.must("skopeo --policy policy.json copy -q oci:$DIR/layout:latest containers-storage:[overlay@$DIR/graph+$DIR/run]$IMAGE >/dev/null")
	m.must("mkdir -p /run/crio && mount -t tmpfs none /run/crio")
	m.daemon(`"$CRIO" --config "$DIR/crio.conf" --config-dir ""`)
	m.must("until crictl version >/dev/null 2>&1; do sleep 0.1; done")
	t.Cleanup(func() { m.command("crictl rmp -fa; umount -R $DIR/graph/overlay") })
	return m
}

// TestCRIOItself: CRI-O itself, told what a containerd is told. tests/setup/crio.sh
// builds it.
func TestCRIOItself(t *testing.T) {
	ability.Require(t, ability.Root, ability.CgroupWritable, ability.Tool("crio"), ability.Tool("pinns"), ability.Tool("crictl"), ability.Tool("conmon"), ability.Tool("skopeo"))
	engine{
		name: "crio-itself", untold: true, start: newCRIOItself, reset: "crictl rmp -fa", left: "crictl pods -q",
		groups: func(m *machine) []string {
			return strings.Fields(m.must(`grep -oE 'Created container [0-9a-f]{64}' $DIR/daemon.log | cut -d' ' -f3 | sort -u`))
		},
	}.test(t)
}
