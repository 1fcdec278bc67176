// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

const (
	// maxEntry is the longest line that is one entry; a longer one is several,
	// all but the last marked as partial.
	maxEntry = 512 << 10
	// journalPatience is how long a journal without room holds the app back.
	// Then what it does not take is lost, and the number of lines is noted.
	journalPatience = 5 * time.Second
)

// journal sends lines to systemd-journald by its native protocol.
type journal struct {
	fd     int    // connected
	fields []byte // of every entry
	queue  [][]byte
	until  time.Time // when the first of the queue is given up; zero: there is room
	lost   int
	lines  map[string][]byte // what has no newline yet, by stream
}

func openJournal(c *stage1.Contract) *journal {
	_ = unix.SetNonblock(c.Journal, true)
	return &journal{fd: c.Journal, fields: []byte(c.Log.Fields), lines: map[string][]byte{}}
}

// record makes an entry of each line.
func (j *journal) record(st *stream, b []byte) {
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		held := append(j.lines[st.name], line...)
		for len(held) > maxEntry {
			j.entry(st.name, held[:maxEntry], true)
			held = held[maxEntry:]
		}
		if whole {
			j.entry(st.name, held, false)
			held = held[:0]
		}
		j.lines[st.name] = held
		b = rest
	}
	j.send()
}

// last sends what a stream ended with, without a newline.
func (j *journal) last(st *stream) {
	if held := j.lines[st.name]; len(held) > 0 {
		j.entry(st.name, held, false)
		j.lines[st.name] = nil
	}
	j.send()
}

// entry queues one. A level in front, as in sd-daemon(3), is its priority.
func (j *journal) entry(stream string, line []byte, partial bool) {
	priority := byte('6')
	if stream == "stderr" {
		priority = '3'
	}
	if len(line) >= 3 && line[0] == '<' && line[1] >= '0' && line[1] <= '7' && line[2] == '>' {
		priority, line = line[1], line[3:]
	}
	e := make([]byte, 0, len(j.fields)+len(line)+128)
	e = append(e, j.fields...)
	e = append(append(e, "GANTRY_STREAM="...), stream...)
	e = append(append(e, "\nPRIORITY="...), priority, '\n')
	if partial {
		e = append(e, "CONTAINER_PARTIAL_MESSAGE=true\n"...)
	}
	e = append(e, "MESSAGE\n"...)
	e = binary.LittleEndian.AppendUint64(e, uint64(len(line)))
	j.queue = append(j.queue, append(append(e, line...), '\n'))
}

// full tells whether entries wait for room; then nothing more is read.
func (j *journal) full() bool { return j != nil && len(j.queue) > 0 }

// send sends what there is room for.
func (j *journal) send() {
	for len(j.queue) > 0 {
		err := j.datagram(j.queue[0])
		switch {
		case err == unix.EAGAIN && (j.until.IsZero() || time.Now().Before(j.until)):
			if j.until.IsZero() {
				j.until = time.Now().Add(journalPatience)
			}
			return
		case err != nil:
			j.lost++
		default:
			j.until = time.Time{}
		}
		j.queue = j.queue[1:]
	}
	j.queue = nil
	j.tellLost()
}

// tellLost notes in the journal what it did not take.
func (j *journal) tellLost() {
	if j.lost == 0 {
		return
	}
	e := append(append([]byte{}, j.fields...), "GANTRY_STREAM=stderr\nPRIORITY=4\nMESSAGE=gantry: the journal had no room for "+lines(j.lost)+"\n"...)
	if j.datagram(e) == nil {
		j.lost = 0
	}
}

// datagram sends one entry; one that is too large for a datagram goes as a
// sealed memory file (systemd.io/JOURNAL_NATIVE_PROTOCOL). A journald that was
// restarted is connected to again.
func (j *journal) datagram(e []byte) error {
	err := j.write(e, nil)
	if err == unix.ECONNREFUSED || err == unix.ENOTCONN || err == unix.ECONNRESET {
		if err = unix.Connect(j.fd, &unix.SockaddrUnix{Name: stage1.JournalSocket}); err == nil {
			err = j.write(e, nil)
		}
	}
	if err != unix.EMSGSIZE && err != unix.ENOBUFS {
		return err
	}
	fd, err := unix.MemfdCreate("entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for rest := e; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return err
	}
	return j.write(nil, unix.UnixRights(fd))
}

func (j *journal) write(e, rights []byte) error {
	for {
		_, err := unix.SendmsgN(j.fd, e, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return err
		}
	}
}

// want says what to poll for.
func (j *journal) want() (fd int, events int16) {
	if !j.full() {
		return -1, 0
	}
	return j.fd, unix.POLLOUT
}

// patience is how long a poll may wait for room; negative is no bound.
func (j *journal) patience() time.Duration {
	if !j.full() {
		return -1
	}
	return max(time.Until(j.until), 0)
}

// drain waits for room until everything is sent or given up.
func (j *journal) drain() {
	for j.full() {
		polls := []unix.PollFd{{Fd: int32(j.fd), Events: unix.POLLOUT}}
		_, _ = unix.Poll(polls, int(j.patience().Milliseconds())+1)
		j.send()
	}
}
