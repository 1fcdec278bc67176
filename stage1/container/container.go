// SPDX-License-Identifier: Apache-2.0

// Package container is the lifecycle of runtime-spec (runtime.md): containers
// that are created from a bundle, started, signalled and deleted by processes
// that do not stay.
//
// Nobody of ours lives beside a container, so nothing is remembered that can
// be asked: whether it runs, the kernel tells by its process; whether it waits
// to be started, by the socket it listens on. What is written down is what
// deleting it needs, before any of it is made.
package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/jsonin"
	"github.com/gantryrun/gantry/internal/jsonout"
	"github.com/gantryrun/gantry/stage1/launch"
)

// Files of a container's directory.
const (
	stateFile  = "state.json"
	configFile = "config.json"
)

// madeGroups is the bit of the directory's mode that says that the groups on
// record were made by us: it takes one system call and no file.
const madeGroups = fs.ModeSticky

const stateVersion = 1

// ErrNotFound means that there is no container of that id.
var ErrNotFound = errors.New("container does not exist")

// ErrNotRunning means that its process has ended. Engines know these words.
var ErrNotRunning = errors.New("container not running")

// ErrExists means that the id is taken.
var ErrExists = errors.New("container exists already")

// record is what a container's directory says. It is replaced by rename.
type record struct {
	Version int       `json:"version"`
	Bundle  string    `json:"bundle"`
	Created time.Time `json:"created"`
	Owner   uint32    `json:"owner"`
	Cgroups []string  `json:"cgroups,omitempty"` // that may have been made
	Resctrl []string  `json:"resctrl,omitempty"` // directories that go with the container, likewise
	Unit    string    `json:"unit,omitempty"`    // of systemd, that may have been made
	Pid     int       `json:"pid,omitempty"`     // zero until there is a process
	Start   uint64    `json:"start,omitempty"`
	Boot    string    `json:"boot,omitempty"`

	RootMount uint64 `json:"rootMount,omitempty"` // of a bundle without a mount namespace: what is attached at its root
}

// Root is the directory containers are kept in.
type Root struct {
	Dir  string
	Warn func(string) // told of hooks that fail and stop nothing; may be nil
}

// Container is one of them, opened.
type Container struct {
	ID   string
	root Root
	dir  *os.File
	Pty  *os.File // of one just created in the foreground: the master of its terminal
	record

	written bool            // there is a record
	spec    *specs.Spec     // known when it was made or asked for
	created *launch.Created // here and now, and Attended
}

func checkID(id string) error {
	if id == "" || len(id) > 200 || id == "." || id == ".." {
		return fmt.Errorf("container id %q is empty, too long or a directory", id)
	}
	for _, c := range id {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '+', c == '-', c == '.':
		default:
			return fmt.Errorf("container id %q may contain letters, digits and _+-. only", id)
		}
	}
	return nil
}

// ours refuses a directory that others may write: what lies in it says which
// groups are killed, and which hooks are run.
func (r Root) ours() error {
	fi, err := os.Stat(r.Dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !fi.IsDir():
		return fmt.Errorf("--root %s: is not a directory", r.Dir)
	case !ok || st.Uid != uint32(os.Geteuid()) && st.Uid != 0:
		return fmt.Errorf("--root %s: belongs to user %d, who could change what containers do; use a directory of your own", r.Dir, st.Uid)
	case fi.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("--root %s: others may write to it, mode %04o; use another, or chmod go-w", r.Dir, fi.Mode().Perm())
	}
	return nil
}

func (r Root) path(id string) string { return filepath.Join(r.Dir, id) }

// Open opens a container, locked against other commands that change it.
func (r Root) Open(id string) (*Container, error) { return r.open(id, unix.LOCK_EX) }

// Look opens a container to read it.
func (r Root) Look(id string) (*Container, error) { return r.open(id, 0) }

func (r Root) open(id string, lock int) (*Container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if err := r.ours(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	dir, err := os.Open(r.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %q: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	c := &Container{ID: id, root: r, dir: dir}
	if lock != 0 {
		err = flock(dir, lock)
	}
	if err == nil {
		err = c.stillThere()
	}
	if err == nil {
		err = c.read()
	}
	if err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	return c, nil
}

// stillThere makes sure that the directory that was opened, and perhaps waited
// for, is the one of the name: it may have been deleted, and its id taken.
func (c *Container) stillThere() error {
	opened, err := c.dir.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(c.root.path(c.ID))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(opened, named) {
		return ErrNotFound
	}
	return err
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// read reads the record. A directory without one was killed while it was made:
// all there is to do with it is to delete it.
func (c *Container) read() error {
	b, err := os.ReadFile(filepath.Join(c.root.path(c.ID), stateFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 { // the power went
		return nil
	}
	if err != nil {
		return err
	}
	c.written = true
	c.record, err = decodeRecord(b)
	return err
}

func decodeRecord(b []byte) (record, error) {
	var r record
	if err := jsonin.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("read %s: %w", stateFile, err)
	}
	if r.Version > stateVersion {
		return record{}, fmt.Errorf("%s is of version %d, this runtime knows %d: use the newer one", stateFile, r.Version, stateVersion)
	}
	return r, nil
}

func (c *Container) write() error {
	b, err := jsonout.Marshal(c.record)
	if err != nil {
		return err
	}
	put := replace
	if !c.written && len(b) < smallest {
		put = create
	}
	if err := put(int(c.dir.Fd()), stateFile, b); err != nil {
		return fmt.Errorf("write %s: %w", stateFile, err)
	}
	c.written = true
	return nil
}

// smallest is the least page there is: what is shorter is written as a whole or
// not at all, whoever is killed.
const smallest = 4096

// create writes a file that is not there yet. Empty it is as good as missing.
func create(dir int, name string, b []byte) error {
	return write(dir, name, unix.O_EXCL, b)
}

func write(dir int, name string, how int, b []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|how, 0o600)
	if err != nil {
		return err
	}
	n, err := unix.Write(fd, b)
	if err == nil && n < len(b) {
		err = unix.ENOSPC
	}
	return errors.Join(err, unix.Close(fd))
}

// replace replaces a file by rename. It is not synced: what it says is true for
// this boot only. There is one writer, who has the lock.
func replace(dir int, name string, b []byte) error {
	temp := "." + name + ".new"
	if err := write(dir, temp, unix.O_TRUNC, b); err != nil {
		return err
	}
	return unix.Renameat(dir, temp, dir, name)
}

// Close closes the container; its lock goes with it.
func (c *Container) Close() { _ = c.dir.Close() }

// Unlock lets others change the container; it stays open.
func (c *Container) Unlock() { _ = flock(c.dir, unix.LOCK_UN) }

// Spec reads the configuration the container was made from, as it was then.
func (c *Container) Spec() (*specs.Spec, error) {
	if c.spec != nil {
		return c.spec, nil
	}
	b, err := os.ReadFile(filepath.Join(c.root.path(c.ID), configFile))
	if err != nil {
		return nil, err
	}
	var s specs.Spec
	if err := jsonin.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w", configFile, err)
	}
	c.spec = &s
	return &s, nil
}

// process opens the container's process, nil if it has ended.
func (c *Container) process() (*os.File, error) {
	f, err := launch.OpenProcess(c.Pid, c.Start, c.Boot)
	if errors.Is(err, launch.ErrNotRunning) {
		return nil, nil
	}
	return f, err
}

// StatusPaused is what engines expect of a frozen container; the specification
// leaves room for it.
const StatusPaused specs.ContainerState = "paused"

// Status tells in which state of runtime.md the container is.
func (c *Container) Status() (specs.ContainerState, error) {
	if c.Pid == 0 {
		return specs.StateCreating, nil
	}
	p, err := c.process()
	if err != nil {
		return "", err
	}
	if p == nil {
		return specs.StateStopped, nil
	}
	defer p.Close()
	switch {
	case ended(p):
		return specs.StateStopped, nil
	case launch.Held(c.dir):
		return specs.StateCreated, nil
	case c.frozen():
		return StatusPaused, nil
	}
	return specs.StateRunning, nil
}

// ended tells whether a process is a zombie, which still has a pid.
func ended(pidfd *os.File) bool {
	polls := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(polls, 0)
	return err == nil && n > 0
}

// State is the document of runtime.md, section State.
func (c *Container) State() (specs.State, error) {
	status, err := c.Status()
	if err != nil {
		return specs.State{}, err
	}
	s := specs.State{Version: specs.Version, ID: c.ID, Status: status, Bundle: c.Bundle}
	if status != specs.StateStopped {
		s.Pid = c.Pid
	}
	if spec, err := c.Spec(); err == nil {
		s.Annotations = spec.Annotations
	}
	return s, nil
}

// List opens all containers that can be read, by their ids.
func (r Root) List() ([]*Container, error) {
	err := r.ours()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		return nil, err
	}
	var all []*Container
	for _, e := range entries {
		if c, err := r.Look(e.Name()); err == nil {
			all = append(all, c)
		}
	}
	return all, nil
}

func readAtMost(f *os.File, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", f.Name(), limit)
	}
	return b, err
}
