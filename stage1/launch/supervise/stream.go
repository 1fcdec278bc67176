// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
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
	log      int    // -1: no log
	name     string // stdout or stderr
	pty      bool   // from is a terminal's master, which ends by EIO
	buf      []byte
	pending  []byte // part of buf
	done     bool
	logged   []byte
	gate     func() bool // nil, or tells whether reading is allowed now
}

func (s *supervisor) openStreams() {
	echo := func(fd int) int {
		if s.Echo {
			return fd
		}
		return -1
	}
	if s.Pty >= 0 {
		s.streams = append(s.streams, &stream{from: s.Pty, to: echo(1), log: s.LogFile, name: "stdout", pty: true})
		if s.Raw {
			in := &stream{from: 0, to: s.Pty, log: -1}
			if s.tty != nil {
				in.gate = s.tty.foreground
			}
			s.streams = append(s.streams, in)
		}
	}
	if s.Stdout >= 0 {
		s.streams = append(s.streams, &stream{from: s.Stdout, to: echo(1), log: s.LogFile, name: "stdout"})
	}
	if s.Stderr >= 0 {
		s.streams = append(s.streams, &stream{from: s.Stderr, to: echo(2), log: s.LogFile, name: "stderr"})
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
	case err != nil || n <= 0:
		st.done = true
		return
	}
	if st.log >= 0 {
		st.record(st.buf[:n])
	}
	if st.to >= 0 {
		st.pending = st.buf[:n]
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
		st.done = st.log < 0
	default:
		st.pending = st.pending[n:]
	}
}

// record writes lines in the CRI log format. What has no newline yet is
// written at once and tagged partial, so nothing is ever held back or lost.
func (st *stream) record(b []byte) {
	stamp := time.Now().UTC().AppendFormat(make([]byte, 0, 40), "2006-01-02T15:04:05.000000000Z07:00")
	st.logged = st.logged[:0]
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		st.logged = append(st.logged, stamp...)
		st.logged = append(append(append(st.logged, ' '), st.name...), ' ')
		if whole {
			st.logged = append(st.logged, "F "...)
		} else {
			st.logged = append(st.logged, "P "...)
		}
		st.logged = append(append(st.logged, line...), '\n')
		b = rest
		if len(st.logged) > chunk {
			st.flush()
		}
	}
	st.flush()
}

func (st *stream) flush() {
	for b := st.logged; len(b) > 0; {
		n, err := unix.Write(st.log, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			break // a full disk loses lines, it does not stop the app
		}
		b = b[n:]
	}
	st.logged = st.logged[:0]
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
		if st.done {
			return
		}
		before := st.done
		st.read()
		if len(st.pending) == 0 && st.done == before && !readable(st.from) {
			return
		}
	}
}

// lastWords bounds the wait for the last output of processes being killed.
const lastWords = 2000 // ms

func readable(fd int) bool {
	polls := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(polls, lastWords)
	return err == nil && n > 0
}
