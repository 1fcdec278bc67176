// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// sink is where output is recorded.
type sink interface {
	// record takes what a stream said, at any boundary.
	record(st *stream, b []byte)
	// last is told that nothing comes from a stream any more.
	last(st *stream)
}

// logFile is a log in CRI's format, of one file or, with a bound, of several:
// log, log.1 before it, and so on. A line is in one of them, whole.
type logFile struct {
	fd, dir   int
	name      string
	size, max int64 // max 0: one file without bound
	keep      int   // files, the current one among them
	out       []byte
	lost      int // lines that found no room, which nobody was told of yet
}

func openLogFile(c *stage1.Contract) *logFile {
	l := &logFile{fd: c.LogFile, dir: c.LogDir, name: c.Log.Name, max: c.Log.MaxSize, keep: c.Log.MaxFiles}
	var st unix.Stat_t
	if unix.Fstat(l.fd, &st) == nil {
		l.size = st.Size
	}
	return l
}

// record writes a line for each of the stream's. What has no newline yet is
// written at once and tagged partial, so nothing is ever held back.
func (l *logFile) record(st *stream, b []byte) {
	stamp := now()
	l.admit(stamp)
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		l.room(len(stamp) + len(st.name) + len(line) + 5)
		l.out = append(l.out, stamp...)
		l.out = append(append(append(l.out, ' '), st.name...), ' ')
		if whole {
			l.out = append(l.out, "F "...)
		} else {
			l.out = append(l.out, "P "...)
		}
		l.out = append(append(l.out, line...), '\n')
		b = rest
		if len(l.out) > chunk {
			l.flush()
		}
	}
	l.flush()
}

func (l *logFile) last(*stream) { l.admit(now()) }

// now is the time as CRI's logs have it.
func now() []byte {
	return time.Now().UTC().AppendFormat(make([]byte, 0, 40), "2006-01-02T15:04:05.000000000Z07:00")
}

// room makes it for a line: where it does not fit into the file any more, the
// next begins.
func (l *logFile) room(line int) {
	if l.max == 0 || l.size+int64(len(l.out)+line) <= l.max || l.size == 0 && len(l.out) == 0 {
		return
	}
	l.flush()
	l.rotate()
}

// flush writes what is collected. A full disk loses lines, it does not stop the
// app; the one that was torn goes too.
func (l *logFile) flush() {
	done := l.write(l.out)
	l.lost += bytes.Count(l.out[done:], []byte{'\n'})
	l.out = l.out[:0]
}

// write appends whole lines, as many as there is room for, and tells how many
// bytes they are.
func (l *logFile) write(b []byte) (done int) {
	for done < len(b) {
		n, err := unix.Write(l.fd, b[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			done = bytes.LastIndexByte(b[:done], '\n') + 1
			_ = unix.Ftruncate(l.fd, l.size+int64(done))
			break
		}
		done += n
	}
	l.size += int64(done)
	return done
}

// admit says how many lines are missing here, when there is room again.
func (l *logFile) admit(stamp []byte) {
	if l.lost == 0 {
		return
	}
	notice := append(append([]byte(nil), stamp...), " stderr F gantry: the disk had no room for "+lines(l.lost)+"\n"...)
	l.room(len(notice))
	if l.write(notice) > 0 {
		l.lost = 0
	}
}

// rotate begins a new file. The old ones move up by a number, and the one
// above the last goes. Where none can be begun the old one goes on.
func (l *logFile) rotate() {
	for i := l.keep - 1; i > 0; i-- {
		from := l.name
		if i > 1 {
			from += "." + strconv.Itoa(i-1)
		}
		_ = unix.Renameat(l.dir, from, l.dir, l.name+"."+strconv.Itoa(i))
	}
	if l.keep == 1 {
		_ = unix.Unlinkat(l.dir, l.name, 0)
	}
	fd, err := unix.Openat(l.dir, l.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return
	}
	_ = unix.Close(l.fd)
	l.fd, l.size = fd, 0
}

func lines(n int) string {
	if n == 1 {
		return "1 line"
	}
	return strconv.Itoa(n) + " lines"
}
