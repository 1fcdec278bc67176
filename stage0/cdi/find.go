// SPDX-License-Identifier: Apache-2.0

package cdi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantryrun/gantry/internal/bounded"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/stage0/bundle"
)

// maxFile bounds a specification.
const maxFile = 4 << 20

// Dirs are where specifications are, the later the stronger.
func Dirs() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// IsName tells a device of CDI, VENDOR/CLASS=NAME, from a path.
func IsName(s string) bool {
	kind, name, ok := strings.Cut(s, "=")
	vendor, class, _ := strings.Cut(kind, "/")
	return ok && word(vendor, "_-.") && word(class, "_-") && deviceName(name)
}

// file is a specification and where it was, or what is wrong with it.
type file struct {
	name string
	dir  int
	spec *Spec
	err  error
}

// Resolve returns the edits of devices, in the order they are asked for, each
// after those of its specification, which come once. A wrong file is an error
// if it may be the one that a device is missing from; else note is told.
func Resolve(dirs, names []string, note func(string)) ([]bundle.Edits, error) {
	files, err := load(dirs)
	if err != nil {
		return nil, err
	}
	var out []bundle.Edits
	general := map[string]bool{}
	for _, name := range names {
		f, d, err := find(files, name, dirs)
		if err != nil {
			return nil, err
		}
		if !general[f.name] {
			general[f.name] = true
			out = append(out, f.spec.Edits.bundle())
		}
		out = append(out, d.Edits.bundle())
	}
	for _, f := range files {
		if f.err != nil && note != nil {
			note(fmt.Sprintf("CDI specification %s is left out: %v", f.name, f.err))
		}
	}
	return out, nil
}

func load(dirs []string) ([]file, error) {
	var out []file
	for i, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("CDI specifications: %w", err)
		}
		for _, e := range entries {
			ext := filepath.Ext(e.Name())
			if e.IsDir() || ext != ".json" && ext != ".yaml" {
				continue
			}
			f := file{name: filepath.Join(dir, e.Name()), dir: i}
			f.spec, f.err = read(f.name, ext == ".json")
			out = append(out, f)
		}
	}
	return out, nil
}

func read(name string, isJSON bool) (*Spec, error) {
	b, err := bounded.Regular(name, maxFile)
	if err != nil {
		return nil, bounded.Cause(err)
	}
	return Parse(b, isJSON)
}

// find looks in the strongest directory that has the device.
func find(files []file, name string, dirs []string) (*file, *Device, error) {
	kind, device, _ := strings.Cut(name, "=")
	var at *file
	var found *Device
	var known []string
	for i := range files {
		f := &files[i]
		if f.err != nil || f.spec.Kind != kind {
			continue
		}
		for j := range f.spec.Devices {
			d := &f.spec.Devices[j]
			known = append(known, d.Name)
			if d.Name != device {
				continue
			}
			if at != nil && at.dir == f.dir {
				return nil, nil, fmt.Errorf("--device %s: both %s and %s have it", name, at.name, f.name)
			}
			at, found = f, d
		}
	}
	if found != nil {
		return at, found, nil
	}
	for _, f := range files {
		if f.err != nil {
			return nil, nil, fmt.Errorf("--device %s: no specification has it, and %s is wrong: %w", name, f.name, f.err)
		}
	}
	err := fmt.Errorf("--device %s: no CDI specification in %s has it", name, strings.Join(dirs, " or "))
	if len(known) > 0 {
		slices.Sort(known)
		return nil, nil, hint.With(err, "of "+kind+" there are "+strings.Join(slices.Compact(known), ", "))
	}
	return nil, nil, hint.With(err, "the vendor's tools write one, as 'nvidia-ctk cdi generate' does")
}
