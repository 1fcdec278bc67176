// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// linux sets namespaces, sysctls and propagation.
func (b *builder) linux() error {
	l := b.r.Spec.Linux
	l.Namespaces = b.namespaces()
	l.RootfsPropagation = "rprivate"
	for _, m := range b.r.Spec.Mounts {
		switch {
		case slices.Contains(m.Options, "rshared") || slices.Contains(m.Options, "shared"):
			l.RootfsPropagation = "rshared"
		case l.RootfsPropagation != "rshared" && (slices.Contains(m.Options, "rslave") || slices.Contains(m.Options, "slave")):
			l.RootfsPropagation = "rslave"
		}
	}
	return b.sysctls()
}

// sysctls allows those that a namespace of the pod's own confines; anything
// else would set the host's (CVE-2022-0532, CVE-2022-0811).
func (b *builder) sysctls() error {
	if b.networked {
		// As podman and Docker have it: ping works without a capability.
		b.r.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ping_group_range": "0 0"}
	}
	for _, kv := range b.Options.Sysctls {
		name, value, ok := strings.Cut(kv, "=")
		// Both spellings exist; in the dotted one a slash stands for a dot.
		name = strings.ReplaceAll(name, "/", ".")
		switch {
		case !ok || name == "" || strings.Contains(name, ".."):
			return fmt.Errorf("--sysctl %q: write NAME=VALUE", kv)
		case clean("", value) != nil:
			return fmt.Errorf("--sysctl %q: control characters are not allowed", kv)
		case strings.HasPrefix(name, "net.") && b.joined:
			return fmt.Errorf("--sysctl %q: the pod's network is another's, who would have it, too", kv)
		case strings.HasPrefix(name, "net.") && b.host:
			return fmt.Errorf("--sysctl %q: with --net=host it would be the host's", kv)
		case !strings.HasPrefix(name, "net.") && b.hostIPC:
			return fmt.Errorf("--sysctl %q: with --ipc=host it would be the host's", kv)
		case !strings.HasPrefix(name, "net.") && !strings.HasPrefix(name, "fs.mqueue.") && !slices.Contains(ipcSysctls(), name):
			return fmt.Errorf("--sysctl %q: it is not a pod's own: net.*, fs.mqueue.* and those of System V IPC are", kv)
		}
		if b.r.Spec.Linux.Sysctl == nil {
			b.r.Spec.Linux.Sysctl = map[string]string{}
		}
		b.r.Spec.Linux.Sysctl[name] = value
	}
	return nil
}

func ipcSysctls() []string {
	return []string{
		"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
		"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
	}
}

// FirstThrottle is the one of the first processor, and is missing where no
// processor has any.
const FirstThrottle = "/sys/devices/system/cpu/cpu0/thermal_throttle"

// maskedPaths are those of podman and Docker together: they tell of the host
// or reach its hardware. What is done elsewhere can be told from a processor's
// heat (GHSA-6fw5-f8r9-fgfm).
func maskedPaths(throttles []string) []string {
	return append([]string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/dev/block", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux",
	}, throttles...)
}

func readOnlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// deviceRules let the app use the devices the specification gives it, and
// make nodes it then cannot open.
func deviceRules() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "b", Access: "m"},
	}
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}} { // null zero full random urandom tty ptmx
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &d[0], Minor: &d[1], Access: "rwm"})
	}
	pts := int64(136)
	return append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &pts, Access: "rwm"})
}
