// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Ambiguous is returned when a prefix fits several pods.
type Ambiguous struct {
	ID         string
	Candidates []string
}

func (e *Ambiguous) Error() string {
	return fmt.Sprintf("%q fits %d pods: %s", e.ID, len(e.Candidates), strings.Join(e.Candidates, ", "))
}

// Hint says what to do about it.
func (e *Ambiguous) Hint() string { return "type more of the UUID, or use the pod's name" }

// notFound is ErrNotFound with what was asked for.
type notFound struct{ id string }

func (e *notFound) Error() string        { return fmt.Sprintf("no pod has the name or UUID %q", e.id) }
func (e *notFound) Is(target error) bool { return target == ErrNotFound }
func (e *notFound) Hint() string         { return "'gantry list --all' shows every pod" }

// Find opens the pod that id names: a UUID, a name, or the beginning of
// exactly one UUID, in this order. The pod is not locked; Close it.
func (s *Pods) Find(id string) (*Pod, error) {
	if ValidUUID(id) {
		p, err := s.open(id)
		if errors.Is(err, ErrNotFound) {
			return nil, &notFound{id}
		}
		return p, err
	}
	if p, err := s.findName(id); err == nil || !errors.Is(err, ErrNotFound) {
		return p, err
	}
	uuid, err := s.byPrefix(id)
	if err != nil {
		return nil, err
	}
	p, err := s.open(uuid)
	if errors.Is(err, ErrNotFound) {
		return nil, &notFound{id}
	}
	return p, err
}

// open opens a pod wherever it stands.
func (s *Pods) open(uuid string) (*Pod, error) {
	for _, phase := range Phases() {
		p, err := s.openAt(phase, uuid)
		if !errors.Is(err, fs.ErrNotExist) {
			return p, err
		}
	}
	return nil, fmt.Errorf("pod %s: %w", uuid, ErrNotFound)
}

func (s *Pods) openAt(phase Phase, uuid string) (*Pod, error) {
	dir, err := openDir(s.path(phase, uuid))
	if err != nil {
		return nil, fmt.Errorf("open pod: %w", err)
	}
	return &Pod{UUID: uuid, pods: s, phase: phase, dir: dir, fresh: true}, nil
}

// byPrefix returns the one UUID that begins with prefix. Garbage does not
// count: it is as good as gone.
func (s *Pods) byPrefix(prefix string) (string, error) {
	if !uuidPrefix(prefix) {
		return "", &notFound{prefix}
	}
	var fits []string
	err := s.each(func(_ Phase, uuid string) {
		if strings.HasPrefix(uuid, prefix) {
			fits = append(fits, uuid)
		}
	}, Embryo, Prepare, Prepared, Run, Exited)
	if err != nil {
		return "", err
	}
	slices.Sort(fits)
	fits = slices.Compact(fits) // a pod that moved meanwhile is met twice
	switch len(fits) {
	case 0:
		return "", &notFound{prefix}
	case 1:
		return fits[0], nil
	}
	return "", &Ambiguous{prefix, fits}
}

// each calls f for every entry of the phases that is a pod's.
func (s *Pods) each(f func(Phase, string), phases ...Phase) error {
	for _, phase := range phases {
		uuids, err := readNames(filepath.Join(s.dir, string(phase)))
		if err != nil {
			return fmt.Errorf("list pods: %w", err)
		}
		for _, uuid := range uuids {
			if ValidUUID(uuid) {
				f(phase, uuid)
			}
		}
	}
	return nil
}

// readNames lists a directory without looking at its entries; one that does
// not exist yet is empty.
func readNames(dir string) ([]string, error) {
	d, err := openDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// List opens every pod that stands in one of the phases (all of them when
// none is given), calls f with it, and closes it again. A pod that vanishes
// meanwhile is left out; one that moves is seen once, where it was met last.
func (s *Pods) List(f func(*Pod) error, phases ...Phase) error { return s.list(1, f, phases...) }

// ListAtOnce is List that calls f for several pods at a time.
func (s *Pods) ListAtOnce(f func(*Pod) error, phases ...Phase) error {
	return s.list(runtime.GOMAXPROCS(0), f, phases...)
}

func (s *Pods) list(workers int, f func(*Pod) error, phases ...Phase) error {
	if len(phases) == 0 {
		phases = Phases()
	}
	met := map[string]Phase{}
	if err := s.each(func(p Phase, uuid string) { met[uuid] = p }, phases...); err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(workers)
	var failed atomic.Bool
	for uuids := range slices.Chunk(slices.Collect(maps.Keys(met)), 1+len(met)/(4*workers)) {
		group.Go(func() error {
			for _, uuid := range uuids {
				if failed.Load() {
					return nil
				}
				if err := s.visit(uuid, met[uuid], f); err != nil {
					failed.Store(true)
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// visit calls f with a pod that was met in a phase, unless it is gone.
func (s *Pods) visit(uuid string, phase Phase, f func(*Pod) error) error {
	p, err := s.openAt(phase, uuid)
	if errors.Is(err, fs.ErrNotExist) {
		p, err = s.open(uuid) // it moved on
	}
	if err == nil {
		err = f(p)
		_ = p.Close()
	}
	if vanished(err) {
		return nil
	}
	return err
}

// ReadFile reads a file of the pod of at most limit bytes, below its own
// descriptor: no rename of the pod and no link inside it leads elsewhere. It
// is four system calls, since list does it for every pod.
func (p *Pod) ReadFile(name string, limit int64) ([]byte, error) {
	fd, size, err := p.open(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if size > limit {
		return nil, fmt.Errorf("read %s of pod %s: larger than %d bytes", name, Short(p.UUID), limit)
	}
	// Files are written once or replaced by rename, so this is all of it.
	b := make([]byte, size)
	for n := 0; n < len(b); {
		m, err := unix.Pread(fd, b[n:], int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, fmt.Errorf("read %s of pod %s: %w", name, Short(p.UUID), err)
		case m == 0:
			return b[:n], nil
		default:
			n += m
		}
	}
	return b, nil
}

// OpenFile opens a regular file of the pod for reading, below its own
// descriptor.
func (p *Pod) OpenFile(name string) (*os.File, error) {
	fd, _, err := p.open(name)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// open opens a regular file and tells its size. O_NONBLOCK keeps a FIFO
// somebody put there from hanging us.
func (p *Pod) open(name string) (fd int, size int64, err error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err = unix.Openat2(int(p.dir.Fd()), name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if err != nil {
		return -1, 0, &fs.PathError{Op: "open", Path: filepath.Join(p.UUID, name), Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(fd)
		return -1, 0, &fs.PathError{Op: "open", Path: filepath.Join(p.UUID, name), Err: errors.New("not a regular file")}
	}
	return fd, st.Size, nil
}

// Some is List for at most n pods of each phase, whichever the file system
// gives first: it costs the same however many there are.
func (s *Pods) Some(n int, f func(*Pod) error, phases ...Phase) error {
	for _, phase := range phases {
		d, err := openDir(filepath.Join(s.dir, string(phase)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		uuids, err := d.Readdirnames(n)
		_ = d.Close()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for _, uuid := range uuids {
			if !ValidUUID(uuid) {
				continue
			}
			p, err := s.openAt(phase, uuid)
			if err == nil {
				err = f(p)
				_ = p.Close()
			}
			if err != nil && !vanished(err) {
				return err
			}
		}
	}
	return nil
}
