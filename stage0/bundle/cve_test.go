// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func refused(t *testing.T, in Input, want string) {
	t.Helper()
	r, err := Spec(in)
	if err == nil {
		t.Fatalf("taken: %+v", r.Spec.Process)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want it to say %q", err, want)
	}
}

// containerd: a user above 2^31 wrapped around to root.
func TestCVE_2024_40635_UserOverflow(t *testing.T) {
	for _, user := range []string{"2147483648", "4294967295", "4294967296", "18446744073709551616", "0:2147483648", "0:4294967296", "-1", "+1", "0:-1"} {
		in := input(Options{})
		in.Image.User = user
		refused(t, in, "user "+fmt.Sprintf("%q", user))
	}
	in := input(Options{})
	in.Files.Passwd = []byte("web:x:4294967296:0::/:\n")
	refused(t, in, "no valid numbers")
}

// containerd: an account whose name is a number made USER 1000 mean root, past
// a check that the user is not root.
func TestCVE_2026_46680_NumericName(t *testing.T) {
	in := input(Options{User: "1000"})
	in.Files.Passwd = []byte("1000:x:0:0::/root:/bin/sh\n")
	in.Files.Group = []byte("1000:x:0:\n")
	r, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	if u := r.Spec.Process.User; u.UID != 1000 || u.GID != 0 {
		t.Errorf("1000 became %+v", u)
	}
	if u, err := ParseUser("1000:1000", nil, in.Files); err != nil || u.UID != 1000 || u.GID != 1000 {
		t.Errorf("1000:1000 became %+v, %v", u, err)
	}
}

// podman, buildah, CRI-O, moby: without the primary group among the
// supplementary ones, a file denied to the group was open to the app.
func TestCVE_2022_2989_SupplementaryGroups(t *testing.T) {
	for user, want := range map[string][]uint32{
		"web":       {1001, 29, 44}, // from the image
		"1000":      {1001, 29, 44}, // its account by number
		"web:audio": {29},           // an explicit group is the only one
		"web:29":    {29},
		"4711":      {0}, // no account
		"4711:5":    {5},
		"root":      {0},
	} {
		u, err := ParseUser(user, nil, accounts())
		if err != nil || !slices.Equal(u.Groups, want) || u.GID != want[0] {
			t.Errorf("%s: %+v, %v; want groups %v", user, u, err, want)
		}
	}
	if u, err := ParseUser("web:audio", []string{"video", "audio", "7"}, accounts()); err != nil || !slices.Equal(u.Groups, []uint32{29, 44, 7}) {
		t.Errorf("with --group-add: %+v, %v", u, err)
	}
}

// CRI-O: a newline in a home directory wrote another line into /etc/passwd.
// A line cannot hold one here, and no other control character gets through.
func TestCVE_2022_4318_HomeControlCharacters(t *testing.T) {
	in := input(Options{User: "web"})
	in.Files.Passwd = []byte("web:x:1000:1001::/home/\x1b[2Jweb:/bin/sh\n")
	r, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(r.Spec.Process.Env, "HOME=/") {
		t.Errorf("the home got through: %q", r.Spec.Process.Env)
	}
	in = input(Options{})
	in.Image.WorkingDir = "/a\nb"
	refused(t, in, "control characters")
}

// containerd: a huge /etc/group was read whole, over and over.
func TestCVE_2026_47262_HugeGroupFile(t *testing.T) {
	in := input(Options{User: "web"})
	in.Files.Group = []byte(strings.Repeat("x:x:1:\n", maxAccounts+1))
	refused(t, in, "/etc/group has more than")
	in = input(Options{User: "web"})
	in.Files.Group = []byte(strings.Repeat("x:x:1:web\n", maxAccounts))
	refused(t, in, "it is in more than")
	in = input(Options{User: "web"})
	in.Files.Passwd = []byte(strings.Repeat("x:x:1:1::/:\n", maxAccounts+1))
	refused(t, in, "/etc/passwd has more than")
}

// podman: an entry without '=' in an image's environment pulled the variable
// of that name, or with '*' all of them, out of the caller's environment.
func TestCVE_2026_57231_ImageEnvironmentReachesHost(t *testing.T) {
	for _, entry := range []string{"SECRET", "*", "SE*", "=x", "", "A\x00=b"} {
		in := input(Options{})
		in.Image.Env = []string{entry}
		refused(t, in, "the image's environment entry")
	}
	in := input(Options{})
	in.Image.Env = []string{"SECRET*=image"}
	r, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range r.Spec.Process.Env {
		if strings.Contains(kv, "host") {
			t.Errorf("the host's environment got in: %q", kv)
		}
	}
}

// containerd: a label of the image configured the logger of the host's
// restart monitor, which ran a program as root.
func TestCVE_2026_53488_ImageLabelSteersHost(t *testing.T) {
	in := input(Options{})
	with, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	if len(with.Labels)+len(with.Spec.Annotations) != 0 {
		t.Errorf("the image's labels became %v and %v", with.Labels, with.Spec.Annotations)
	}
}

// podman's own io.containers.capabilities and other labels are no different:
// the bundle of an image does not depend on its labels.
func TestCVE_2024_3154_AnnotationsFromImage(t *testing.T) {
	in := input(Options{})
	in.Image.Labels = nil
	without, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	in.Image.Labels = map[string]string{
		"io.containers.capabilities":                      "ALL",
		"org.systemd.property.ExecStart":                  "/bin/sh",
		"io.kubernetes.cri-o.UnifiedCgroup":               "memory.max=max",
		"containerd.io/restart.loguri":                    "binary:///bin/sh",
		"run.oci.hooks.stderr":                            "/etc/passwd",
		"com.docker.compose.oneoff":                       "True",
		"org.opencontainers.image.stopSignal":             "KILL",
		"module.wasm.image/variant":                       "compat",
		"cdi.k8s.io/devices":                              "vendor.com/device=all",
		"seccomp.security.alpha.kubernetes.io/pod":        "unconfined",
		"io.podman.annotations.privileged":                "TRUE",
		"io.containers.autoupdate":                        "image",
		"io.katacontainers.config.hypervisor.path":        "/bin/sh",
		"io.kubernetes.container.apparmor.security.beta/": "unconfined",
	}
	with, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	a, err := json.Marshal(without)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(with)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("labels changed the bundle:\n%s\n%s", a, b)
	}
}

// runc, crun: a volume of the image over /proc faked the files through which
// the process is confined.
func TestCVE_2019_16884_VolumeOverProc(t *testing.T) {
	for _, dest := range []string{"/", "/proc", "/proc/self", "//proc/1", "/x/../proc", "/proc/", "/.", "proc", ""} {
		in := input(Options{})
		in.Image.Volumes = map[string]struct{}{dest: {}}
		refused(t, in, "the image's volume")
		refused(t, input(Options{Volumes: []string{"/srv:" + dest}}), "--volume")
		refused(t, input(Options{Tmpfs: []string{dest}}), "--tmpfs")
		refused(t, input(Options{Mounts: []string{"type=tmpfs,dst=" + dest}}), "--mount")
	}
}

// moby, podman, CRI-O and others: inheritable capabilities were not empty.
func TestCVE_2022_29162_InheritableCapabilities(t *testing.T) {
	for _, o := range []Options{{User: "0"}, {User: "web"}, {User: "0", CapAdd: []string{"ALL"}}} {
		r, err := Spec(input(o))
		if err != nil {
			t.Fatal(err)
		}
		if c := r.Spec.Process.Capabilities; len(c.Inheritable) != 0 || len(c.Ambient) != 0 {
			t.Errorf("%+v: inheritable %v, ambient %v", o, c.Inheritable, c.Ambient)
		}
	}
}

// libpod: an app that is not root kept root's capabilities.
func TestCVE_2018_10856_CapabilitiesOfOtherUsers(t *testing.T) {
	r, err := Spec(input(Options{User: "web"}))
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Spec.Process.Capabilities; len(c.Effective)+len(c.Permitted) != 0 {
		t.Errorf("effective %v, permitted %v", c.Effective, c.Permitted)
	}
}

// CRI-O: sysctls of the host's network and IPC could be set, and with them the
// handler of core dumps.
func TestCVE_2022_0532_Sysctls(t *testing.T) {
	for _, s := range []string{"kernel.core_pattern=|/bin/sh", "kernel/core_pattern=x", "kernel.shm_rmid_forced=1+kernel.core_pattern=x", "vm.overcommit_memory=1", "fs.file-max=1", "kernel.shmmax=1\nkernel.core_pattern=x", "net/../kernel/core_pattern=x", "kernel.hostname=x"} {
		in := input(Options{Sysctls: []string{s}})
		if s == "kernel.shm_rmid_forced=1+kernel.core_pattern=x" {
			// The value is one value: nothing splits it.
			if r, err := Spec(in); err != nil || len(r.Spec.Linux.Sysctl) != 1 {
				t.Errorf("%q: %v", s, err)
			}
			continue
		}
		refused(t, in, "--sysctl")
	}
	refused(t, input(Options{Net: []string{"host"}, Sysctls: []string{"net.ipv4.ip_forward=1"}}), "the host's")
}

// An image cannot make arguments, environment or paths that end a string.
func TestNULFromImage(t *testing.T) {
	for _, img := range []ispec.ImageConfig{
		{Entrypoint: []string{"/bin/sh\x00x"}},
		{Cmd: []string{"a", "b\x00"}},
		{Cmd: []string{"a"}, WorkingDir: "/a\x00"},
		{Cmd: []string{"a"}, User: "a\x00b"},
		{Cmd: []string{"a"}, StopSignal: "TERM\x00"},
		{Cmd: []string{"a"}, Volumes: map[string]struct{}{"/a\x00": {}}},
	} {
		in := input(Options{})
		in.Image = img
		if _, err := Spec(in); err == nil {
			t.Errorf("%+v was taken", img)
		}
	}
}
