// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"path"
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
	for _, kv := range b.Options.Sysctls {
		name, value, ok := strings.Cut(kv, "=")
		// Both spellings exist; in the dotted one a slash stands for a dot.
		name = strings.ReplaceAll(name, "/", ".")
		switch {
		case !ok || name == "" || strings.Contains(name, ".."):
			return fmt.Errorf("--sysctl %q: write NAME=VALUE", kv)
		case clean("", value) != nil:
			return fmt.Errorf("--sysctl %q: control characters are not allowed", kv)
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

// security settles seccomp, no_new_privs, masked and read-only paths.
func (b *builder) security() error {
	masked, readOnly := maskedPaths(), readOnlyPaths()
	b.r.Seccomp = "default"
	if p := b.Options.SeccompProfile; p != "" {
		b.r.Seccomp = p
	}
	for _, opt := range b.Options.SecurityOpt {
		key, value, has := strings.Cut(opt, "=")
		if !has {
			key, value, has = strings.Cut(opt, ":") // Docker's older spelling
		}
		switch {
		case key == "seccomp" && value != "":
			b.r.Seccomp = value
		case key == "no-new-privileges" && (!has || value == "true"):
			b.r.Spec.Process.NoNewPrivileges = true
		case key == "no-new-privileges" && value == "false":
			b.r.Spec.Process.NoNewPrivileges = false
		case key == "mask" && value != "":
			paths, err := absolutePaths(opt, value)
			if err != nil {
				return err
			}
			masked = append(masked, paths...)
		case key == "unmask" && value == "ALL":
			masked, readOnly = nil, nil
		case key == "unmask" && value != "":
			paths, err := absolutePaths(opt, value)
			if err != nil {
				return err
			}
			unmask := func(p string) bool { return slices.Contains(paths, p) }
			masked, readOnly = slices.DeleteFunc(masked, unmask), slices.DeleteFunc(readOnly, unmask)
		case opt == "label=disable" || opt == "apparmor=unconfined":
			// We set neither by ourselves.
		default:
			return fmt.Errorf("--security-opt %q is not supported: use seccomp=, no-new-privileges, mask= or unmask=", opt)
		}
	}
	if s := b.r.Seccomp; s != "default" && s != "unconfined" && !path.IsAbs(s) {
		b.r.Seccomp = path.Join(b.Host.Dir, s)
	}
	b.r.Spec.Linux.MaskedPaths, b.r.Spec.Linux.ReadonlyPaths = masked, readOnly
	return nil
}

func absolutePaths(opt, list string) ([]string, error) {
	paths := strings.Split(list, ":")
	for i, p := range paths {
		if !path.IsAbs(p) || clean("", p) != nil {
			return nil, fmt.Errorf("--security-opt %q: %q is not an absolute path", opt, p)
		}
		paths[i] = path.Clean(p)
	}
	return paths, nil
}

// maskedPaths are those of podman and Docker together: they tell of the host
// or reach its hardware.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/dev/block", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux",
	}
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
