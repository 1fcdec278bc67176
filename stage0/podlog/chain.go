// SPDX-License-Identifier: Apache-2.0

package podlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// chain reads a log of several files, oldest first, while its writer goes
// on and moves them up: NAME is written, NAME.1 came before it, and so on. A
// file is known by its inode, whatever it is called meanwhile.
type chain struct {
	dir   *os.File
	name  string
	files []*os.File // oldest first; the last is, or was, NAME
	lines *lineReader
}

// open opens an app's log, at a path of the host's or in the pod.
func (s Source) open() (*chain, error) {
	c := &chain{name: stage1.LogFile}
	var err error
	if s.Path == "" {
		// The pod moves when its app ends, and its directory stays this one.
		var fd int
		fd, err = unix.Openat(int(s.Pod.File().Fd()), path.Join(stage1.AppsDir, s.App), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		c.dir = os.NewFile(uintptr(max(fd, 0)), s.App)
	} else {
		c.name = filepath.Base(s.Path)
		c.dir, err = os.Open(filepath.Dir(s.Path))
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := c.open(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// open opens the files that are there.
func (c *chain) open() error {
	err := c.eachFile(func(f *os.File) (goOn bool) {
		c.files = append(c.files, f)
		return true
	})
	if err == nil && len(c.files) == 0 {
		err = &fs.PathError{Op: "open log", Path: c.name, Err: fs.ErrNotExist}
	}
	slices.Reverse(c.files)
	return err
}

// gaps is how many numbers in a row may be missing below one that is there.
// While the files move up, the oldest first, one number is always free, and a
// writer that was killed leaves it so; of others a reader learns who was
// overtaken between two numbers.
const gaps = 3

// eachFile opens one file after the other, the newest first, and closes those it
// has had: one that moves up meanwhile is met twice, not missed, as none moves
// down.
func (c *chain) eachFile(do func(*os.File) (goOn bool)) error {
	var had []*os.File
	for n, missing := 0, 0; missing < gaps; n++ {
		f, err := c.number(n)
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		if err != nil {
			return err
		}
		missing = 0
		if same(had, f) >= 0 {
			_ = f.Close()
			continue
		}
		had = append(had, f)
		if !do(f) {
			return nil
		}
	}
	return nil
}

// number opens the n-th file before the one that is written.
func (c *chain) number(n int) (*os.File, error) {
	name := c.name
	if n > 0 {
		name += "." + strconv.Itoa(n)
	}
	fd, err := unix.Openat(int(c.dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open log", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// same is the place of a file in a list, or -1.
func same(files []*os.File, f *os.File) int {
	is, err := f.Stat()
	if err != nil {
		return -1
	}
	return slices.IndexFunc(files, func(g *os.File) bool {
		fi, err := g.Stat()
		return err == nil && os.SameFile(fi, is)
	})
}

func (c *chain) close() {
	for _, f := range c.files {
		_ = f.Close()
	}
	_ = c.dir.Close()
}

// tail moves to where the last n lines begin.
func (c *chain) tail(n int) error {
	for i := len(c.files) - 1; i >= 0; i-- {
		seen, err := seekTail(c.files[i], n)
		if err != nil {
			return err
		}
		if n -= seen; n <= 0 {
			for _, f := range c.files[:i] {
				_ = f.Close()
			}
			c.files = c.files[i:]
			return nil
		}
	}
	return nil
}

// drain prints what is there, through all files that follow.
func (c *chain) drain(p *printer) error {
	for {
		if c.lines == nil {
			c.lines = &lineReader{f: c.files[0]}
		}
		if err := c.lines.drain(p); err != nil {
			return err
		}
		if len(c.files) == 1 {
			if err := c.more(); err != nil {
				return err
			}
		}
		if len(c.files) == 1 {
			return nil
		}
		// Whoever began the next file had written all of this one.
		if err := c.lines.drain(p); err != nil {
			return err
		}
		_ = c.files[0].Close()
		c.files, c.lines = c.files[1:], nil
	}
}

// more opens the files that came after the one that is read, which may be gone
// already.
func (c *chain) more() error {
	var newer []*os.File
	err := c.eachFile(func(f *os.File) (goOn bool) {
		if same(c.files, f) >= 0 {
			_ = f.Close()
			return false
		}
		newer = append(newer, f)
		return true
	})
	slices.Reverse(newer)
	c.files = append(c.files, newer...)
	return err
}

// seekTail moves to where the last n lines begin and tells how many there are. A
// line may be in several pieces.
func seekTail(f *os.File, n int) (int, error) {
	begin, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("read log: %w", err)
	}
	if n == 0 {
		return 0, nil
	}
	end, seen := begin, 0
	err = eachPiece(f, end, func(from, to int64) (goOn bool, err error) {
		ends := to == end // of the last line there may be more to come
		if !ends {
			if ends, err = endsLine(f, from, to); err != nil {
				return false, err
			}
		}
		if ends && seen == n {
			return false, nil
		}
		if ends {
			seen++
		}
		begin = from
		return true, nil
	})
	if err == nil {
		_, err = f.Seek(begin, io.SeekStart)
	}
	if err != nil {
		return 0, fmt.Errorf("read log: %w", err)
	}
	return seen, nil
}

// eachPiece calls do with where each line of the file begins and ends, reading
// from the end.
func eachPiece(f *os.File, end int64, do func(from, to int64) (goOn bool, err error)) error {
	buf := make([]byte, 64<<10)
	to := end
	for at := end; at > 0; {
		size := min(int64(len(buf)), at)
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			from := at + i + 1
			if buf[i] != '\n' || from == end {
				continue
			}
			if goOn, err := do(from, to); err != nil || !goOn {
				return err
			}
			to = from
		}
	}
	if to == 0 {
		return nil
	}
	_, err := do(0, to)
	return err
}

// endsLine tells whether a piece of a line is its last, by the tag that stands
// before its text.
func endsLine(f *os.File, from, to int64) (bool, error) {
	head := make([]byte, min(to-from, 64)) // more than time, stream and tag have
	if _, err := f.ReadAt(head, from); err != nil {
		return false, err
	}
	fields := bytes.SplitN(head, []byte(" "), 4)
	return len(fields) < 4 || string(fields[2]) != "P", nil
}
