// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"strings"
)

// sections are where runtime-spec is about a field: the longest name that an
// error begins with decides.
func sections() [][2]string {
	return [][2]string{
		{"ociVersion", "config.md, Specification version"},
		{"root", "config.md, Root"},
		{"mounts", "config.md, Mounts"},
		{"process", "config.md, Process"},
		{"process.rlimits", "config.md, POSIX process"},
		{"process.user", "config.md, POSIX-platform User"},
		{"process.apparmorProfile", "config.md, Linux Process"},
		{"process.capabilities", "config.md, Linux Process"},
		{"process.execCPUAffinity", "config.md, Linux Process"},
		{"process.ioPriority", "config.md, Linux Process"},
		{"process.oomScoreAdj", "config.md, Linux Process"},
		{"process.scheduler", "config.md, Linux Process"},
		{"process.selinuxLabel", "config.md, Linux Process"},
		{"hostname", "config.md, Hostname"},
		{"domainname", "config.md, Domainname"},
		{"hooks", "config.md, POSIX-platform Hooks"},
		{"annotations", "config.md, Annotations"},
		{"linux", "config.md, Platform-specific configuration"},
		{"linux.namespaces", "config-linux.md, Namespaces"},
		{"linux.uidMappings", "config-linux.md, User namespace mappings"},
		{"linux.gidMappings", "config-linux.md, User namespace mappings"},
		{"linux.timeOffsets", "config-linux.md, Offset for Time Namespace"},
		{"linux.devices", "config-linux.md, Devices"},
		{"linux.netDevices", "config-linux.md, Network Devices"},
		{"linux.cgroupsPath", "config-linux.md, Cgroups Path"},
		{"linux.resources", "config-linux.md, Control groups"},
		{"linux.resources.devices", "config-linux.md, Allowed Device list"},
		{"linux.resources.memory", "config-linux.md, Memory"},
		{"linux.resources.cpu", "config-linux.md, CPU"},
		{"linux.resources.blockIO", "config-linux.md, Block IO"},
		{"linux.resources.hugepageLimits", "config-linux.md, Huge page limits"},
		{"linux.resources.network", "config-linux.md, Network"},
		{"linux.resources.pids", "config-linux.md, PIDs"},
		{"linux.resources.rdma", "config-linux.md, RDMA"},
		{"linux.resources.unified", "config-linux.md, Unified"},
		{"linux.intelRdt", "config-linux.md, IntelRdt"},
		{"linux.memoryPolicy", "config-linux.md, Memory policy"},
		{"linux.sysctl", "config-linux.md, Sysctl"},
		{"linux.seccomp", "config-linux.md, Seccomp"},
		{"linux.rootfsPropagation", "config-linux.md, Rootfs Mount Propagation"},
		{"linux.maskedPaths", "config-linux.md, Masked Paths"},
		{"linux.readonlyPaths", "config-linux.md, Readonly Paths"},
		{"linux.mountLabel", "config-linux.md, Mount Label"},
		{"linux.personality", "config-linux.md, Personality"},
	}
}

// InSection adds to an error about a field of a bundle the section of
// runtime-spec that is about it. Others stay as they are.
func InSection(err error) error {
	if err == nil {
		return nil
	}
	text, field, section := err.Error(), "", ""
	for _, s := range sections() {
		rest, ok := strings.CutPrefix(text, s[0])
		if ok && len(s[0]) > len(field) && rest != "" && strings.ContainsRune(":.[ ", rune(rest[0])) {
			field, section = s[0], s[1]
		}
	}
	name, _, _ := strings.Cut(text, ": ")
	ran := field == "hooks" && strings.HasSuffix(name, "]") // nothing is wrong with what is said of it
	if section == "" || ran || strings.Contains(text, "(config") {
		return err
	}
	return fmt.Errorf("%w (%s)", err, section)
}
