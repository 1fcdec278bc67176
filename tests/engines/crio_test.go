// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
)

// What CRI-O runs, by its internal/oci/runtime_oci.go: conmon of these flags makes
// a container, and executes in one for ExecSync; all else it asks the runtime
// itself. conmon waits for a byte before it forks, and writes what came of it.
const (
	crioRuntime = `#!/bin/sh
exec "$RUNTIME" --root "$STATE" "$@"
`
	crioCreate = `#!/bin/sh
id=$1
shift
printf x >start
mkdir -p exits attach "$id"
_OCI_SYNCPIPE=3 _OCI_STARTPIPE=4 conmon -b "$DIR/b" -c "$id" --exit-dir "$DIR/exits" -l "$DIR/$id.log" --log-level info \
	-n "k8s_$id" -P "$DIR/b/conmon-pidfile" -p "$DIR/b/pidfile" --persist-dir "$DIR/$id" -r "$RUNTIME" --runtime-arg "--root=$STATE" \
	--socket-dir-path "$DIR/attach" --syslog -u "$id" --log-size-max 8192 "$@" 3>sync 4<start
for i in $(seq 100); do test -s sync && break; sleep 0.1; done
cat sync
`
	crioExecSync = `#!/bin/sh
id=$1
shift
printf x >start
_OCI_SYNCPIPE=3 _OCI_STARTPIPE=4 conmon -c "$id" -n "k8s_$id" -r "$RUNTIME" -p "$DIR/execpid" -e -l "$DIR/exec.log" \
	--socket-dir-path "$DIR/attach" --log-level info --sync "$@" --exec-process-spec "$DIR/process.json" \
	--runtime-arg "--root=$STATE" 3>sync 4<start
cut -d' ' -f2,4- exec.log
cat sync
rm exec.log
`
	crioProcess = `{"cwd": "/", "args": ["sh", "-c", "echo out; echo err >&2; id -u; exit 3"], "env": ["PATH=/bin"], "user": {"uid": 1000, "gid": 1000},
 "capabilities": {}, "noNewPrivileges": true}`
	crioConfig = `{"ociVersion": "1.0.2", "hostname": "pod", "root": {"path": "rootfs"},
 "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin", "TERM=xterm"], "oomScoreAdj": 1000,
  "args": ["sh", "-c", "trap 'exit 9' TERM; echo started; while :; do sleep 0.1; done"],
  "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}},
 "mounts": [
  {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
  {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
  {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
  {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
  {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}],
 "annotations": {"io.kubernetes.cri-o.Name": "app", "io.container.manager": "cri-o"},
 "linux": {"cgroupsPath": "/gantry-crio/crio-app",
  "resources": {"devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 67108864}, "cpu": {"shares": 512, "quota": 0, "period": 100000}, "pids": {"limit": 100}},
  "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
  "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"], "readonlyPaths": ["/proc/bus", "/proc/sys"]}}`
)

func newCRIO(t *testing.T, runtime string) *machine {
	t.Helper()
	m := newMachine(t, runtime)
	m.mkdir("b/rootfs/bin")
	for name, text := range map[string]string{"bin/oci": crioRuntime, "bin/create": crioCreate, "bin/execsync": crioExecSync} {
		m.write(name, text, 0o755)
	}
	m.write("b/config.json", crioConfig, 0o644)
	m.write("process.json", crioProcess, 0o644)
	m.must("cp $(command -v busybox) b/rootfs/bin/busybox && for a in sh id sleep cat; do ln -s busybox b/rootfs/bin/$a; done")
	return m
}

// TestCRIO: the commands of CRI-O, which Debian does not have.
func TestCRIO(t *testing.T) {
	ability.Require(t, ability.Root, ability.CgroupWritable, ability.Tool("conmon"), ability.Tool("busybox"))
	engine{
		name: "crio", start: newCRIO, reset: "for c in $(oci list -q); do oci delete --force $c; done", left: "oci list -q",
		groups: func(*machine) []string { return []string{"crio-app"} },
	}.test(t)
}
