// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Support is what this host can do with the caller's control groups.
type Support struct {
	Mode        string   // "v2", "v1", "hybrid" or "none"
	Unified     string   // our group in the unified hierarchy, or ""
	Controllers []string // whose limits a new app can have, v1 names where they are v1
	Writable    bool
	Kill        bool   // whole groups at once (Linux 5.14)
	Reason      string // why limits cannot be had, or ""
	Mend        string
}

// Probe looks and changes nothing.
func Probe() (Support, error) {
	h, err := thisHost()
	if err != nil {
		return Support{}, err
	}
	return h.support(), nil
}

func (h *host) support() Support {
	s := Support{Mode: "none", Controllers: slices.Sorted(maps.Keys(h.v1))}
	for _, v1 := range h.v1 {
		s.Mode = "v1"
		s.Writable = s.Writable || !v1.ro && unix.Access(v1.dir(), unix.W_OK) == nil
	}
	if h.v2 == nil {
		if s.Mode == "none" {
			s.Reason, s.Mend = "no cgroup hierarchy is mounted", "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
		}
		return s
	}
	s.Unified = h.v2.dir()
	s.Mode = map[string]string{"none": "v2", "v1": "hybrid"}[s.Mode]
	s.Writable = s.Writable || !h.v2.ro && unix.Access(h.v2.dir(), unix.W_OK) == nil
	s.Kill = h.kill()
	p := place(h)
	if p.enable {
		s.Controllers = append(s.Controllers, h.offered(p)...)
	} else if len(h.controllers) > 0 {
		s.Reason, s.Mend = p.reason, p.mend
	}
	if !s.Writable {
		s.Reason, s.Mend = reasonOf(errReadOnly, h.v2.dir())
	}
	return s
}

// offered returns the controllers a group placed by p can have.
func (h *host) offered(p placement) []string {
	top := p.base
	if top == "/"+sharedTop {
		top = "/"
	}
	words, err := readWords(filepath.Join(h.v2.mount, top, "cgroup.controllers"))
	if err != nil {
		return nil
	}
	return words
}

// kill reports whether groups can be killed at once. The top group has no
// cgroup.kill to look for, so the release is asked there.
func (h *host) kill() bool {
	if unix.Access(filepath.Join(h.v2.dir(), "cgroup.kill"), unix.F_OK) == nil {
		return true
	}
	var u unix.Utsname
	if h.v2.own != "/" || unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 5 || major == 5 && minor >= 14)
}

func isNoDevice(err error) bool { return errors.Is(err, unix.ENODEV) }
