// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/hint"
)

// Labels are what a host says of its security modules.
type Labels struct {
	AppArmor bool     // it is on
	Profiles []string // those AppArmor has loaded
	Process  string   // SELinux's context of containers' processes
	File     string   // and of their files
}

// secured is what --security-opt came to so far.
type secured struct {
	masked, readOnly []string
	label            map[string]string // parts of an SELinux context
	off              bool              // label=disable
}

// security settles filter, labels, no_new_privs, masked and read-only paths.
func (b *builder) security() error {
	s := &secured{masked: maskedPaths(b.Host.Throttles), readOnly: readOnlyPaths(), label: map[string]string{}}
	b.r.Seccomp = "default"
	if p := b.Options.SeccompProfile; p != "" {
		b.r.Seccomp = p
	}
	for _, opt := range b.Options.SecurityOpt {
		key, value, has := strings.Cut(opt, "=")
		if !has {
			key, value, has = strings.Cut(opt, ":") // Docker's older spelling
		}
		if err := b.secure(s, opt, key, value, has); err != nil {
			return err
		}
	}
	if f := b.r.Seccomp; f != "default" && f != "unconfined" && !path.IsAbs(f) {
		b.r.Seccomp = path.Join(b.Host.Dir, f)
	}
	b.r.Spec.Linux.MaskedPaths, b.r.Spec.Linux.ReadonlyPaths = s.masked, s.readOnly
	return b.selinux(s)
}

func (b *builder) secure(s *secured, opt, key, value string, has bool) error {
	switch {
	case key == "seccomp" && value != "":
		b.r.Seccomp = value
	case key == "no-new-privileges" && (!has || value == "true"):
		b.r.Spec.Process.NoNewPrivileges = true
	case key == "no-new-privileges" && value == "false":
		b.r.Spec.Process.NoNewPrivileges = false
	case (key == "mask" || key == "unmask") && value != "" && value != "ALL":
		return s.paths(opt, key, value)
	case opt == "unmask=ALL" || opt == "unmask:ALL" || opt == "systempaths=unconfined":
		s.masked, s.readOnly = nil, nil
	case key == "apparmor" && value != "":
		return b.apparmor(opt, value)
	case key == "label" && value != "":
		return b.labelPart(s, opt, value)
	case key == "proc-opts" && value != "":
		return b.procOptions(opt, value)
	default:
		return fmt.Errorf("--security-opt %q is not supported: use apparmor=, label=, seccomp=, no-new-privileges, mask=, unmask=, proc-opts= or systempaths=unconfined", opt)
	}
	return nil
}

func (s *secured) paths(opt, key, value string) error {
	paths, err := absolutePaths(opt, value)
	if err != nil {
		return err
	}
	if key == "mask" {
		if slices.Contains(paths, "/") {
			return fmt.Errorf("--security-opt %q: the root cannot be masked", opt)
		}
		s.masked = append(s.masked, paths...)
		return nil
	}
	// What is masked on some hosts only may be unmasked on all.
	known := slices.Concat(maskedPaths([]string{FirstThrottle}), readOnlyPaths(), s.masked)
	for _, p := range paths {
		if !slices.ContainsFunc(known, func(k string) bool { return like(p, k) }) {
			return hint.With(
				fmt.Errorf("--security-opt %q: %s is neither masked nor read-only", opt, p),
				"these are: "+strings.Join(known, " "),
			)
		}
	}
	unmask := func(k string) bool { return slices.ContainsFunc(paths, func(p string) bool { return like(p, k) }) }
	s.masked, s.readOnly = slices.DeleteFunc(s.masked, unmask), slices.DeleteFunc(s.readOnly, unmask)
	return nil
}

// like matches a path with a pattern of shells, as podman does.
func like(pattern, p string) bool {
	ok, err := path.Match(pattern, p)
	return pattern == p || err == nil && ok
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

// apparmor wants a profile that is loaded: whether it is in force is read back
// at launch. We set none by ourselves, so unconfined changes nothing.
func (b *builder) apparmor(opt, profile string) error {
	h := b.Host.Labels
	switch {
	case profile == "unconfined":
		return nil
	case !h.AppArmor:
		return fmt.Errorf("--security-opt %q: AppArmor is off on this host", opt)
	case !slices.Contains(h.Profiles, profile):
		return hint.With(fmt.Errorf("--security-opt %q: AppArmor has no such profile loaded", opt), "load it: apparmor_parser --replace FILE; 'aa-status' lists those that are")
	}
	b.r.Spec.Process.ApparmorProfile = profile
	return nil
}

// labelPart takes one part of an SELinux context.
func (b *builder) labelPart(s *secured, opt, value string) error {
	part, word, ok := strings.Cut(value, ":")
	switch {
	case value == "disable":
		s.off = true
		return nil
	case value == "nested":
		return fmt.Errorf("--security-opt %q is not supported: an app does not label by itself", opt)
	case !ok || word == "" || !slices.Contains([]string{"user", "role", "type", "level", "filetype"}, part) || strings.ContainsAny(word, " \t\n"):
		return fmt.Errorf("--security-opt %q: write label=disable, or label=PART:VALUE with user, role, type, level or filetype", opt)
	case part != "level" && strings.Contains(word, ":"):
		return fmt.Errorf("--security-opt %q: a %s has no colon", opt, part)
	case !b.Host.SELinux:
		return hint.With(fmt.Errorf("--security-opt %q: SELinux is off on this host", opt), "leave it out, or use label=disable")
	}
	s.label[part] = word
	return nil
}

// selinux composes the context of the app, and of the files it is given a file
// system of, from the host's for containers and what was asked for.
func (b *builder) selinux(s *secured) error {
	switch {
	case len(s.label) == 0:
		return nil
	case s.off:
		return fmt.Errorf("--security-opt label=disable and other labels contradict each other")
	case b.r.Spec.Process.ApparmorProfile != "":
		return fmt.Errorf("--security-opt apparmor= and label= exclude each other")
	}
	process, err := context(b.Host.Labels.Process, s.label["user"], s.label["role"], s.label["type"], s.label["level"])
	if err != nil {
		return err
	}
	file, err := context(b.Host.Labels.File, s.label["user"], "", s.label["filetype"], s.label["level"])
	if err != nil {
		return err
	}
	b.r.Spec.Process.SelinuxLabel, b.r.Spec.Linux.MountLabel = process, file
	return nil
}

// context replaces parts of USER:ROLE:TYPE[:LEVEL].
func context(base string, parts ...string) (string, error) {
	f := strings.SplitN(base, ":", 4)
	if len(f) < 3 {
		return "", fmt.Errorf("--security-opt label: this host's policy has no context for containers (contexts/lxc_contexts)")
	}
	for i, p := range parts {
		switch {
		case p == "":
		case i < len(f):
			f[i] = p
		default:
			f = append(f, p)
		}
	}
	return strings.Join(f, ":"), nil
}

// procOptions are of the app's /proc: who sees whose processes.
func (b *builder) procOptions(opt, value string) error {
	i := slices.IndexFunc(b.r.Spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/proc" })
	for word := range strings.SplitSeq(value, ",") {
		key, v, _ := strings.Cut(word, "=")
		_, err := strconv.ParseUint(v, 10, 31)
		good := map[string]bool{
			"hidepid": slices.Contains([]string{"0", "1", "2", "4", "off", "noaccess", "invisible", "ptraceable"}, v),
			"gid":     err == nil,
			"subset":  v == "pid",
		}[key]
		if !good {
			return fmt.Errorf("--security-opt %q: %q is none of hidepid=, gid= and subset=pid", opt, word)
		}
		b.r.Spec.Mounts[i].Options = append(b.r.Spec.Mounts[i].Options, word)
	}
	return nil
}
