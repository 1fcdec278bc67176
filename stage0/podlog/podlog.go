// SPDX-License-Identifier: Apache-2.0

// Package podlog reads what pods wrote: files in CRI's format of a pod's own or
// at a path of the host, rotated ones too, and the journal. Who writes them is
// stage1's supervisor.
package podlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
)

// Options select lines of a log.
type Options struct {
	Follow     bool
	Tail       int       // last lines; < 0 is all
	Since      time.Time // zero is the beginning
	Timestamps bool
}

// Source is the log of a pod's app.
type Source struct {
	Pod    *pod.Pod
	App    string
	Driver string // --log-driver
	Path   string // of a file on the host; empty: in the pod
	// Ended returns when the pod is not running any more, or with the error of
	// a context that ended.
	Ended func(context.Context) error
}

// Print writes the selected lines to out and errw, each stream to its own. With
// Follow it returns when the pod is not running any more or ctx ends. A log that
// has not begun has no lines.
func (s Source) Print(ctx context.Context, o Options, out, errw io.Writer) error {
	pr := &printer{o, out, errw, map[string]bool{}}
	switch s.Driver {
	case stage1.LogToFile:
	case stage1.LogJournal:
		return s.journal(ctx, pr)
	default:
		return hint.With(fmt.Errorf("pod %s keeps no log: its log driver is %s", pod.Short(s.Pod.UUID), s.Driver), "run it with --log-driver=file, or look where its output went (a unit's is in the journal)")
	}
	c, err := s.open()
	if errors.Is(err, fs.ErrNotExist) && !o.Follow {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.close()
	if o.Tail >= 0 {
		if err := c.tail(o.Tail); err != nil {
			return err
		}
	}
	if !o.Follow {
		return c.drain(pr)
	}
	return s.follow(ctx, c, pr)
}

// maxLine bounds one line of a log; the writer cuts at less.
const maxLine = 1 << 20

// printer writes the lines of a log that were asked for.
type printer struct {
	o         Options
	out, errw io.Writer
	midLine   map[string]bool // by stream: the last piece did not end its line
}

// print writes one line of CRI's log format: time, stream, F or P, text. A
// piece marked P is continued by the next of its stream.
func (p *printer) print(line []byte) error {
	stamp, stream, tag, text, err := parseLogLine(line)
	if err != nil {
		return err
	}
	if !p.o.Since.IsZero() {
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if at.Before(p.o.Since) {
			return nil
		}
	}
	w := p.out
	if stream == "stderr" {
		w = p.errw
	}
	if p.o.Timestamps && !p.midLine[stream] {
		if _, err := io.WriteString(w, stamp+" "); err != nil {
			return err
		}
	}
	p.midLine[stream] = tag == "P"
	if tag != "P" {
		text = append(text, '\n')
	}
	_, err = w.Write(text)
	return err
}

func parseLogLine(line []byte) (stamp, stream, tag string, text []byte, err error) {
	f := bytes.SplitN(line, []byte(" "), 4)
	if len(f) != 4 {
		return "", "", "", nil, fmt.Errorf("read log: %s is not a line of a log", strconv.Quote(string(line[:min(len(line), 80)])))
	}
	return string(f[0]), string(f[1]), string(f[2]), bytes.Clone(f[3]), nil
}

// follow prints what is there and what comes, until the pod ends. Both are
// told by the kernel: lines and new files by inotify, the end by the pod's
// lock.
func (s Source) follow(ctx context.Context, c *chain, pr *printer) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch log: %w", err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	defer watch.Close()
	if _, err := unix.InotifyAddWatch(fd, fmt.Sprintf("/proc/self/fd/%d", c.dir.Fd()), unix.IN_MODIFY|unix.IN_CREATE); err != nil {
		return fmt.Errorf("watch log: %w", err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- s.Ended(ctx)
		_ = watch.SetReadDeadline(time.Unix(1, 0))
	}()
	events := make([]byte, 4096)
	for {
		if err := c.drain(pr); err != nil {
			return err
		}
		if _, err := watch.Read(events); err == nil {
			continue
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("watch log: %w", err)
		}
		err := <-ended
		return errors.Join(c.drain(pr), ignoreCanceled(err))
	}
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// lineReader reads whole lines of a file that grows, and keeps the rest: a
// torn last line is still being written, or its writer was killed.
type lineReader struct {
	f    *os.File
	rest []byte
}

func (l *lineReader) drain(p *printer) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := l.f.Read(buf)
		l.rest = append(l.rest, buf[:n]...)
		for {
			i := bytes.IndexByte(l.rest, '\n')
			if i < 0 {
				break
			}
			if err := p.print(l.rest[:i]); err != nil {
				return err
			}
			l.rest = l.rest[i+1:]
		}
		if len(l.rest) > maxLine {
			return fmt.Errorf("read log: a line is longer than %d bytes", maxLine)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
}
