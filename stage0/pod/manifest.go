// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/jsonin"
)

// ManifestFile is the pod manifest's name in the pod directory.
const ManifestFile = "pod.json"

// Version is the format written; older ones are read.
const Version = 1

const maxManifest = 1 << 20

// Manifest is what is recorded of a pod when it is prepared, and never
// changed: later facts have files of their own. It stays small, because list
// reads one per pod.
type Manifest struct {
	Version int       `json:"version"`
	UUID    string    `json:"uuid"`
	Name    string    `json:"name,omitempty"`
	Created time.Time `json:"created"`
	Remove  bool      `json:"remove,omitempty"` // delete it when it exits
	Apps    []App     `json:"apps"`

	Volumes []string `json:"volumes,omitempty"` // named ones that its apps mount
	Images  []Image  `json:"images,omitempty"`  // those whose trees they mount

	Network string            `json:"network"`
	Labels  map[string]string `json:"labels,omitempty"` // the user's, never the image's
	Seal    string            `json:"seal,omitempty"`   // see stage0: binds this and what it names
}

// Image is one beside those of the apps that a pod needs.
type Image struct {
	Image    string `json:"image"`    // canonical reference
	Manifest string `json:"manifest"` // digest proven at prepare
	Platform string `json:"platform"`
}

// App is one app of a pod.
type App struct {
	Name     string   `json:"name"`
	Image    string   `json:"image"`    // canonical reference
	Manifest string   `json:"manifest"` // digest proven at prepare
	Platform string   `json:"platform"`
	Bundle   string   `json:"bundle"` // digest of apps/<name>/config.json
	Launch   string   `json:"launch"` // digest of apps/<name>/launch.json
	Command  []string `json:"command,omitempty"`
}

// Manifest reads the pod manifest.
func (p *Pod) Manifest() (Manifest, error) {
	b, err := p.ReadFile(ManifestFile, maxManifest)
	if err != nil {
		return Manifest{}, err
	}
	var m Manifest
	if err := jsonin.Unmarshal(b, &m); err != nil {
		return Manifest{}, fmt.Errorf("read manifest of pod %s: %w", Short(p.UUID), err)
	}
	if m.Version > Version {
		return Manifest{}, fmt.Errorf("read manifest of pod %s: format %d: %w", Short(p.UUID), m.Version, ErrVersion)
	}
	if m.UUID != p.UUID {
		return Manifest{}, fmt.Errorf("read manifest of pod %s: it is that of %q", Short(p.UUID), m.UUID)
	}
	return m, nil
}

// IfWritten is Manifest for who asks what pods need. ok is false for a pod that
// is being made, whose manifest may be written only in part, and for one that
// is going or gone; an error is that of a pod that may need anything.
func (p *Pod) IfWritten() (m Manifest, ok bool, err error) {
	for {
		at := p.phase
		if m, err = p.Manifest(); err == nil {
			return m, true, nil
		}
		if gone := p.locate(); gone != nil {
			if vanished(gone) {
				gone = nil
			}
			return m, false, gone
		}
		switch p.phase {
		case Embryo, Prepare, Garbage:
			return m, false, nil
		case at:
			return m, false, err
		}
	}
}

// WriteFile writes a file of an owned pod that nobody reads yet: a pod under
// preparation needs no renames, because the pod itself is renamed when it is
// whole. perm is not narrowed by the umask: an app must be able to read its
// hosts file. With sync the bytes are on disk when it returns.
func (p *Pod) WriteFile(name string, data []byte, perm uint32, sync bool) error {
	fd, err := unix.Openat(int(p.dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write %s of pod %s: %w", name, Short(p.UUID), err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	if err == nil && perm != 0o600 {
		err = unix.Fchmod(fd, perm)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s of pod %s: %w", name, Short(p.UUID), err)
	}
	return nil
}

// Mkdir makes a directory of an owned pod, for root alone.
func (p *Pod) Mkdir(name string) error {
	if err := unix.Mkdirat(int(p.dir.Fd()), name, 0o700); err != nil {
		return fmt.Errorf("make %s of pod %s: %w", name, Short(p.UUID), err)
	}
	return nil
}

// Dress gives a directory of an owned pod an owner and a mode.
func (p *Pod) Dress(name string, uid, gid, mode uint32) error {
	err := unix.Fchownat(int(p.dir.Fd()), name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		err = unix.Fchmodat(int(p.dir.Fd()), name, mode, 0)
	}
	if err != nil {
		return fmt.Errorf("dress %s of pod %s: %w", name, Short(p.UUID), err)
	}
	return nil
}

// SyncDirs forces the entries of the pod's directories to disk.
func (p *Pod) SyncDirs(names ...string) error {
	for _, name := range names {
		fd, err := unix.Openat(int(p.dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err == nil {
			err = errors.Join(unix.Fsync(fd), unix.Close(fd))
		}
		if err != nil {
			return fmt.Errorf("sync %s of pod %s: %w", name, Short(p.UUID), err)
		}
	}
	return nil
}
