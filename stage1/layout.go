// SPDX-License-Identifier: Apache-2.0

package stage1

// Names inside a pod directory, and of the phases the supervisor moves it to.
const (
	AppsDir     = "apps" // one directory per app
	ConfigFile  = "config.json"
	StatusFile  = "status"       // below apps/<app>: Status
	LogFile     = "log"          // below apps/<app>: CRI log format
	ControlFile = "control"      // SEQPACKET socket of the supervisor
	StartFile   = "start"        // SEQPACKET socket of an app that waits for its start
	RuntimeFile = "runtime.json" // Runtime, written before the app starts
	JoinedFile  = "joined"       // is there when another pod has joined the network

	PhaseRun     = "run"
	PhaseExited  = "exited"
	PhaseGarbage = "garbage"
)

// StatusVersion and RuntimeVersion are the versions of the files' formats.
const (
	StatusVersion  = 1
	RuntimeVersion = 1
)

// Status is apps/<app>/status: written when the app was started and replaced
// when it ended.
type Status struct {
	Version  int    `json:"version"`
	Pid      int    `json:"pid"`                // in the supervisor's pid namespace
	Start    uint64 `json:"start"`              // start time of Pid in clock ticks since boot: with Pid its identity
	Boot     string `json:"boot"`               // boot id Pid and Start belong to
	Started  int64  `json:"started"`            // ns since 1970
	Finished int64  `json:"finished,omitempty"` // 0 while running
	Exit     *Exit  `json:"exit,omitempty"`
}

// Exit is how an app ended.
type Exit struct {
	Code   int  `json:"code"`             // exit status; 128+n if Signal is set
	Signal int  `json:"signal,omitempty"` // the signal it died by
	OOM    bool `json:"oom,omitempty"`    // the kernel killed a process of the app for memory
}

// Runtime is runtime.json: what destroying the pod needs, recorded before any
// of it is made.
type Runtime struct {
	Version    int      `json:"version"`
	Supervisor int      `json:"supervisor"` // pid; identified by the pod's lock
	Cgroups    []string `json:"cgroups"`    // directories to kill and remove, deepest first; some may never have been made
	NameLink   string   `json:"nameLink,omitempty"`
	Remove     bool     `json:"remove,omitempty"` // the pod directory goes when the app ends
}
