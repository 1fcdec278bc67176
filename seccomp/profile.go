// SPDX-License-Identifier: Apache-2.0

// Package seccomp turns a profile into the filter an app runs under. The
// default profile is the one Docker and podman users know
// (github.com/moby/profiles). Filters are compiled by gantry-seccomp, the one
// executable with cgo, and kept for the rest of the boot.
package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// MaxProfile bounds a profile file. Docker's own is 15 KiB.
const MaxProfile = 1 << 20

// Default returns the default profile for an app whose bounding set is caps
// ("CAP_SYS_ADMIN"), on this architecture and kernel.
func Default(caps []string) (*specs.LinuxSeccomp, error) {
	sp, err := moby.GetDefaultProfile(bounded(caps))
	if err != nil {
		return nil, fmt.Errorf("make default seccomp profile: %w", err)
	}
	return sp, nil
}

// bounded is what the profile package asks a spec for.
func bounded(caps []string) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
}

// file is a profile as docker and podman write it. podman's files name an
// error number beside giving it; everything else is moby's.
type file struct {
	moby.Seccomp
	DefaultErrno string  `json:"defaultErrno,omitempty"`
	Syscalls     []*call `json:"syscalls"`
}

type call struct {
	moby.Syscall
	Errno string `json:"errno,omitempty"`
}

// Load reads a profile file in docker's or podman's form for an app whose
// bounding set is caps. Anything it does not understand is an error: a
// misspelt key must not become a hole.
func Load(b []byte, caps []string) (*specs.LinuxSeccomp, error) {
	sp, err := load(b, caps)
	if err != nil {
		return nil, fmt.Errorf("read seccomp profile: %w", err)
	}
	return sp, nil
}

func load(b []byte, caps []string) (*specs.LinuxSeccomp, error) {
	if len(b) > MaxProfile {
		return nil, fmt.Errorf("it has more than %d bytes", MaxProfile)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var f file
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the profile")
	}
	if f.DefaultAction == "" {
		// moby reads this as "no seccomp"; whoever wants that says unconfined.
		return nil, errors.New("defaultAction is missing")
	}
	plain, err := f.plain()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(plain)
	if err != nil {
		return nil, err
	}
	sp, err := moby.LoadProfile(string(body), bounded(caps))
	if err != nil {
		return nil, err
	}
	return sp, Validate(sp)
}

// plain returns the profile in moby's form, error numbers resolved.
func (f *file) plain() (*moby.Seccomp, error) {
	out := f.Seccomp
	ret, err := errnoRet(f.DefaultErrnoRet, f.DefaultErrno)
	if err != nil {
		return nil, fmt.Errorf("defaultErrno: %w", err)
	}
	out.DefaultErrnoRet = ret
	out.Syscalls = nil
	for i, c := range f.Syscalls {
		if c == nil {
			return nil, fmt.Errorf("syscalls[%d] is null", i)
		}
		if c.ErrnoRet, err = errnoRet(c.ErrnoRet, c.Errno); err != nil {
			return nil, fmt.Errorf("syscalls[%d].errno: %w", i, err)
		}
		out.Syscalls = append(out.Syscalls, &c.Syscall)
	}
	return &out, nil
}

// errnoRet joins an error number and its name, which must agree.
func errnoRet(n *uint, name string) (*uint, error) {
	if name == "" {
		return n, nil
	}
	for e := uint(1); e <= maxErrno; e++ {
		if unix.ErrnoName(unix.Errno(e)) != name {
			continue
		}
		if n != nil && *n != e {
			return nil, fmt.Errorf("%s is %d, and the number beside it is %d", name, e, *n)
		}
		return &e, nil
	}
	return nil, fmt.Errorf("%q is not the name of an error", name)
}
