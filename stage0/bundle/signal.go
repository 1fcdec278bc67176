// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ParseSignal reads TERM, SIGTERM, sigterm, 15 or RTMIN+3 and returns the
// name of the signal, or SIGRTMIN+n.
func ParseSignal(s string) (string, error) {
	n, err := SignalNumber(s)
	if err != nil {
		return "", err
	}
	return SignalName(n), nil
}

// The real-time signals as C libraries count them: the kernel's first two
// are theirs.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// SignalNumber reads a signal as people write it.
func SignalNumber(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, fmt.Errorf("signal %q: numbers go from 1 to %d", s, sigRTMax)
		}
		return n, nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	for prefix, base := range map[string]int{"SIGRTMIN": sigRTMin, "SIGRTMAX": sigRTMax} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		offset := 0
		if rest != "" {
			var err error
			if offset, err = strconv.Atoi(rest); err != nil || rest[0] != '+' && rest[0] != '-' {
				continue
			}
		}
		if n := base + offset; n >= sigRTMin && n <= sigRTMax {
			return n, nil
		}
	}
	return 0, fmt.Errorf("signal %q: there is none of that name", s)
}

// SignalName names a signal: SIGTERM, SIGRTMIN+3.
func SignalName(n int) string {
	if name := unix.SignalName(unix.Signal(n)); name != "" {
		return name
	}
	if n >= sigRTMin && n <= sigRTMax {
		if n == sigRTMin {
			return "SIGRTMIN"
		}
		return "SIGRTMIN+" + strconv.Itoa(n-sigRTMin)
	}
	return strconv.Itoa(n)
}
