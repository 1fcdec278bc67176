// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/built"
)

// containerdConfig has the snippet of docs/engines.md in it. The OOM score of a
// sandbox is out of reach for a root without CAP_SYS_RESOURCE.
const containerdConfig = `version = 2
root = "${DIR}/containerd/root"
state = "${DIR}/containerd/state"
[grpc]
  address = "${DIR}/c.sock"
[ttrpc]
  address = "${DIR}/t.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "${DIR}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:latest"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "${DIR}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "under-test"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.under-test]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.under-test.options]
        BinaryName = "${RUNTIME}"
        Root = "${STATE}"
`

// ctrWrapper lets containers be run by the runtime under test.
const ctrWrapper = `#!/bin/sh
if [ "$1" = run ]; then
	shift
	set -- run --runc-binary "$RUNTIME" --runc-root "$STATE" "$@"
fi
exec /usr/bin/ctr -a "$DIR/c.sock" "$@"
`

const crictlWrapper = `#!/bin/sh
${CRICTL} -c ${DIR}/crictl.yaml "$@" 2>"$DIR/crictl.err" || { s=$?; cat "$DIR/crictl.err" >&2; exit $s; }
`

// A pod of the host's network: other pods need CNI.
const (
	criPod       = `{"metadata": {"name": "pod", "namespace": "tests", "uid": "1"}, "log_directory": "${DIR}/logs", "linux": {"cgroup_parent": "/gantry-engines", "security_context": {"namespace_options": {"network": 2, "pid": 1}}}}`
	criContainer = `{"metadata": {"name": "app"}, "image": {"image": "localhost/busybox:latest"}, "command": ["sh", "-c", "echo started; sleep 1000"], "log_path": "app.log",
 "linux": {"resources": {"memory_limit_in_bytes": 67108864}, "security_context": {"namespace_options": {"network": 2, "pid": 1}, "run_as_user": {"value": 1000}, "no_new_privs": true, "readonly_rootfs": true, "capabilities": {"drop_capabilities": ["ALL"]}}}}`
)

func newContainerd(t *testing.T, runtime string) *machine {
	t.Helper()
	m := newMachine(t, runtime)
	m.env = append(m.env, "IMAGE=localhost/busybox:latest", "CONTAINERD_NAMESPACE=tests")
	m.write("config.toml", containerdConfig, 0o644)
	m.write("bin/ctr", ctrWrapper, 0o755)
	m.crictl()
	m.must(built.Path(t, "tests/mkimage") + " -archive busybox.tar busybox oci:$DIR/layout:latest")
	m.daemon("containerd -c $DIR/config.toml")
	m.must("until ctr version >/dev/null 2>&1; do sleep 0.1; done")
	m.must(built.Path(t, "tests/mkimage") + " -cmd 'sleep 10000' -archive pause.tar busybox oci:$DIR/pause:latest")
	m.must("ctr -n k8s.io image import --base-name localhost/pause pause.tar >/dev/null")
	m.must("for n in tests k8s.io; do ctr -n $n image import --base-name localhost/busybox busybox.tar >/dev/null; done")
	return m
}

// crictl gives a machine the client of CRI, if there is one, and what it makes.
func (m *machine) crictl() {
	m.t.Helper()
	crictl, err := exec.LookPath("crictl")
	if err != nil {
		return
	}
	m.env = append(m.env, "CRICTL="+crictl)
	m.write("bin/crictl", crictlWrapper, 0o755)
	m.write("crictl.yaml", "runtime-endpoint: unix://${DIR}/c.sock\nimage-endpoint: unix://${DIR}/c.sock\n", 0o644)
	m.write("pod.json", criPod, 0o644)
	m.write("container.json", criContainer, 0o644)
}

// daemon runs a program in the machine until the test ends.
func (m *machine) daemon(line string) {
	m.t.Helper()
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(m.holder.Process.Pid), "--net", "--mount", "sh", "-c", "exec "+line)
	log, err := os.Create(filepath.Join(m.dir, "daemon.log"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	cmd.Env, cmd.Stdout, cmd.Stderr = m.env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if m.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			lines := strings.Split(string(b), "\n")
			m.t.Logf("the last that the daemon said:\n%s", strings.Join(lines[max(0, len(lines)-8):], "\n"))
		}
	})
}

// removeTasks ends what a section that failed left running.
const removeTasks = `for c in $(ctr c ls -q); do ctr task kill -s 9 $c; sleep 0.2; ctr task rm -f $c; ctr c rm $c; done`

// TestContainerd: what ctr prints with a containerd of the test's own.
func TestContainerd(t *testing.T) {
	ability.Require(t, ability.Root, ability.CgroupWritable, ability.Tool("containerd"))
	engine{
		name: "containerd", start: newContainerd, reset: removeTasks, left: "ctr c ls -q", groups: func(*machine) []string { return []string{"engine-box"} },
	}.test(t)
}

// TestCRI: the service that a kubelet uses, by crictl.
func TestCRI(t *testing.T) {
	ability.Require(t, ability.Root, ability.CgroupWritable, ability.Tool("containerd"), ability.Tool("crictl"))
	engine{
		name: "cri", start: newContainerd, reset: "crictl rmp -fa", left: "crictl pods -q", groups: everyTask,
	}.test(t)
}

// everyTask reads the IDs of all there were from the log of containerd.
func everyTask(m *machine) []string {
	return strings.Fields(m.must(`grep -oE 'io.containerd.runtime.v2.task/k8s.io/[0-9a-f]{64}' $DIR/daemon.log | cut -d/ -f3 | sort -u`))
}
