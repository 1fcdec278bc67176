// SPDX-License-Identifier: Apache-2.0

// Package hooks reads the files of a hooks.d directory, as oci-hooks(5) of
// podman and CRI-O describes them, and tells which OCI hooks a bundle gets.
package hooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/bounded"
)

// maxFile bounds one file.
const maxFile = 1 << 20

// File is one of a directory.
type File struct {
	Version string     `json:"version"`
	Hook    specs.Hook `json:"hook"`
	When    When       `json:"when"`
	Stages  []string   `json:"stages"`
}

// When is the condition: all that is set holds.
type When struct {
	Always        *bool             `json:"always"`
	Annotations   map[string]string `json:"annotations"`   // patterns of a key and its value
	Commands      []string          `json:"commands"`      // patterns of the program's path: one of them
	HasBindMounts *bool             `json:"hasBindMounts"` // the user's
}

// Stages are those a hook can be for.
func Stages() []string {
	return []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}
}

// Parse reads and checks one file.
func Parse(b []byte) (*File, error) {
	f := &File{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if d.More() {
		return nil, errors.New("something follows the document")
	}
	return f, f.check()
}

func (f *File) check() error {
	switch {
	case f.Version != "1.0.0":
		return fmt.Errorf("version: %q is not 1.0.0", f.Version)
	case !path.IsAbs(f.Hook.Path):
		return fmt.Errorf("hook.path: %q is not an absolute path", f.Hook.Path)
	case f.Hook.Timeout != nil && *f.Hook.Timeout <= 0:
		return fmt.Errorf("hook.timeout: %d is not above zero", *f.Hook.Timeout)
	case len(f.Stages) == 0:
		return errors.New("stages: are missing")
	}
	for i, s := range f.Stages {
		if !slices.Contains(Stages(), s) {
			return fmt.Errorf("stages[%d]: %q is not one of %s", i, s, strings.Join(Stages(), " "))
		}
	}
	for key, value := range f.When.Annotations {
		for _, pattern := range []string{key, value} {
			if _, err := regexp.Compile(pattern); err != nil {
				return fmt.Errorf("when.annotations: %w", err)
			}
		}
	}
	for i, pattern := range f.When.Commands {
		if _, err := regexp.Compile(pattern); err != nil {
			return fmt.Errorf("when.commands[%d]: %w", i, err)
		}
	}
	w := f.When
	if w.Always == nil && w.HasBindMounts == nil && len(w.Annotations)+len(w.Commands) == 0 {
		return errors.New("when: is empty, so it never holds")
	}
	return nil
}

// Match tells whether the hook is for a bundle; binds says that the user
// mounted something of the host.
func (w When) Match(spec *specs.Spec, binds bool) bool {
	if w.Always != nil && !*w.Always || w.HasBindMounts != nil && *w.HasBindMounts != binds {
		return false
	}
	for key, value := range w.Annotations {
		if !annotated(spec.Annotations, key, value) {
			return false
		}
	}
	if len(w.Commands) == 0 {
		return true
	}
	return slices.ContainsFunc(w.Commands, func(p string) bool { return matches(p, spec.Process.Args[0]) })
}

func annotated(annotations map[string]string, key, value string) bool {
	for k, v := range annotations {
		if matches(key, k) && matches(value, v) {
			return true
		}
	}
	return false
}

// matches is after check, where every pattern was compiled.
func matches(pattern, s string) bool {
	ok, err := regexp.MatchString(pattern, s)
	return err == nil && ok
}

// Load reads directories; a file of a later one stands for one of the same
// name before. The files are in the order of their names, in small letters:
// the order that hooks run in.
func Load(dirs []string) ([]*File, error) {
	found := map[string]string{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if filepath.Ext(e.Name()) == ".json" {
				found[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	names := make([]string, 0, len(found))
	for n := range found {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		if c := strings.Compare(strings.ToLower(a), strings.ToLower(b)); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	out := make([]*File, 0, len(names))
	for _, n := range names {
		f, err := read(found[n])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", found[n], err)
		}
		out = append(out, f)
	}
	return out, nil
}

func read(name string) (*File, error) {
	b, err := bounded.Regular(name, maxFile)
	if err != nil {
		return nil, bounded.Cause(err)
	}
	file, err := Parse(b)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(file.Hook.Path); err != nil {
		return nil, fmt.Errorf("hook.path: %w", err)
	}
	return file, nil
}
