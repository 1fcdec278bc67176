// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/pflag"
)

// registerResources adds limits of the control group beside memory,
// processors and tasks.
func (f *runFlags) registerResources(s *pflag.FlagSet) {
	r := &f.Resources
	s.StringVar(&r.CgroupParent, "cgroup-parent", "", "make the app's control group below `GROUP`, a path from the top of the hierarchy")
	s.StringArrayVar(&r.CgroupConf, "cgroup-conf", nil, "write `FILE=VALUE` of cgroup v2, as in memory.high=512M")
	s.StringVar(&r.CPUPeriod, "cpu-period", "", "period of --cpu-quota in `MICROSECONDS` (100000 is normal)")
	s.StringVar(&r.CPUQuota, "cpu-quota", "", "processor time in a period, in `MICROSECONDS`; -1 is no limit")
	s.StringVar(&r.CPURTPeriod, "cpu-rt-period", "", "period of --cpu-rt-runtime in `MICROSECONDS` (cgroup v1)")
	s.StringVar(&r.CPURTRuntime, "cpu-rt-runtime", "", "real-time scheduled time in a period, in `MICROSECONDS` (cgroup v1)")
	s.StringVar(&r.MemorySwappiness, "memory-swappiness", "", "how readily memory is swapped: `N` of 0 to 100 (cgroup v1)")
	s.BoolVar(&r.OOMKillDisable, "oom-kill-disable", false, "have the app wait when its memory runs out, not killed (cgroup v1)")
	s.StringVar(&r.BlkioWeight, "blkio-weight", "", "relative `WEIGHT` of disk time, 10 to 1000")
	s.StringArrayVar(&r.BlkioWeightDevice, "blkio-weight-device", nil, "relative weight on one disk: `DEVICE:WEIGHT`")
	s.StringArrayVar(&r.DeviceReadBps, "device-read-bps", nil, "bytes read a second: `DEVICE:SIZE`")
	s.StringArrayVar(&r.DeviceWriteBps, "device-write-bps", nil, "bytes written a second: `DEVICE:SIZE`")
	s.StringArrayVar(&r.DeviceReadIOPS, "device-read-iops", nil, "reads a second: `DEVICE:NUMBER`")
	s.StringArrayVar(&r.DeviceWriteIOPS, "device-write-iops", nil, "writes a second: `DEVICE:NUMBER`")
	s.StringVar(&f.cgroups, "cgroups", "enabled", "`MODE` enabled, or no-conmon, which here is the same: the supervisor is never in the app's group")
}

// registerSurroundings adds what the app finds around it.
func (f *runFlags) registerSurroundings(s *pflag.FlagSet) {
	o := &f.Surroundings
	s.StringVar(&o.PID, "pid", "", "process `NAMESPACE`: private (default) or host")
	s.StringVar(&o.IPC, "ipc", "", "IPC `NAMESPACE`: private (default), host, or none, which has no /dev/shm")
	s.StringVar(&o.UTS, "uts", "", "hostname `NAMESPACE`: private (default) or host")
	s.StringVar(&o.CgroupNS, "cgroupns", "", "control group `NAMESPACE`: private (default) or host")
	s.StringVar(&o.Umask, "umask", "", "file mode creation mask, `OCTAL` (default 0022)")
	s.StringVar(&o.Personality, "personality", "", "execution `DOMAIN` LINUX or LINUX32")
	s.StringVar(&o.Timezone, "tz", "", "time `ZONE` as in Europe/Berlin, or local for this host's")
	s.UintVar(&o.Timeout, "timeout", 0, "kill the app when it has run for `SECONDS`")
	s.BoolVar(&o.EnvHost, "env-host", false, "pass the whole environment on; what the image sets is stronger")
	s.BoolVar(&o.HTTPProxy, "http-proxy", false, "pass http_proxy, https_proxy, ftp_proxy and no_proxy on")
	s.BoolVar(&o.UnsetEnvAll, "unsetenv-all", false, "begin with no variables, not even the image's")
	s.StringArrayVar(&o.EnvMerge, "env-merge", nil, "set `NAME=TEXT` where ${X} is the image's X, as in PATH=${PATH}:/opt/bin")
	s.StringArrayVar(&o.LabelFiles, "label-file", nil, "label the pod by the lines of `FILE`")
}

// checkMore refuses what is neither the app's nor the image's business.
func (f *runFlags) checkMore() error {
	switch f.cgroups {
	case "enabled", "no-conmon":
		return nil
	case "split":
		return withHint(fmt.Errorf("--cgroups split is not supported"), "in a unit with Delegate=yes gantry divides the unit's group by itself")
	case "disabled":
		return withHint(fmt.Errorf("--cgroups disabled is not supported: an app's group is how all of it is killed"), "leave the option out; where no group can be made, gantry says so and goes on")
	}
	return fmt.Errorf("--cgroups %q: use enabled", f.cgroups)
}

// registerHardware adds the host's devices.
func (f *runFlags) registerHardware(s *pflag.FlagSet) {
	o := &f.Hardware
	s.StringArrayVar(&o.Devices, "device", nil, "give the app a device or a directory of them, `HOST[:PATH][:rwm]`, or VENDOR/CLASS=NAME of a CDI specification")
	s.StringArrayVar(&o.DeviceRules, "device-cgroup-rule", nil, "let the app use devices: `RULE` as in 'c 189:* rwm'")
	s.StringArrayVar(&o.CDIDirs, "cdi-spec-dir", nil, "look for CDI specifications in `DIR` (default /etc/cdi and /var/run/cdi); later ones win")
	s.StringArrayVar(&f.HooksDirs, "hooks-dir", nil, "run the OCI hooks that files of `DIR` ask for (oci-hooks(5)); later ones win")
}
