// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/stage1/launch"
)

// inBundle names the field of a bundle that an error of a launch is about. One
// that begins with a field, or is about none, stays as it is.
func inBundle(spec *specs.Spec, err error) error {
	var limit *cgroups.LimitError
	var step *launch.Error
	var source *launch.SourceError
	field := ""
	switch {
	case errors.As(err, &limit):
		if limit.Mend != "" {
			err = fmt.Errorf("%w; %s", err, limit.Mend)
		}
		field = limit.Field()
	case spec == nil: // of an update, which is about limits alone
	case errors.As(err, &source):
		if field = mountField(spec, source.Target); field != "" {
			field += ".source"
		}
	case errors.As(err, &step):
		field = stepField(spec, step)
	}
	if field == "" {
		return err
	}
	return fmt.Errorf("%s: %w", field, err)
}

// stepField finds the field that had gantry-init do a step.
func stepField(spec *specs.Spec, e *launch.Error) string {
	verb, object, _ := strings.Cut(e.Step, " ")
	switch e.Step {
	case "set apparmor label", "read back apparmor label":
		return "process.apparmorProfile"
	case "set selinux label", "read back selinux label":
		return "process.selinuxLabel"
	case "set sysctl":
		return sysctlField(spec, e.Path)
	case "set limit":
		return limitField(spec, e.Path)
	case "set OOM score":
		return "process.oomScoreAdj"
	case "set user":
		return "process.user.uid"
	case "set group":
		return "process.user.gid"
	case "set groups":
		return "process.user.additionalGids"
	case "set capabilities", "drop capabilities":
		return "process.capabilities"
	case "enter working directory":
		return "process.cwd"
	case "set scheduler":
		return "process.scheduler"
	case "set IO priority":
		return "process.ioPriority"
	case "set CPU affinity":
		return "process.execCPUAffinity"
	case "set memory policy":
		return "linux.memoryPolicy"
	case "set host name":
		return "hostname"
	case "set domain name":
		return "domainname"
	case "set personality":
		return "linux.personality"
	case "make device", "bind device":
		return deviceField(spec, e.Path)
	case "mask":
		return pathField("linux.maskedPaths", spec.Linux.MaskedPaths, e.Path)
	case "make read-only":
		return pathField("linux.readonlyPaths", spec.Linux.ReadonlyPaths, e.Path)
	case "make directory":
		if e.Path == path.Clean(spec.Process.Cwd) {
			return "process.cwd"
		}
	}
	if verb == "mount" || verb == "remount" || verb == "bind" || verb == "label" || object == "image content" || strings.HasPrefix(object, "attributes of ") {
		return mountField(spec, e.Path)
	}
	return ""
}

// mountField is the last mount at a place: the one that could not be made comes
// after those that were.
func mountField(spec *specs.Spec, target string) string {
	for i := len(spec.Mounts) - 1; i >= 0; i-- {
		if path.Clean(spec.Mounts[i].Destination) == path.Clean(target) {
			return fmt.Sprintf("mounts[%d]", i)
		}
	}
	return ""
}

func deviceField(spec *specs.Spec, name string) string {
	for i, d := range spec.Linux.Devices {
		if path.Clean(d.Path) == name {
			return fmt.Sprintf("linux.devices[%d]", i)
		}
	}
	return "" // one that every container has
}

func pathField(field string, paths []string, name string) string {
	for i, p := range paths {
		if path.Clean(p) == name {
			return fmt.Sprintf("%s[%d]", field, i)
		}
	}
	return ""
}

func limitField(spec *specs.Spec, kind string) string {
	for i, r := range spec.Process.Rlimits {
		if r.Type == kind {
			return fmt.Sprintf("process.rlimits[%d]", i)
		}
	}
	return ""
}

// sysctlField finds the key among those that are written with dots or slashes.
func sysctlField(spec *specs.Spec, file string) string {
	for key := range spec.Linux.Sysctl {
		if launch.SysctlFile(key) == file {
			return fmt.Sprintf("linux.sysctl[%q]", key)
		}
	}
	return ""
}
