// SPDX-License-Identifier: Apache-2.0

package bundle

// Options are what a user asks of one app, as podman spells it. The values
// are kept as they were typed; [Spec] parses them and names the flag in every
// error. The zero value asks for nothing: the image's configuration under the
// defaults of podman.
type Options struct {
	Args       []string `json:"args,omitempty"`       // everything after IMAGE
	Entrypoint *string  `json:"entrypoint,omitempty"` // --entrypoint: a command, or a JSON array; "" clears the image's
	Env        []string `json:"env,omitempty"`        // --env: NAME=VALUE, NAME or NAME* from the caller's environment
	EnvFiles   []string `json:"envFiles,omitempty"`   // --env-file: paths
	UnsetEnv   []string `json:"unsetEnv,omitempty"`   // --unsetenv
	User       string   `json:"user,omitempty"`       // --user: name|uid[:group|gid]
	GroupAdd   []string `json:"groupAdd,omitempty"`   // --group-add
	Workdir    string   `json:"workdir,omitempty"`    // --workdir

	Volumes        []string `json:"volumes,omitempty"`        // --volume: [SOURCE:]DEST[:OPTIONS]
	Mounts         []string `json:"mounts,omitempty"`         // --mount: type=bind|volume|tmpfs|image|devpts,…
	Tmpfs          []string `json:"tmpfs,omitempty"`          // --tmpfs: DEST[:OPTIONS]
	VolumesFrom    []string `json:"volumesFrom,omitempty"`    // --volumes-from: POD[:ro|rw]
	ImageVolume    string   `json:"imageVolume,omitempty"`    // --image-volume: anonymous (default), tmpfs, ignore
	ReadOnly       bool     `json:"readOnly,omitempty"`       // --read-only
	NoReadOnlyTmp  bool     `json:"noReadOnlyTmp,omitempty"`  // --read-only-tmpfs=false
	ShmSize        string   `json:"shmSize,omitempty"`        // --shm-size: 64m
	NoHosts        bool     `json:"noHosts,omitempty"`        // --no-hosts
	AddHosts       []string `json:"addHosts,omitempty"`       // --add-host: NAME:IP
	DNS            []string `json:"dns,omitempty"`            // --dns
	DNSSearch      []string `json:"dnsSearch,omitempty"`      // --dns-search
	DNSOption      []string `json:"dnsOption,omitempty"`      // --dns-option
	Hostname       string   `json:"hostname,omitempty"`       // --hostname
	Net            []string `json:"net,omitempty"`            // --net: none, host, pod:NAME, ns:PATH or networks by name
	IP             string   `json:"ip,omitempty"`             // --ip
	IP6            string   `json:"ip6,omitempty"`            // --ip6
	MAC            string   `json:"mac,omitempty"`            // --mac-address
	Aliases        []string `json:"aliases,omitempty"`        // --network-alias
	Publish        []string `json:"publish,omitempty"`        // --publish: [[HOSTIP:][HOSTPORT]:]PORT[/PROTOCOL]
	PublishAll     bool     `json:"publishAll,omitempty"`     // --publish-all
	Init           bool     `json:"init,omitempty"`           // --init
	TTY            bool     `json:"tty,omitempty"`            // --tty
	Interactive    bool     `json:"interactive,omitempty"`    // --interactive
	StopSignal     string   `json:"stopSignal,omitempty"`     // --stop-signal: TERM, SIGTERM or 15
	StopTimeout    *uint    `json:"stopTimeout,omitempty"`    // --stop-timeout, in seconds; nil is 10
	Labels         []string `json:"labels,omitempty"`         // --label: NAME=VALUE
	Annotations    []string `json:"annotations,omitempty"`    // --annotation: NAME=VALUE
	Privileged     bool     `json:"privileged,omitempty"`     // --privileged: refused, with what to use instead
	CapAdd         []string `json:"capAdd,omitempty"`         // --cap-add: NAME or ALL
	CapDrop        []string `json:"capDrop,omitempty"`        // --cap-drop: NAME or ALL
	SecurityOpt    []string `json:"securityOpt,omitempty"`    // --security-opt: seccomp=unconfined|PATH, no-new-privileges, mask=, unmask=
	Ulimits        []string `json:"ulimits,omitempty"`        // --ulimit: NAME=SOFT[:HARD]
	OOMScoreAdj    *int     `json:"oomScoreAdj,omitempty"`    // --oom-score-adj
	Memory         string   `json:"memory,omitempty"`         // --memory: 64m
	MemorySwap     string   `json:"memorySwap,omitempty"`     // --memory-swap: total of both, -1 is unlimited
	MemoryReserve  string   `json:"memoryReserve,omitempty"`  // --memory-reservation
	CPUs           string   `json:"cpus,omitempty"`           // --cpus: 1.5
	CPUShares      string   `json:"cpuShares,omitempty"`      // --cpu-shares
	CPUSetCPUs     string   `json:"cpusetCpus,omitempty"`     // --cpuset-cpus
	CPUSetMems     string   `json:"cpusetMems,omitempty"`     // --cpuset-mems
	PidsLimit      string   `json:"pidsLimit,omitempty"`      // --pids-limit: -1 is unlimited; "" is 2048
	Sysctls        []string `json:"sysctls,omitempty"`        // --sysctl: NAME=VALUE
	Userns         string   `json:"userns,omitempty"`         // --userns: host (default) or auto[:size=N,uidmapping=C:H:N,gidmapping=C:H:N]
	UIDMaps        []string `json:"uidMaps,omitempty"`        // --uidmap: CONTAINER:HOST[:SIZE]
	GIDMaps        []string `json:"gidMaps,omitempty"`        // --gidmap
	SubUIDName     string   `json:"subUIDName,omitempty"`     // --subuidname: a user of /etc/subuid
	SubGIDName     string   `json:"subGIDName,omitempty"`     // --subgidname: one of /etc/subgid
	SeccompProfile string   `json:"seccompProfile,omitempty"` // --seccomp: default, unconfined or PATH; same as --security-opt seccomp=

	Hardware
	HealthOptions
	Resources
	Surroundings
}
