// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/hint"
)

// modes settles which namespaces are the pod's own.
func (b *builder) modes() error {
	for _, m := range []struct {
		flag, mode string
		to         *bool
		more       []string
	}{
		{"--pid", b.Options.PID, &b.hostPID, nil},
		{"--ipc", b.Options.IPC, &b.hostIPC, []string{"none"}},
		{"--uts", b.Options.UTS, &b.hostUTS, nil},
		{"--cgroupns", b.Options.CgroupNS, &b.hostCgroup, nil},
	} {
		switch {
		case m.mode == "" || m.mode == "private" || slices.Contains(m.more, m.mode):
		case m.mode == "host":
			*m.to = true
		default:
			return hint.With(
				fmt.Errorf("%s %q is not supported: use %s", m.flag, m.mode, strings.Join(append([]string{"private", "host"}, m.more...), " or ")),
				"what shares namespaces is a pod: several apps in one pod are not supported yet",
			)
		}
	}
	switch o := b.Options; {
	case b.hostPID && o.Init:
		return fmt.Errorf("--init and --pid host contradict each other: the host has a process 1")
	case b.hostUTS && o.Hostname != "":
		return fmt.Errorf("--hostname and --uts host contradict each other: it would be the host's")
	case o.ShmSize != "" && (b.hostIPC || o.IPC == "none"):
		return fmt.Errorf("--shm-size and --ipc %s contradict each other", o.IPC)
	}
	return nil
}

// namespaces are those the pod gets.
func (b *builder) namespaces() []specs.LinuxNamespace {
	var out []specs.LinuxNamespace
	for _, ns := range []struct {
		kind specs.LinuxNamespaceType
		host bool
	}{
		{specs.PIDNamespace, b.hostPID},
		{specs.IPCNamespace, b.hostIPC},
		{specs.UTSNamespace, b.hostUTS},
		{specs.MountNamespace, false},
		{specs.CgroupNamespace, b.hostCgroup},
		{specs.NetworkNamespace, b.host},
	} {
		if !ns.host {
			out = append(out, specs.LinuxNamespace{Type: ns.kind})
		}
	}
	return out
}

// ipcMounts changes /dev/shm and /dev/mqueue for another --ipc than private.
func (b *builder) ipcMounts(m []specs.Mount) []specs.Mount {
	i := slices.IndexFunc(m, func(m specs.Mount) bool { return m.Destination == "/dev/shm" })
	switch {
	case b.hostIPC:
		m[i] = specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"bind", "nosuid", "nodev", "noexec", "rprivate"}}
		return b.hostQueues(m)
	case b.Options.IPC == "none":
		return slices.Delete(m, i, i+1)
	}
	return m
}

// hostQueues binds the host's message queues where a user namespace may not
// mount them, as they are not its own; a host that has them nowhere has none to
// bind.
func (b *builder) hostQueues(m []specs.Mount) []specs.Mount {
	if n, err := ParseUserns(b.Options); b.Host.Own == nil && (err != nil || n.Host()) {
		return m
	}
	i := slices.IndexFunc(m, func(m specs.Mount) bool { return m.Destination == "/dev/mqueue" })
	if !b.Host.Queues {
		return slices.Delete(m, i, i+1)
	}
	m[i] = specs.Mount{Destination: "/dev/mqueue", Type: "bind", Source: "/dev/mqueue", Options: []string{"bind", "nosuid", "nodev", "noexec", "rprivate"}}
	return m
}

// zone is the file that tells programs the time of day.
func (b *builder) zone() error {
	name := b.Options.Timezone
	if name == "" {
		return nil
	}
	if len(b.Host.Zone) < 4 || string(b.Host.Zone[:4]) != "TZif" {
		return fmt.Errorf("--tz %q: this host's file of it is no time zone", name)
	}
	b.r.Files["localtime"] = b.Host.Zone
	return nil
}

// ZoneFile is the host's file of a time zone. Zones are named below one
// directory, of which nothing leads out.
func ZoneFile(name string) (string, error) {
	if name == "local" {
		return "/etc/localtime", nil
	}
	if !fine(name) || path.IsAbs(name) || path.Clean(name) != name || strings.HasPrefix(name, "..") {
		return "", fmt.Errorf("--tz %q: write a zone, as in Europe/Berlin, or local", name)
	}
	return path.Join("/usr/share/zoneinfo", name), nil
}

// fine tells whether every character may be in the name of a zone.
func fine(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-/.") == ""
}

func (b *builder) umask() (uint32, error) {
	s := b.Options.Umask
	if s == "" {
		return 0o22, nil
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("--umask %q: write it in octal, 0000 to 0777", s)
	}
	return uint32(n), nil
}

func (b *builder) personality() error {
	switch p := b.Options.Personality; p {
	case "":
	case "LINUX", "LINUX32":
		b.r.Spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.LinuxPersonalityDomain(p)}
	default:
		return fmt.Errorf("--personality %q: use LINUX or LINUX32", p)
	}
	return nil
}

// proxies are the variables of --http-proxy.
func proxies() []string {
	return []string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"}
}

// callersEnvironment comes before the image's, which wins: only what the user
// names one by one is stronger.
func (b *builder) callersEnvironment(env *environ) {
	for _, kv := range b.Host.Environ {
		name, value, ok := strings.Cut(kv, "=")
		if ok && name != "" && (b.Options.EnvHost || b.Options.HTTPProxy && slices.Contains(proxies(), name)) {
			env.set(name, value)
		}
	}
}

// mergeEnv sets variables from those before: PATH=${PATH}:/more.
func (b *builder) mergeEnv(env *environ) error {
	for _, kv := range b.Options.EnvMerge {
		name, value, ok := strings.Cut(kv, "=")
		if !ok {
			return fmt.Errorf("--env-merge %q: write NAME=TEXT, as in PATH=${PATH}:/opt/bin", kv)
		}
		value = os.Expand(value, func(n string) string { return env.values[n] })
		if err := setEnv(env, "--env-merge", name+"="+value, nil); err != nil {
			return err
		}
	}
	return nil
}

// labelFiles are labels of files, a line each, before those of --label.
func (b *builder) labelFiles() ([]string, error) {
	var out []string
	for i, file := range b.Host.LabelFiles {
		for n, line := range strings.Split(string(file), "\n") {
			line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
			if line == "" || line[0] == '#' {
				continue
			}
			if line[0] == '=' {
				return nil, fmt.Errorf("--label-file %s:%d: %q: write NAME=VALUE", b.Options.LabelFiles[i], n+1, line)
			}
			out = append(out, line)
		}
	}
	return out, nil
}
