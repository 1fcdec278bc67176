// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// What tests/functional cannot have everywhere: security modules, and refusals
// of a root that may all.
func TestErrorsBeginWithTheirField(t *testing.T) {
	spec := &specs.Spec{
		Process: &specs.Process{Cwd: "/srv/", Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NOFILE"}}},
		Mounts:  []specs.Mount{{Destination: "/x"}, {Destination: "/y/"}, {Destination: "/x"}},
		Linux: &specs.Linux{
			MaskedPaths: []string{"/a", "/b/"}, ReadonlyPaths: []string{"/c"},
			Devices: []specs.LinuxDevice{{Path: "/dev/one"}}, Sysctl: map[string]string{"net/ipv4/conf/eth0.1/forwarding": "1"},
		},
	}
	for _, tt := range []struct{ step, path, want string }{
		{"set apparmor label", "p", "process.apparmorProfile"},
		{"read back selinux label", "p", "process.selinuxLabel"},
		{"set sysctl", "net/ipv4/conf/eth0.1/forwarding", `linux.sysctl["net/ipv4/conf/eth0.1/forwarding"]`},
		{"set limit", "RLIMIT_NOFILE", "process.rlimits[1]"},
		{"set OOM score", "self/oom_score_adj", "process.oomScoreAdj"},
		{"set scheduler", "SCHED_FIFO", "process.scheduler"},
		{"set IO priority", "IOPRIO_CLASS_RT 1", "process.ioPriority"},
		{"set CPU affinity", "1", "process.execCPUAffinity"},
		{"set memory policy", "MPOL_BIND", "linux.memoryPolicy"},
		{"set user", "1", "process.user.uid"},
		{"set group", "1", "process.user.gid"},
		{"set groups", "", "process.user.additionalGids"},
		{"drop capabilities", "", "process.capabilities"},
		{"enter working directory", "/srv", "process.cwd"},
		{"make directory", "/srv", "process.cwd"},
		{"set host name", "h", "hostname"},
		{"set domain name", "d", "domainname"},
		{"make device", "/dev/one", "linux.devices[0]"},
		{"mask", "/b", "linux.maskedPaths[1]"},
		{"make read-only", "/c", "linux.readonlyPaths[0]"},
		{"mount tmpfs", "/x", "mounts[2]"},
		{"bind", "/y", "mounts[1]"},
		{"set attributes of bind", "/y", "mounts[1]"},
		{"copy image content", "/y", "mounts[1]"},
		// About no field: it stays as it is.
		{"make device", "/dev/null", ""},
		{"mount overlay", "/", ""},
		{"pivot root", "/", ""},
		{"execute", "sh", ""},
	} {
		err := &launch.Error{StepError: stage1.StepError{Step: tt.step, Path: tt.path, Errno: int(unix.EPERM)}}
		want := err.Error()
		if tt.want != "" {
			want = tt.want + ": " + want
		}
		got := inBundle(spec, err)
		if got.Error() != want || !errors.Is(got, unix.EPERM) {
			t.Errorf("%s %s: %q, want %q", tt.step, tt.path, got, want)
		}
	}
}

func TestValuesOfOtherTypesAreToldByField(t *testing.T) {
	for config, want := range map[string]string{
		`{"ociVersion": "1.0.2", "process": {"user": {"uid": -5}}}`: "process.user.uid: is a JSON number -5, and must be a number of type uint32",
		`{"ociVersion": "1.0.2", "hostname": 5}`:                    "hostname: is a JSON number, and must be a string",
		`{"ociVersion": "1.0.2", "mounts": {}}`:                     "mounts: is a JSON object, and must be an array",
		`[]`:                                                        "bundle: read config.json: json: cannot unmarshal array into Go value of type specs.Spec",
	} {
		if _, err := decodeBundle([]byte(config)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %q", config, err, want)
		}
	}
}
