// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	chunk = 16 << 10 // read at once
	// piece is written at once after a poll said there is room: a pipe takes
	// it without blocking.
	piece = 4 << 10
)

// stream copies bytes from one descriptor to another and to the log. It reads
// when nothing is left to write, so a slow reader holds the app back and
// costs no memory.
type stream struct {
	from, to int    // to -1: log only
	log      sink   // nil: no log
	name     string // stdout or stderr
	pty      bool   // from is a terminal's master, which ends by EIO
	buf      []byte
	pending  []byte // part of buf
	done     bool
	held     *journal    // nil, or what has to have room first
	gate     func() bool // nil, or tells whether reading is allowed now

	piped     bool // to is a terminal and from is none
	lineEnded bool // what went there
}

// openLog opens what the log driver says.
func (s *supervisor) openLog() sink {
	switch {
	case s.Journal >= 0:
		s.journal = openJournal(&s.Contract)
		return s.journal
	case s.LogFile >= 0:
		return openLogFile(&s.Contract)
	}
	return nil
}

func (s *supervisor) openStreams() {
	echo := func(fd int) int {
		if s.Echo {
			return fd
		}
		return -1
	}
	log := s.openLog()
	if s.Pty >= 0 {
		s.streams = append(s.streams, &stream{from: s.Pty, to: echo(1), log: log, held: s.journal, name: "stdout", pty: true})
		if s.Raw {
			in := &stream{from: 0, to: s.Pty}
			if s.tty != nil {
				in.gate = s.tty.foreground
			} else {
				in.piped, in.lineEnded = true, true
			}
			s.streams = append(s.streams, in)
		}
	}
	if s.Stdout >= 0 {
		s.streams = append(s.streams, &stream{from: s.Stdout, to: echo(1), log: log, held: s.journal, name: "stdout"})
	}
	if s.Stderr >= 0 {
		s.streams = append(s.streams, &stream{from: s.Stderr, to: echo(2), log: log, held: s.journal, name: "stderr"})
	}
}

// want says what to poll for.
func (st *stream) want() (fd int, events int16) {
	switch {
	case st.done:
		return -1, 0
	case len(st.pending) > 0:
		return st.to, unix.POLLOUT
	case st.gate != nil && !st.gate():
		return -1, 0 // until SIGCONT
	case st.held != nil && st.held.full():
		return -1, 0 // until the journal has room
	}
	return st.from, unix.POLLIN
}

// turn reads or writes once, as want said.
func (st *stream) turn(revents int16) {
	if revents == 0 {
		return
	}
	if len(st.pending) > 0 {
		st.write(piece)
		return
	}
	st.read()
}

func (st *stream) read() {
	if st.buf == nil {
		st.buf = make([]byte, chunk)
	}
	n, err := unix.Read(st.from, st.buf)
	switch {
	case err == unix.EINTR || err == unix.EAGAIN:
		return
	case st.piped && (err != nil || n <= 0):
		st.piped = false // the next time it is over
		st.pending = endOfInput(st.to, st.lineEnded)
		return
	case err != nil || n <= 0:
		st.done = true
		if st.log != nil {
			st.log.last(st)
		}
		return
	}
	if st.log != nil {
		st.log.record(st, st.buf[:n])
	}
	if st.to >= 0 {
		st.pending = st.buf[:n]
		st.lineEnded = st.buf[n-1] == '\n'
	}
}

// write writes at most limit bytes of what is pending.
func (st *stream) write(limit int) {
	n, err := unix.Write(st.to, st.pending[:min(len(st.pending), limit)])
	switch {
	case err == unix.EINTR || err == unix.EAGAIN:
	case err != nil:
		// Whoever read it is gone; the app goes on, its log too.
		st.to, st.pending = -1, nil
		st.done = st.log == nil
	default:
		st.pending = st.pending[n:]
	}
}

// drain copies what is left after the app ended.
func (st *stream) drain() {
	if st.from == 0 {
		return
	}
	_ = unix.SetNonblock(st.from, true)
	for !st.done {
		for len(st.pending) > 0 {
			st.write(len(st.pending))
		}
		if st.held != nil {
			st.held.drain()
		}
		if st.done {
			break
		}
		st.read()
		if len(st.pending) == 0 && !st.done && !readableWithin(st.from, lastWords) {
			break
		}
	}
	if st.log != nil && !st.done {
		st.log.last(st)
	}
	if st.held != nil {
		st.held.drain()
	}
}

// lastWords bounds the wait for the last output of processes being killed.
const lastWords = 2 * time.Second
