// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
)

// maxLogLine bounds one line of a log; the writer cuts at less.
const maxLogLine = 1 << 20

// printer writes the lines of a log that were asked for.
type printer struct {
	o         LogOptions
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

func logs(ctx context.Context, e Env, id string, o LogOptions, out, errw io.Writer) error {
	p, err := e.find(id)
	if err != nil {
		return err
	}
	defer p.Close()
	var l launchFile
	if err := readJSON(p, path.Join(stage1.AppsDir, appName, launchName), maxConfig, launchVersion, &l); err != nil {
		return err
	}
	pr := &printer{o, out, errw, map[string]bool{}}
	switch l.LogDriver {
	case stage1.LogToFile:
	case stage1.LogJournal:
		return journalLogs(ctx, p, pr)
	default:
		return hint.With(fmt.Errorf("pod %s keeps no log: its log driver is %s", pod.Short(p.UUID), l.LogDriver), "run it with --log-driver=file, or look where its output went (a unit's is in the journal)")
	}
	chain, err := openChain(p, l.Log.Path)
	if errors.Is(err, fs.ErrNotExist) && !o.Follow {
		return nil // it has not begun
	}
	if err != nil {
		return err
	}
	defer chain.close()
	if o.Tail >= 0 {
		if err := chain.tail(o.Tail); err != nil {
			return err
		}
	}
	if !o.Follow {
		return chain.drain(pr)
	}
	return follow(ctx, p, chain, pr)
}

// follow prints what is there and what comes, until the pod ends. Both are
// told by the kernel: lines and new files by inotify, the end by the pod's
// lock.
func follow(ctx context.Context, p *pod.Pod, chain *logChain, pr *printer) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch log: %w", err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	defer watch.Close()
	if _, err := unix.InotifyAddWatch(fd, fmt.Sprintf("/proc/self/fd/%d", chain.dir.Fd()), unix.IN_MODIFY|unix.IN_CREATE); err != nil {
		return fmt.Errorf("watch log: %w", err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- waitFree(ctx, p)
		_ = watch.SetReadDeadline(time.Unix(1, 0))
	}()
	events := make([]byte, 4096)
	for {
		if err := chain.drain(pr); err != nil {
			return err
		}
		if _, err := watch.Read(events); err == nil {
			continue
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("watch log: %w", err)
		}
		err := <-ended
		return errors.Join(chain.drain(pr), ignoreCanceled(err))
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
		if len(l.rest) > maxLogLine {
			return fmt.Errorf("read log: a line is longer than %d bytes", maxLogLine)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
}
