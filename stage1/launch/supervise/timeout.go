// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"time"

	"golang.org/x/sys/unix"
)

// limitTime has the app killed when it has run as long as it may. A stop that
// comes before brings its own, earlier end.
func (s *supervisor) limitTime() {
	if s.Timeout > 0 {
		// From now, a moment after the start: the time of the start is that of a
		// clock which may be set meanwhile.
		s.timeIsUp = time.Now().Add(time.Duration(s.Timeout))
		s.deadline = s.timeIsUp
	}
}

// tellTimeout says in the foreground what otherwise looks like somebody's
// kill -9, unless the end is that of a stop.
func (s *supervisor) tellTimeout() {
	if s.Timeout == 0 || !s.Echo || s.deadline != s.timeIsUp {
		return
	}
	_, _ = unix.Write(2, []byte("gantry: pod "+s.podName()+": killed: it ran longer than --timeout="+time.Duration(s.Timeout).String()+"\n"))
}
