// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/internal/rootfs"
)

// What a caller acts on.
var (
	ErrNotFound  = errors.New("no such pod")
	ErrBusy      = errors.New("another process is working on it")
	ErrNameTaken = errors.New("name is taken")
	ErrVersion   = errors.New("written by a newer gantry")
)

// Pods is the directory of all pods, with the names of this boot.
type Pods struct {
	dir   string // …/pods
	names string // RunDir/names
}

// Open names the directories and touches neither: they come into being with
// the first pod and the first name.
func Open(dir, runDir string) *Pods {
	return &Pods{dir: filepath.Join(dir, "pods"), names: filepath.Join(runDir, "names")}
}

// Dir returns the directory that holds the phases.
func (s *Pods) Dir() string { return s.dir }

func (s *Pods) path(p Phase, uuid string) string { return filepath.Join(s.dir, string(p), uuid) }

// Pod is one pod directory, open. The descriptor follows it through every
// rename; whoever flocks it exclusively owns the pod.
type Pod struct {
	UUID  string
	pods  *Pods
	phase Phase
	dir   *os.File
	owned bool // this process holds the exclusive lock
	fresh bool // just opened where it stood: no need to look again
}

// Create makes a pod, owned by the caller, in phase prepare. An embryo exists
// only so that "made but not yet locked" never looks like "aborted".
func (s *Pods) Create() (*Pod, error) {
	for range 8 {
		p, err := s.create(NewUUID())
		if errors.Is(err, fs.ErrNotExist) {
			// The first pod of all, or gc met the embryo before its lock.
			err = s.mkdirs()
			if err == nil {
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("create pod: %w", err)
		}
		return p, nil
	}
	return nil, fmt.Errorf("create pod: %s: embryos vanish", s.dir)
}

func (s *Pods) create(uuid string) (*Pod, error) {
	path := s.path(Embryo, uuid)
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	dir, err := openDir(path)
	if err != nil {
		return nil, err
	}
	p := &Pod{UUID: uuid, pods: s, phase: Embryo, dir: dir}
	// gc may hold an embryo's lock for the moment it deletes it: then the
	// rename below tells, and another is made.
	if err := flock.Exclusive(dir); err != nil {
		_ = p.Close()
		return nil, err
	}
	p.owned = true
	if err := p.Move(Prepare); err != nil {
		_ = os.Remove(path) // ours still, if gc was not faster
		_ = p.Close()
		return nil, err
	}
	return p, nil
}

// mkdirs makes the phases, that of embryos last: who can make one finds the
// others there. Nobody but root reads what is below.
func (s *Pods) mkdirs() error {
	for _, p := range slices.Backward(Phases()) {
		if err := os.MkdirAll(filepath.Join(s.dir, string(p)), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// openDir opens a directory to lock it and to resolve below it. It leaves out
// the poller, which asks five system calls about what a directory cannot do:
// list opens one for every pod.
func openDir(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Adopt takes over a pod whose locked descriptor another gantry donated.
func (s *Pods) Adopt(uuid string, dir *os.File) (*Pod, error) {
	if !ValidUUID(uuid) {
		return nil, fmt.Errorf("adopt pod %q: %w", uuid, ErrNotFound)
	}
	p := &Pod{UUID: uuid, pods: s, phase: Embryo, dir: dir}
	// The lock belongs to the open file description: taking it again through
	// the same one succeeds, through another it would not.
	if err := p.TryLock(); err != nil {
		return nil, err
	}
	return p, nil
}

// Phase is where the pod was when it was last looked at.
func (p *Pod) Phase() Phase { return p.phase }

// Path is the pod's directory as long as nobody moves it.
func (p *Pod) Path() string { return p.pods.path(p.phase, p.UUID) }

// File is the directory, flocked when the pod is owned. It stays the pod's.
func (p *Pod) File() *os.File { return p.dir }

// Close lets go of the pod, and of its lock unless another process shares it.
func (p *Pod) Close() error {
	p.owned = false
	return p.dir.Close()
}

// Unlock gives the pod up and keeps it open.
func (p *Pod) Unlock() {
	p.owned = false
	_ = flock.Unlock(p.dir)
}

// TryLock makes the caller the pod's owner, or returns ErrBusy at once when
// somebody else is. On success Phase is certain, since only owners move pods.
func (p *Pod) TryLock() error {
	if !p.owned {
		err := flock.TryExclusive(p.dir)
		if errors.Is(err, flock.ErrLocked) {
			err = p.outwaitReaders()
		}
		if errors.Is(err, flock.ErrLocked) {
			return fmt.Errorf("pod %s: %w", Short(p.UUID), ErrBusy)
		}
		if err != nil {
			return fmt.Errorf("lock pod %s: %w", Short(p.UUID), err)
		}
	}
	p.owned = true
	if err := p.locate(); err != nil {
		p.owned = false
		_ = flock.Unlock(p.dir)
		return err
	}
	return nil
}

// readerPatience is far longer than a reader holds its lock, which is for the
// time of a system call or two.
const readerPatience = time.Second

// outwaitReaders takes the lock when only readers stand in the way: those who
// ask for the state, or were just woken by the end of the pod. It returns
// ErrLocked as soon as there is an owner, and, should one come between, after
// readerPatience.
func (p *Pod) outwaitReaders() error {
	if locked, err := p.probe(); err != nil {
		return err
	} else if locked {
		return flock.ErrLocked
	}
	f, err := p.reopen()
	if err != nil {
		return err
	}
	got := make(chan error)
	gone := make(chan struct{})
	go func() {
		err := flock.Exclusive(f)
		select {
		case got <- err:
		case <-gone:
			_ = f.Close() // too late: nobody wants it any more
		}
	}()
	select {
	case err := <-got:
		if err != nil {
			_ = f.Close()
			return err
		}
		_ = p.dir.Close()
		p.dir = f // the lock belongs to this description
		return nil
	case <-time.After(readerPatience):
		close(gone)
		return flock.ErrLocked
	}
}

// locate finds where the open directory stands now.
func (p *Pod) locate() error {
	var have unix.Stat_t
	if err := unix.Fstat(int(p.dir.Fd()), &have); err != nil {
		return fmt.Errorf("stat pod %s: %w", Short(p.UUID), err)
	}
	// Mostly it stands where it was seen last.
	for _, phase := range append([]Phase{p.phase}, Phases()...) {
		var st unix.Stat_t
		err := unix.Lstat(p.pods.path(phase, p.UUID), &st)
		if err == nil && st.Ino == have.Ino && st.Dev == have.Dev {
			p.phase = phase
			return nil
		}
	}
	return fmt.Errorf("pod %s: %w", Short(p.UUID), ErrNotFound)
}

// Move renames an owned pod to a phase the table allows. A rename is atomic,
// so no reader sees anything between; it is not forced to disk, because after
// a power cut a pod that is still found in an earlier phase is as true: see
// [Pod.MoveDurably] for where that is not enough.
func (p *Pod) Move(to Phase) error {
	if !p.owned {
		return fmt.Errorf("move pod %s to %s: not locked", Short(p.UUID), to)
	}
	if !legal(p.phase, to) {
		return fmt.Errorf("move pod %s from %s to %s: not a legal transition", Short(p.UUID), p.phase, to)
	}
	if err := os.Rename(p.Path(), p.pods.path(to, p.UUID)); err != nil {
		return fmt.Errorf("move pod %s to %s: %w", Short(p.UUID), to, err)
	}
	p.phase = to
	return nil
}

// MoveDurably is Move for a promise that must survive a power cut: the pod's
// own directory is on disk before, both parents after.
func (p *Pod) MoveDurably(to Phase) error {
	if err := p.dir.Sync(); err != nil {
		return fmt.Errorf("sync pod %s: %w", Short(p.UUID), err)
	}
	from := p.phase
	if err := p.Move(to); err != nil {
		return err
	}
	for _, phase := range []Phase{to, from} {
		if err := syncDir(filepath.Join(p.pods.dir, string(phase))); err != nil {
			return fmt.Errorf("sync %s: %w", phase, err)
		}
	}
	return nil
}

func syncDir(path string) error {
	d, err := openDir(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// State tells the state now. It takes no lock for longer than the question,
// and none where the phase alone answers.
func (p *Pod) State() (State, error) {
	for {
		if p.owned {
			return stateOf(p.phase, true), nil
		}
		before := p.phase
		locked := false
		if !lockMatters(p.phase) && p.fresh {
			p.fresh = false
			return stateOf(p.phase, false), nil
		}
		p.fresh = false
		if lockMatters(p.phase) {
			var err error
			if locked, err = p.probe(); err != nil {
				return "", err
			}
		}
		// A pod that moved between the two looks is looked at again: it
		// only ever travels forward, so this ends.
		if err := p.locate(); err != nil {
			return "", err
		}
		if p.phase == before {
			return stateOf(p.phase, locked), nil
		}
	}
}

// probe says whether somebody owns the pod, through a descriptor of its own so
// that the answer cannot disturb a lock of this process.
func (p *Pod) probe() (locked bool, err error) {
	f, err := p.reopen()
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = flock.TryShared(f)
	if errors.Is(err, flock.ErrLocked) {
		return true, nil
	}
	return false, err
}

// reopen opens the same directory again, whatever it is called by now.
func (p *Pod) reopen() (*os.File, error) {
	fd, err := unix.Openat(int(p.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open pod %s: %w", Short(p.UUID), err)
	}
	return os.NewFile(uintptr(fd), p.UUID), nil
}

// Wait blocks until nobody owns the pod. The kernel wakes it: there is no
// polling.
func (p *Pod) Wait() error {
	f, err := p.reopen()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := flock.Shared(f); err != nil {
		return fmt.Errorf("wait for pod %s: %w", Short(p.UUID), err)
	}
	return nil
}

// Since is when the pod last changed phase: a rename stamps the directory's
// change time, which nothing can set back.
func (p *Pod) Since() (time.Time, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(p.dir.Fd()), &st); err != nil {
		return time.Time{}, fmt.Errorf("stat pod %s: %w", Short(p.UUID), err)
	}
	return time.Unix(st.Ctim.Unix()), nil
}

// Delete removes an owned pod for good. It moves to garbage first, so that a
// deletion cut short is never taken for a pod, and is finished by the next
// sweep. The pod stays open and owned.
func (p *Pod) Delete() error {
	if p.phase != Garbage {
		if err := p.Move(Garbage); err != nil {
			return err
		}
	}
	garbage, err := openDir(filepath.Join(p.pods.dir, string(Garbage)))
	if err != nil {
		return fmt.Errorf("delete pod %s: %w", Short(p.UUID), err)
	}
	defer garbage.Close()
	if err := rootfs.RemoveAllAt(int(garbage.Fd()), p.UUID); err != nil {
		return fmt.Errorf("delete pod %s: %w", Short(p.UUID), err)
	}
	return nil
}

// vanished says that the pod went away between being seen and being read,
// which is nobody's error.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotFound) || errors.Is(err, syscall.ESTALE)
}
