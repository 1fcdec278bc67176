// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/gantryrun/gantry/seccomp"
)

// Features is what a plan can be made of (features.md, features-linux.md). It
// tells of this program, not of the kernel it runs on. An empty list is not a
// nil one: nothing is known, rather than not known.
func Features() *features.Features {
	yes, no := new(bool), new(bool)
	*yes = true
	var capabilities []string
	for _, name := range capNames() {
		capabilities = append(capabilities, "CAP_"+name)
	}
	return &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         knownHooks(),
		MountOptions:  knownMountOptions(),
		Linux: &features.Linux{
			Namespaces:      knownNamespaces(),
			Capabilities:    capabilities,
			Cgroup:          &features.Cgroup{V1: yes, V2: yes, Systemd: yes, SystemdUser: no, Rdma: yes},
			Seccomp:         knownSeccomp(),
			Apparmor:        &features.Apparmor{Enabled: yes},
			Selinux:         &features.Selinux{Enabled: yes},
			MemoryPolicy:    knownMemoryPolicy(),
			IntelRdt:        &features.IntelRdt{Enabled: yes, Schemata: yes, Monitoring: yes},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: yes}},
			NetDevices:      &features.NetDevices{Enabled: yes},
		},
	}
}

func knownNamespaces() []string {
	var out []string
	for _, t := range []specs.LinuxNamespaceType{
		specs.CgroupNamespace, specs.IPCNamespace, specs.MountNamespace, specs.NetworkNamespace,
		specs.PIDNamespace, specs.TimeNamespace, specs.UserNamespace, specs.UTSNamespace,
	} {
		if _, err := namespaceKind("", t); err == nil {
			out = append(out, string(t))
		}
	}
	return out
}

func knownHooks() []string {
	var out []string
	for _, l := range hookLists(&specs.Hooks{}) {
		out = append(out, l.kind)
	}
	return out
}

func knownMemoryPolicy() *features.MemoryPolicy {
	m := &features.MemoryPolicy{}
	for _, mode := range memoryModes() {
		m.Modes = append(m.Modes, string(mode))
	}
	for _, flag := range []specs.MemoryPolicyFlagType{specs.MpolFNumaBalancing, specs.MpolFRelativeNodes, specs.MpolFStaticNodes} {
		if _, ok := memoryFlag(flag); ok {
			m.Flags = append(m.Flags, string(flag))
		}
	}
	return m
}

func knownSeccomp() *features.Seccomp {
	enabled := true
	s := &features.Seccomp{Enabled: &enabled}
	actions, operators, archs := seccomp.Known()
	for _, a := range actions {
		s.Actions = append(s.Actions, string(a))
	}
	for _, o := range operators {
		s.Operators = append(s.Operators, string(o))
	}
	for _, a := range archs {
		s.Archs = append(s.Archs, string(a))
	}
	for _, f := range seccomp.KnownFlags() {
		s.KnownFlags = append(s.KnownFlags, string(f))
		if seccomp.FlagSupported(f) { // the one thing here that the kernel is asked for
			s.SupportedFlags = append(s.SupportedFlags, string(f))
		}
	}
	return s
}

// knownMountOptions are the words parseMountOptions takes for itself. Others
// go to the file system.
func knownMountOptions() []string {
	attributes := []string{
		"atime", "dev", "diratime", "exec", "noatime", "nodev", "nodiratime", "noexec", "norelatime", "nostrictatime",
		"nosuid", "nosymfollow", "relatime", "ro", "rw", "strictatime", "suid", "symfollow",
	}
	out := []string{
		"async", "bind", "copyup", "defaults", "dirsync", "idmap", "iversion", "lazytime", "loud", "mand", "nodirsync", "noiversion", "nolazytime", "nomand",
		"private", "rbind", "ridmap", "rprivate", "rshared", "rslave", "runbindable", "shared", "silent", "slave", "sync", "remount", "tmpcopyup", "unbindable", "yield",
	}
	for _, word := range attributes {
		out = append(out, word, "r"+word)
	}
	slices.Sort(out)
	return out
}
