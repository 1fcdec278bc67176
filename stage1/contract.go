// SPDX-License-Identifier: Apache-2.0

package stage1

// SupervisorVersion is raised whenever an older gantry-stage1 would misread a
// contract.
const SupervisorVersion = 4

// Log drivers.
const (
	LogPassthrough = "passthrough" // the app has the caller's descriptors
	LogToFile      = "file"        // Path, in CRI log format
	LogJournal     = "journald"    // systemd's journal, by its native protocol
	LogNone        = "none"        // /dev/null
)

// JournalSocket is where journald listens for entries.
const JournalSocket = "/run/systemd/journal/socket"

// Log says where the output of an app goes.
type Log struct {
	Driver   string `json:"driver"`
	Path     string `json:"path,omitempty"`     // of driver file
	Name     string `json:"name,omitempty"`     // that, in its directory
	MaxSize  int64  `json:"maxSize,omitempty"`  // of driver file: bytes of one; 0 is no bound
	MaxFiles int    `json:"maxFiles,omitempty"` // that are kept, at least 1 with a bound
	Fields   string `json:"fields,omitempty"`   // of driver journald: what every entry begins with
}

// Contract is what gantry-stage1 reads from the memory file whose number is
// its first argument. All descriptors are numbers in its own table; -1 is
// none. What is not named here is closed.
type Contract struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	App     string `json:"app,omitempty"`
	Pid     int    `json:"pid"`
	Start   uint64 `json:"start"`
	Boot    string `json:"boot"`
	Started int64  `json:"started"`

	Pidfd   int `json:"pidfd"`   // of the app
	Lock    int `json:"lock"`    // the pod directory, locked
	Pods    int `json:"pods"`    // directory of the phases; -1 for an exec
	Control int `json:"control"` // listening control socket
	Pty     int `json:"pty"`     // master of the app's terminal
	Stdin   int `json:"stdin"`   // write end of the app's stdin when we copy it
	Stdout  int `json:"stdout"`  // read ends of the app's output when we log it
	Stderr  int `json:"stderr"`
	LogFile int `json:"logFile"`
	LogDir  int `json:"logDir"`  // of LogFile, when it has a bound
	Journal int `json:"journal"` // connected to journald
	Log     Log `json:"log"`

	Phase       string   `json:"phase,omitempty"` // where below Pods the pod directory is
	Cgroups     []string `json:"cgroups,omitempty"`
	CgroupV2    bool     `json:"cgroupV2,omitempty"`
	Orphans     bool     `json:"orphans,omitempty"` // the app has neither a group nor a pid namespace: the kernel gives us what it leaves
	NameLink    string   `json:"nameLink,omitempty"`
	PidFile     string   `json:"pidFile,omitempty"`
	Remove      bool     `json:"remove,omitempty"`
	Raw         bool     `json:"raw,omitempty"`      // our stdin goes to the app's terminal; if it is one, in raw mode
	Echo        bool     `json:"echo,omitempty"`     // log driver file: also copy output to our own stdout and stderr
	NoSignal    bool     `json:"noSignal,omitempty"` // end with status 128+n, not by the signal the app died by
	StopSignal  int      `json:"stopSignal,omitempty"`
	StopTimeout int64    `json:"stopTimeout,omitempty"` // ns
	Timeout     int64    `json:"timeout,omitempty"`     // ns the app may run; 0 is no bound

	Poststop  []Hook `json:"poststop,omitempty"`  // run when nothing of the app is left
	HookState string `json:"hookState,omitempty"` // what they read: JSON

	Probe      []string `json:"probe,omitempty"`      // a program, by its path and arguments, that probes the app's health
	ProbeEvery int64    `json:"probeEvery,omitempty"` // ns after the start, and after the end of a probe

	Forward []Forward `json:"forward,omitempty"`
	Table   int       `json:"table,omitempty"`   // socket that owns the pod's nftables table
	Drop    []byte    `json:"drop,omitempty"`    // sent over it when the app has ended; empty: there is no table
	Links   []byte    `json:"links,omitempty"`   // messages of rtnetlink that delete the host's ends of its interfaces, sent at the end if another pod lives in its network
	Lender  int       `json:"lender,omitempty"`  // pidfd of the app whose pod's network this one has joined
	Lent    []byte    `json:"lent,omitempty"`    // Links of that pod, sent when it has ended; empty: there is none
	Helper  int       `json:"helper,omitempty"`  // pidfd of a child of ours that carries the pod's packets, killed and waited for at the end
	Held    []int     `json:"held,omitempty"`    // only stay open: what the kernel gives up with them is the pod's
	Unlink  []string  `json:"unlink,omitempty"`  // files of the host that are removed at the end: leases
	Hosts   []Hosts   `json:"hosts,omitempty"`   // networks whose pods are told that this one has ended
	Release []string  `json:"release,omitempty"` // a program, by its path and arguments, that is run and waited for at the end
}

// Hosts is a network whose pods know each other by their hosts files.
type Hosts struct {
	Network string `json:"network"`
	Members string `json:"members"` // directory with a file for each
}

// Forward is a published port of the host that is bound, and where in the pod
// the supervisor carries what arrives there.
type Forward struct {
	FD      int    `json:"fd"` // listening, or a bound UDP socket that is told for which address a datagram was
	UDP     bool   `json:"udp,omitempty"`
	Address []byte `json:"address"` // 4 or 16 bytes
	Port    int    `json:"port"`
}
