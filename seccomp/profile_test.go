// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func allows(sp *specs.LinuxSeccomp, name string) bool {
	return slices.ContainsFunc(sp.Syscalls, func(c specs.LinuxSyscall) bool {
		return c.Action == specs.ActAllow && len(c.Args) == 0 && slices.Contains(c.Names, name)
	})
}

// The default profile follows the capabilities, as Docker users rely on.
func TestDefaultFollowsCapabilities(t *testing.T) {
	for _, tt := range []struct {
		caps []string
		name string
		want bool
	}{
		{nil, "read", true},
		{nil, "ptrace", true}, // since Linux 4.8
		{nil, "mount", false},
		{nil, "fsopen", false},
		{nil, "bpf", false},
		{nil, "keyctl", false},
		{nil, "userfaultfd", false},
		{[]string{"CAP_SYS_ADMIN"}, "mount", true},
		{[]string{"CAP_SYS_ADMIN"}, "fsopen", true},
		{[]string{"CAP_SYS_CHROOT"}, "chroot", true},
		{[]string{"CAP_NET_ADMIN"}, "mount", false},
		{[]string{"CAP_SYS_MODULE"}, "finit_module", true},
	} {
		sp, err := Default(tt.caps)
		if err != nil {
			t.Fatal(err)
		}
		if got := allows(sp, tt.name); got != tt.want {
			t.Errorf("caps %v: %s allowed = %v, want %v", tt.caps, tt.name, got, tt.want)
		}
		if sp.DefaultAction != specs.ActErrno || sp.DefaultErrnoRet == nil || *sp.DefaultErrnoRet != 1 {
			t.Errorf("the default is %s %v, want EPERM", sp.DefaultAction, sp.DefaultErrnoRet)
		}
		if err := Validate(sp); err != nil {
			t.Error(err)
		}
	}
}

// Two calls give values that share nothing: one pod's profile must not be
// another's.
func TestDefaultIsFresh(t *testing.T) {
	a, err := Default(nil)
	if err != nil {
		t.Fatal(err)
	}
	a.Syscalls[0].Names[0] = "mount"
	a.DefaultAction = specs.ActAllow
	b, err := Default(nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.Syscalls[0].Names[0] == "mount" || b.DefaultAction != specs.ActErrno {
		t.Error("a change of one profile shows in the next")
	}
}

func TestLoad(t *testing.T) {
	ret := func(n uint) *uint { return &n }
	for _, tt := range []struct {
		name string
		in   string
		caps []string
		want *specs.LinuxSeccomp
	}{
		{
			"docker's old single name", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW"}]}`, nil,
			&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}},
		},
		{
			"podman's error names", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOSYS","defaultErrnoRet":38,"syscalls":[{"names":["bdflush"],"action":"SCMP_ACT_ERRNO","errno":"EPERM","comment":"","args":[]}]}`, nil,
			&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: ret(38), Syscalls: []specs.LinuxSyscall{{Names: []string{"bdflush"}, Action: specs.ActErrno, ErrnoRet: ret(1)}}},
		},
		{
			"a rule for a capability that is not there", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}}]}`, nil,
			&specs.LinuxSeccomp{DefaultAction: specs.ActErrno},
		},
		{
			"and one that is", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}}]}`,
			[]string{"CAP_BPF"},
			&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"bpf"}, Action: specs.ActAllow}}},
		},
		{
			"a kernel that is not yet", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"200.1"}}]}`, nil,
			&specs.LinuxSeccomp{DefaultAction: specs.ActErrno},
		},
		{"allow all", `{"defaultAction":"SCMP_ACT_ALLOW"}`, nil, &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}},
	} {
		got, err := Load([]byte(tt.in), tt.caps)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		a, b := mustJSON(t, got), mustJSON(t, tt.want)
		if a != b {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, a, b)
		}
	}
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What is not understood is refused with the field's name: a hole in a
// profile is not seen from outside.
func TestLoadRefuses(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", ``, "EOF"},
		{"an empty object, which moby reads as no seccomp", `{}`, "defaultAction is missing"},
		{"null", `null`, "defaultAction is missing"},
		{"unknown key", `{"defaultAction":"SCMP_ACT_ERRNO","sycalls":[]}`, "sycalls"},
		{"unknown key in a rule", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","arg":[]}]}`, "arg"},
		{"two values", `{"defaultAction":"SCMP_ACT_ERRNO"} {}`, "follows"},
		{"unknown action", `{"defaultAction":"SCMP_ACT_DENY"}`, "seccomp.defaultAction"},
		{"rule without action", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"]}]}`, "syscalls[0].action"},
		{"rule without names", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"action":"SCMP_ACT_ALLOW"}]}`, "syscalls[0].names"},
		{"null rule", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[null]}`, "syscalls[0] is null"},
		{"odd name", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read "],"action":"SCMP_ACT_ALLOW"}]}`, "read "},
		{"argument six", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}`, "args[0].index"},
		{"unknown operator", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"op":"EQ"}]}]}`, "args[0].op"},
		{"error of an allow", `{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}`, "takes no error number"},
		{"error too large", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":70000}`, "4095"},
		{"unknown error", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOPE"}`, "ENOPE"},
		{"error name and number disagree", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOSYS","defaultErrnoRet":1}`, "38"},
		{"unknown architecture", `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["X86"]}`, "architectures[0]"},
		{"unknown flag", `{"defaultAction":"SCMP_ACT_ERRNO","flags":["TSYNC"]}`, "flags[0]"},
		{"notify to nobody", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}`, "listenerPath"},
		{"both forms of architectures", `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}`, "archMap"},
		{"both forms of names", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}`, "'names'"},
		{"bad kernel", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"x"}}]}`, "kernel"},
		{"large", `{"defaultAction":"SCMP_ACT_ERRNO"}` + strings.Repeat(" ", MaxProfile), "more than"},
	} {
		sp, err := Load([]byte(tt.in), nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want an error with %q", tt.name, sp, err, tt.want)
		}
	}
}

// The profile podman installs on this host, where there is one, loads.
func TestLoadPodmansOwn(t *testing.T) {
	b, err := os.ReadFile("/usr/share/containers/seccomp.json")
	if err != nil {
		t.Skip("ability missing: golang-github-containers-common")
	}
	sp, err := Load(b, []string{"CAP_SYS_ADMIN"})
	if err != nil {
		t.Fatal(err)
	}
	if !allows(sp, "read") || !allows(sp, "mount") {
		t.Error("read and, with CAP_SYS_ADMIN, mount are not allowed")
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOSYS","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":2,"valueTwo":3,"op":"SCMP_CMP_MASKED_EQ"}],"includes":{"caps":["CAP_BPF"],"minKernel":"4.8"},"excludes":{"arches":["s390"]}}]}`))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"read","action":"SCMP_ACT_NOTIFY"}],"listenerPath":"/x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		sp, err := Load(b, []string{"CAP_BPF"})
		if err != nil {
			return
		}
		if sp == nil {
			t.Fatal("no profile and no error: the app would run without a filter")
		}
		if err := Validate(sp); err != nil {
			t.Fatalf("loaded and not valid: %v", err)
		}
		again, err := Load([]byte(mustJSON(t, sp)), nil)
		if err != nil || !reflect.DeepEqual(mustJSON(t, again), mustJSON(t, sp)) {
			t.Fatalf("%s does not read back: %v", mustJSON(t, sp), err)
		}
	})
}
