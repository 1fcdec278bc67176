// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultCapabilities are podman's: Docker's without AUDIT_WRITE, MKNOD and
// NET_RAW, which an app has to ask for (CVE-2020-10749).
func DefaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
		"CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
		"CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// AllCapabilities are those of Linux 6.18, in the order of their numbers.
func AllCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
		"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
		"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
		"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
		"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
		"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
		"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
		"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
}

// capabilities gives root the whole set, and another user only what was asked
// for by name, as ambient capabilities: the way podman does. Inheritable ones
// exist only where ambient ones need them (CVE-2022-29162).
func (b *builder) capabilities() error {
	set, err := b.capabilitySet(DefaultCapabilities())
	if err != nil {
		return err
	}
	caps := &specs.LinuxCapabilities{Bounding: set}
	if b.root {
		caps.Effective, caps.Permitted = set, set
	} else {
		added, err := b.capabilitySet(nil)
		if err != nil {
			return err
		}
		caps.Effective, caps.Permitted, caps.Inheritable, caps.Ambient = added, added, added, added
	}
	b.r.Spec.Process.Capabilities = caps
	return nil
}

// capabilitySet applies --cap-add and --cap-drop to a set. ALL comes first,
// so that "ALL but one" and "none but one" can both be said.
func (b *builder) capabilitySet(base []string) ([]string, error) {
	add, addAll, err := parseCapabilities("--cap-add", b.Options.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, dropAll, err := parseCapabilities("--cap-drop", b.Options.CapDrop)
	if err != nil {
		return nil, err
	}
	for _, c := range add {
		if slices.Contains(drop, c) {
			return nil, fmt.Errorf("%s is both in --cap-add and in --cap-drop", c)
		}
		if !b.given(c) {
			return nil, fmt.Errorf("--cap-add %s: we do not have it here ourselves", c)
		}
	}
	if addAll && dropAll {
		return nil, fmt.Errorf("--cap-add ALL and --cap-drop ALL contradict each other")
	}
	set := base
	switch {
	case addAll:
		set = AllCapabilities()
	case dropAll:
		set = nil
	}
	out := []string{}
	for _, c := range AllCapabilities() {
		wanted := slices.Contains(set, c) && !slices.Contains(drop, c) || slices.Contains(add, c)
		if wanted && b.given(c) {
			out = append(out, c)
		}
	}
	return out, nil
}

// given says whether we have a capability to give.
func (b *builder) given(c string) bool {
	return b.Host.Capabilities == nil || slices.Contains(b.Host.Capabilities, c)
}

// parseCapabilities reads NAME, CAP_NAME, any case, comma-separated, or ALL.
func parseCapabilities(flag string, values []string) (caps []string, all bool, err error) {
	for _, v := range values {
		for c := range strings.SplitSeq(v, ",") {
			name := strings.ToUpper(strings.TrimSpace(c))
			if name == "ALL" || name == "CAP_ALL" {
				all = true
				continue
			}
			if !strings.HasPrefix(name, "CAP_") {
				name = "CAP_" + name
			}
			if !slices.Contains(AllCapabilities(), name) {
				return nil, false, fmt.Errorf("%s %q: there is no such capability", flag, c)
			}
			caps = append(caps, name)
		}
	}
	return caps, all, nil
}
