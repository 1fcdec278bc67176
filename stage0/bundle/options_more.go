// SPDX-License-Identifier: Apache-2.0

package bundle

// Resources are what a user asks of an app's control group beside memory,
// processors and tasks.
type Resources struct {
	CgroupParent     string `json:"cgroupParent,omitempty"`     // --cgroup-parent: a group, from the top of the hierarchy
	CPUPeriod        string `json:"cpuPeriod,omitempty"`        // --cpu-period: µs
	CPUQuota         string `json:"cpuQuota,omitempty"`         // --cpu-quota: µs
	CPURTPeriod      string `json:"cpuRtPeriod,omitempty"`      // --cpu-rt-period: µs
	CPURTRuntime     string `json:"cpuRtRuntime,omitempty"`     // --cpu-rt-runtime: µs
	MemorySwappiness string `json:"memorySwappiness,omitempty"` // --memory-swappiness: 0 to 100; -1 is the system's
	OOMKillDisable   bool   `json:"oomKillDisable,omitempty"`   // --oom-kill-disable
	BlkioWeight      string `json:"blkioWeight,omitempty"`      // --blkio-weight: 10 to 1000

	CgroupConf        []string `json:"cgroupConf,omitempty"`        // --cgroup-conf: FILE=VALUE of cgroup v2
	BlkioWeightDevice []string `json:"blkioWeightDevice,omitempty"` // --blkio-weight-device: DEVICE:WEIGHT
	DeviceReadBps     []string `json:"deviceReadBps,omitempty"`     // --device-read-bps: DEVICE:SIZE
	DeviceWriteBps    []string `json:"deviceWriteBps,omitempty"`    // --device-write-bps
	DeviceReadIOPS    []string `json:"deviceReadIops,omitempty"`    // --device-read-iops: DEVICE:NUMBER
	DeviceWriteIOPS   []string `json:"deviceWriteIops,omitempty"`   // --device-write-iops
}

// Surroundings are what an app finds around it beside files and network.
type Surroundings struct {
	PID         string `json:"pid,omitempty"`         // --pid: private (default) or host
	IPC         string `json:"ipc,omitempty"`         // --ipc: private (default), none or host
	UTS         string `json:"uts,omitempty"`         // --uts: private (default) or host
	CgroupNS    string `json:"cgroupns,omitempty"`    // --cgroupns: private (default) or host
	Umask       string `json:"umask,omitempty"`       // --umask: octal; "" is 0022
	Personality string `json:"personality,omitempty"` // --personality: LINUX or LINUX32
	Timezone    string `json:"timezone,omitempty"`    // --tz: a zone, or local for the host's
	Timeout     uint   `json:"timeout,omitempty"`     // --timeout: seconds until the app is killed; 0 is never

	EnvHost     bool     `json:"envHost,omitempty"`     // --env-host
	HTTPProxy   bool     `json:"httpProxy,omitempty"`   // --http-proxy
	UnsetEnvAll bool     `json:"unsetenvAll,omitempty"` // --unsetenv-all
	EnvMerge    []string `json:"envMerge,omitempty"`    // --env-merge: NAME=text with ${NAME} of the image's
	LabelFiles  []string `json:"labelFiles,omitempty"`  // --label-file: paths
}
