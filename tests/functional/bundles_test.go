// SPDX-License-Identifier: Apache-2.0

package functional

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/built"
)

// badBundle is what is wrong with a bundle, and all that is said about it.
type badBundle struct {
	says string
	edit func(*specs.Spec)
}

func namespace(kind specs.LinuxNamespaceType, path string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}
}

func without(kind specs.LinuxNamespaceType, edit func(*specs.Spec)) func(*specs.Spec) {
	return func(s *specs.Spec) {
		var kept []specs.LinuxNamespace
		for _, ns := range s.Linux.Namespaces {
			if ns.Type != kind {
				kept = append(kept, ns)
			}
		}
		s.Linux.Namespaces = kept
		edit(s)
	}
}

func mounted(m specs.Mount) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) }
}

func sysctl(key, value string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{key: value} }
}

func netDevice(name, as string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{name: {Name: as}} }
}

func device(d specs.LinuxDevice) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Linux.Devices = append(s.Linux.Devices, d) }
}

func limits(l ...specs.POSIXRlimit) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Rlimits = l }
}

func inProcess(edit func(*specs.Process)) func(*specs.Spec) {
	return func(s *specs.Spec) { edit(s.Process) }
}

func badBundles() []badBundle {
	many, mask, zero := 2000, uint32(0o7777), 0
	return []badBundle{
		{`ociVersion: is missing (config.md, Specification version)`, func(s *specs.Spec) { s.Version = "" }},
		{`ociVersion: "2.0.0" is not a version this runtime knows (1.0 to ` + specs.Version + `) (config.md, Specification version)`, func(s *specs.Spec) { s.Version = "2.0.0" }},
		{`root.path: is missing (config.md, Root)`, func(s *specs.Spec) { s.Root = nil }},
		{`root.path: stat BUNDLE/nosuch: no such file or directory (config.md, Root)`, func(s *specs.Spec) { s.Root.Path = "nosuch" }},
		{`root.path: is not a directory (config.md, Root)`, func(s *specs.Spec) { s.Root.Path = "config.json" }},
		{`process.args: is empty (config.md, Process)`, func(s *specs.Spec) { s.Process = nil }},
		{`process.args: is empty (config.md, Process)`, inProcess(func(p *specs.Process) { p.Args = nil })},
		{`process.args[1]: contains a NUL byte (config.md, Process)`, inProcess(func(p *specs.Process) { p.Args = []string{"a", "\x00"} })},
		{`process.env[0]: contains a NUL byte (config.md, Process)`, inProcess(func(p *specs.Process) { p.Env = []string{"A=\x00"} })},
		{`process.cwd: "srv" is not absolute (config.md, Process)`, inProcess(func(p *specs.Process) { p.Cwd = "srv" })},
		{`process.consoleSize: 70000 by 80 is more than 65535 (config.md, Process)`, inProcess(func(p *specs.Process) { p.ConsoleSize = &specs.Box{Height: 70000, Width: 80} })},
		{`process.oomScoreAdj: 2000 is not from -1000 to 1000 (config.md, Linux Process)`, inProcess(func(p *specs.Process) { p.OOMScoreAdj = &many })},
		{`process.user.umask: 07777 is not a mask of permissions (config.md, POSIX-platform User)`, inProcess(func(p *specs.Process) { p.User.Umask = &mask })},
		{`process.rlimits[0].type: unknown limit "RLIMIT_X" (config.md, POSIX process)`, limits(specs.POSIXRlimit{Type: "RLIMIT_X"})},
		{`process.rlimits[1].type: RLIMIT_CORE is there already, in process.rlimits[0] (config.md, POSIX process)`, limits(specs.POSIXRlimit{Type: "RLIMIT_CORE"}, specs.POSIXRlimit{Type: "RLIMIT_CORE"})},
		{`process.rlimits[0].soft: 2 is more than the hard limit of 1 (config.md, POSIX process)`, limits(specs.POSIXRlimit{Type: "RLIMIT_CORE", Soft: 2, Hard: 1})},
		{`process: apparmorProfile and selinuxLabel exclude each other (config.md, Process)`, inProcess(func(p *specs.Process) { p.ApparmorProfile, p.SelinuxLabel = "a", "b" })},
		{`process.scheduler.policy: "FIFO" is not a policy (config.md, Linux Process)`, inProcess(func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: "FIFO"} })},
		{`process.ioPriority.priority: 9 is not from 0 to 7 (config.md, Linux Process)`, inProcess(func(p *specs.Process) {
			p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 9}
		})},
		{`process.execCPUAffinity.final: "a" in "a" is not a number below 8192, nor a range like 0-3 (config.md, Linux Process)`, inProcess(func(p *specs.Process) {
			p.ExecCPUAffinity = &specs.CPUAffinity{Final: "a"}
		})},
		{`hostname: needs a uts namespace (linux.namespaces), else it is the host's (config.md, Hostname)`, without(specs.UTSNamespace, func(*specs.Spec) {})},
		{`domainname: needs a uts namespace (linux.namespaces), else it is the host's (config.md, Domainname)`, without(specs.UTSNamespace, func(s *specs.Spec) { s.Hostname, s.Domainname = "", "x" })},
		{`hostname: "` + strings.Repeat("h", 65) + `" is longer than 64 bytes, or contains a NUL byte (config.md, Hostname)`, func(s *specs.Spec) { s.Hostname = strings.Repeat("h", 65) }},
		{`annotations: a key is empty (config.md, Annotations)`, func(s *specs.Spec) { s.Annotations = map[string]string{"": "x"} }},
		{`hooks.poststop[0].path: "x" is not absolute (config.md, POSIX-platform Hooks)`, func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "x"}}} }},
		{`hooks.createRuntime[0].timeout: 0 is not greater than zero (config.md, POSIX-platform Hooks)`, func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/x", Timeout: &zero}}}
		}},
		{`linux: is missing (config.md, Platform-specific configuration)`, func(s *specs.Spec) { s.Linux = nil }},
		{`linux.namespaces[6].type: pid is there already, in linux.namespaces[0] (config-linux.md, Namespaces)`, namespace(specs.PIDNamespace, "")},
		{`linux.namespaces[5].path: "ns" is not absolute (config-linux.md, Namespaces)`, without(specs.NetworkNamespace, namespace(specs.NetworkNamespace, "ns"))},
		{`linux.namespaces[5].path: /proc/self/ns/uts is not a network namespace (config-linux.md, Namespaces)`, without(specs.NetworkNamespace, namespace(specs.NetworkNamespace, "/proc/self/ns/uts"))},
		{`linux.namespaces[5].path: open /nosuch: no such file or directory (config-linux.md, Namespaces)`, without(specs.IPCNamespace, namespace(specs.IPCNamespace, "/nosuch"))},
		{`linux.uidMappings: need a user namespace in linux.namespaces (config-linux.md, User namespace mappings)`, func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }},
		{`linux.devices[0].path: "dev/x" is not an absolute path (config-linux.md, Devices)`, device(specs.LinuxDevice{Path: "dev/x", Type: "c"})},
		{`linux.devices[0] (/dev/x): type "q" is not one of c, u, b, p (config-linux.md, Devices)`, device(specs.LinuxDevice{Path: "/dev/x", Type: "q"})},
		{`linux.devices[0] (/dev/x): number -1:0 is out of range (config-linux.md, Devices)`, device(specs.LinuxDevice{Path: "/dev/x", Type: "c", Major: -1})},
		{`linux.sysctl[kernel.core_pattern]: not a setting of a namespace (config-linux.md, Sysctl)`, sysctl("kernel.core_pattern", "x")},
		{`linux.sysctl[net.ipv4.ip_forward]: needs a network namespace of its own (config-linux.md, Sysctl)`, without(specs.NetworkNamespace, sysctl("net.ipv4.ip_forward", "1"))},
		{`linux.maskedPaths[0]: "proc" is not an absolute path (config-linux.md, Masked Paths)`, func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc"} }},
		{`linux.readonlyPaths[0]: "" is not an absolute path (config-linux.md, Readonly Paths)`, func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{""} }},
		{`linux.rootfsPropagation: "both" is not a propagation (config-linux.md, Rootfs Mount Propagation)`, func(s *specs.Spec) { s.Linux.RootfsPropagation = "both" }},
		{`linux.personality.domain: unknown domain "BSD" (config-linux.md, Personality)`, func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} }},
		{`linux.memoryPolicy.nodes: MPOL_BIND needs at least one node (config-linux.md, Memory policy)`, func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind} }},
		{`linux.seccomp.architectures[0]: "SCMP_ARCH_PDP11" is unknown (config-linux.md, Seccomp)`, func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_PDP11"}}
		}},
		{`linux.netDevices: need a network namespace in linux.namespaces (config-linux.md, Network Devices)`, without(specs.NetworkNamespace, netDevice("eth0", ""))},
		{`linux.netDevices[eth0].name: "a/b" is not the name of an interface (config-linux.md, Network Devices)`, netDevice("eth0", "a/b")},
		// CVE-2021-43784: a name longer than an attribute's length can tell.
		{`linux.netDevices[eth0].name: "sixteen-letters-" is not the name of an interface (config-linux.md, Network Devices)`, netDevice("eth0", "sixteen-letters-")},
		{`linux.netDevices[nosuch]: find interface nosuch: Link not found (config-linux.md, Network Devices)`, netDevice("nosuch", "")},
		{`mounts[7].destination: is missing (config.md, Mounts)`, mounted(specs.Mount{Type: "tmpfs"})},
		{`mounts[7] (/): nothing can be mounted on / (config.md, Mounts)`, mounted(specs.Mount{Destination: "/", Type: "tmpfs"})},
		{`mounts[7] (/x): type is missing (config.md, Mounts)`, mounted(specs.Mount{Destination: "/x"})},
		{`mounts[7] (/x): source is missing: there is nothing to bind (config.md, Mounts)`, mounted(specs.Mount{Destination: "/x", Options: []string{"bind"}})},
		{`mounts[7] (/proc/x): nothing but a file can be mounted below /proc (config.md, Mounts)`, mounted(specs.Mount{Destination: "/proc/x", Type: "tmpfs"})},
		{`mounts[7].options[0]: contains a NUL byte (config.md, Mounts)`, mounted(specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"\x00"}})},
		// What only the kernel can tell.
		{`mounts[7].source: open /nosuch for /x: no such file or directory (config.md, Mounts)`, mounted(specs.Mount{Destination: "/x", Source: "/nosuch", Options: []string{"bind"}})},
		{`mounts[7]: mount nosuchfs /x: no such device (config.md, Mounts)`, mounted(specs.Mount{Destination: "/x", Type: "nosuchfs"})},
		{`mounts[7]: mount tmpfs /x: tmpfs: Unknown parameter 'bogus': invalid argument (config.md, Mounts)`, mounted(specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"bogus"}})},
		{`linux.resources.memory.limit: -7 is neither a number from 0 on nor -1, which is no limit (config-linux.md, Memory)`, func(s *specs.Spec) {
			n := int64(-7)
			s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n}}
		}},
		{`mounts[7]: remount /bin: there is no mount to change (config.md, Mounts)`, mounted(specs.Mount{Destination: "/bin", Options: []string{"remount", "ro"}})},
		{`mounts[7]: bind /bin/sh/x: a directory cannot be mounted on a file (config.md, Mounts)`, mounted(specs.Mount{Destination: "/bin/sh/x", Source: "/", Options: []string{"bind"}})},
		{`process.cwd: make directory /bin/sh: not a directory (config.md, Process)`, inProcess(func(p *specs.Process) { p.Cwd = "/bin/sh" })},
		{`linux.devices[0]: make device /bin/sh/x: not a directory (config-linux.md, Devices)`, device(specs.LinuxDevice{Path: "/bin/sh/x", Type: "c", Major: 1, Minor: 3})},
		{`linux.sysctl["net.ipv4.nosuch"]: set sysctl net/ipv4/nosuch: no such file or directory (config-linux.md, Sysctl)`, sysctl("net.ipv4.nosuch", "1")},
		{`linux.cgroupsPath: "../.." is not the path of a group (config-linux.md, Cgroups Path)`, func(s *specs.Spec) { s.Linux.CgroupsPath = "../.." }},
		{`linux.resources.memory.limit: limit memory cannot be had: 4096 bytes are too few to start a process; give it 2 MiB or more (config-linux.md, Memory)`, func(s *specs.Spec) {
			n := int64(4096)
			s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n}}
		}},
		{`execute nosuch: executable file not found in $PATH`, inProcess(func(p *specs.Process) { p.Args = []string{"nosuch"} })},
	}
}

// Each bundle that is wrong is refused with the field, what is wrong with it,
// and where the specification is about it. Nothing is left of the attempt: no
// directory, no cgroup, no mount, no process, no pid file.
func TestBadBundlesAreRefusedByFieldAndLeaveNothing(t *testing.T) {
	ability.Require(t, ability.Root, ability.Tool("busybox"))
	program := filepath.Join(built.Dir(t), "gantry-oci")
	// Whoever is left of a launch becomes our child.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	example := exampleBundle(t, program, dir)
	for i, c := range badBundles() {
		var spec specs.Spec
		if err := json.Unmarshal(example, &spec); err != nil {
			t.Fatal(err)
		}
		c.edit(&spec)
		config, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "--root", filepath.Join(dir, "state"), "create", "--bundle", dir, "--pid-file", filepath.Join(dir, "pid"), "badbundle")
		// A file: a container that is made after all would keep a pipe open.
		said, err := os.Create(filepath.Join(dir, "said"))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = said
		_ = cmd.Run()
		_ = said.Close()
		got, err := os.ReadFile(said.Name())
		if err != nil {
			t.Fatal(err)
		}
		want := "gantry-oci: error: " + strings.ReplaceAll(c.says, "BUNDLE", dir) + "\n"
		if string(got) != want || cmd.ProcessState.ExitCode() == 0 {
			t.Errorf("%d: status %d\nsaid %swant %s", i, cmd.ProcessState.ExitCode(), got, want)
		}
		if cmd.ProcessState.ExitCode() == 0 {
			_ = exec.Command(program, "--root", filepath.Join(dir, "state"), "delete", "--force", "badbundle").Run()
		}
		leftOf(t, dir, "badbundle", c.says)
	}
}

// exampleBundle makes what the command spec writes, without a terminal.
func exampleBundle(t *testing.T, program, dir string) []byte {
	t.Helper()
	bin := filepath.Join(dir, "rootfs/bin")
	busybox, err := exec.LookPath("busybox")
	if err == nil {
		err = os.MkdirAll(bin, 0o755)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(busybox)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(bin, "sh"), b, 0o755)
	}
	if err == nil {
		err = exec.Command(program, "spec", "--bundle", dir).Run()
	}
	if err == nil {
		b, err = os.ReadFile(filepath.Join(dir, "config.json"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(b, []byte(`"terminal": true`), []byte(`"terminal": false`), 1)
}

// leftOf fails for whatever a container that was never made has left.
func leftOf(t *testing.T, dir, id, of string) {
	t.Helper()
	if entries, _ := os.ReadDir(filepath.Join(dir, "state")); len(entries) > 0 {
		t.Errorf("left of %s: %v", of, entries)
		_ = os.RemoveAll(filepath.Join(dir, "state"))
	}
	if _, err := os.Lstat(filepath.Join(dir, "pid")); err == nil {
		t.Errorf("left of %s: a pid file", of)
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || bytes.Contains(b, []byte(dir)) {
		t.Errorf("left of %s: a mount, or %v", of, err)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("left of %s: process %d, %v", of, pid, err)
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasSuffix(d.Name(), "-"+id) {
			t.Errorf("left of %s: %s", of, name)
		}
		return nil // what vanishes meanwhile is not ours
	})
}
