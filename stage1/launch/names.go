// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// capNames are the capabilities by number, capabilities(7).
func capNames() []string {
	return strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
		LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE
		SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
		SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
		WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)
}

// Capability gives the number of a capability named CAP_….
func Capability(name string) (int, bool) {
	short, ok := strings.CutPrefix(name, "CAP_")
	n := slices.Index(capNames(), short)
	return n, ok && n >= 0
}

// capSet gives the bits of capabilities named CAP_….
func capSet(names []string) (uint64, error) {
	var set uint64
	for _, name := range names {
		n, ok := Capability(name)
		if !ok {
			return 0, fmt.Errorf("unknown capability %q", name)
		}
		set |= 1 << n
	}
	return set, nil
}

// rlimitNumber gives the number of a RLIMIT_… name.
func rlimitNumber(name string) (int, bool) {
	for n, known := range strings.Fields(`CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS
		SIGPENDING MSGQUEUE NICE RTPRIO RTTIME`) {
		if name == "RLIMIT_"+known {
			return n, true
		}
	}
	return 0, false
}

// signalNumber reads a signal as people write it: TERM, SIGTERM, 15. It is 0
// for what is not one, and for the realtime signals RTMIN+n gives theirs.
func signalNumber(name string) int {
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= maxSignal {
		return n
	}
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		if n, err := strconv.Atoi("0" + strings.TrimPrefix(rest, "+")); err == nil && n <= 30 {
			return minRealtime + n
		}
		return 0
	}
	return int(unix.SignalNum("SIG" + name))
}

const (
	minRealtime = 34 // what C libraries call SIGRTMIN
	maxSignal   = 64
)
