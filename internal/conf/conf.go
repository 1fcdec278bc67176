// SPDX-License-Identifier: Apache-2.0

// Package conf reads drop-in configuration the way systemd does: small INI
// files in one subdirectory of several layers (vendor, runtime, admin), where
// a later layer's file replaces an earlier one of the same name, and an empty
// file or a link to /dev/null masks it.
//
// The package never drops a file silently. A file that cannot be believed
// (wrong owner, writable by others, not a regular file, unparsable) comes back
// with its Problem set, together with whatever could be read of it, and the
// caller decides what failing closed means for its own subject.
package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of one layer. They are far above what a person writes and low enough
// that a broken generator cannot make every launch slow.
const (
	MaxFile  = 64 << 10
	MaxFiles = 4096
	maxLines = 2048
)

// File is one drop-in file, or one layer directory that could not be read.
type File struct {
	Name     string // base name, the key of layering; "" for a directory
	Path     string // where it was found
	Sections []Section
	// Problem says why the file must not be believed. Sections then hold what
	// could be read all the same, so that a caller can tell what it was about.
	Problem error
}

// Section is one [Name] block.
type Section struct {
	Name string
	Line int
	Keys []KeyValue
}

// KeyValue is one Key=Value line, both trimmed of white space.
type KeyValue struct {
	Key, Value string
	Line       int
}

// Reader reads from one configuration path and judges each directory once.
// What it judged it does not look at again: make one for each decision.
type Reader struct {
	path    []string
	inspect *inspector
}

// NewReader takes the layers from low to high precedence.
func NewReader(configPath []string) *Reader {
	return &Reader{path: configPath, inspect: newInspector()}
}

// Path is the configuration path.
func (r *Reader) Path() []string { return r.path }

// Load is Reader.Load for a single use.
func Load(configPath []string, subdir string) ([]File, error) {
	return NewReader(configPath).Load(subdir)
}

// Load reads every *.conf file of subdir in the layers, from low
// to high precedence, and returns what is in force sorted by file name. A
// missing layer is no error; a layer that exists and cannot be believed is a
// File whose Name is empty and whose Problem is set.
//
// A file with a Problem cannot mask: the files it would have replaced are
// returned too, each with a Problem of its own, because nobody can say which
// of the two was meant to hold.
func (r *Reader) Load(subdir string) ([]File, error) {
	if subdir == "" || !filepath.IsLocal(subdir) {
		return nil, fmt.Errorf("load configuration: %q is not a directory below the configuration path", subdir)
	}
	l := loader{inspect: r.inspect, byName: map[string][]File{}}
	for _, layer := range r.path {
		if err := l.layer(layer, subdir); err != nil {
			return nil, err
		}
	}
	return l.inForce(), nil
}

type loader struct {
	inspect *inspector
	byName  map[string][]File // every version of a name, low to high
	broken  []File            // layers that could not be read
}

func (l *loader) layer(layer, subdir string) error {
	if !filepath.IsAbs(layer) {
		return fmt.Errorf("load configuration: %q in the configuration path is not absolute", layer)
	}
	dir := filepath.Join(layer, subdir)
	for _, name := range l.names(dir) {
		f := File{Name: name, Path: filepath.Join(dir, name)}
		data, err := l.inspect.read(f.Path, MaxFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since it was listed
		}
		f.Sections, f.Problem = Parse(data)
		if err != nil {
			f.Problem = err
		}
		l.byName[name] = append(l.byName[name], f)
	}
	return nil
}

// names lists a layer's directory; one that is not there is an empty layer.
func (l *loader) names(dir string) []string {
	names, err := l.inspect.list(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.broken = append(l.broken, File{Path: dir, Problem: err})
	}
	return names
}

// inForce lets the highest version of each name win.
func (l *loader) inForce() []File {
	out := l.broken
	for _, versions := range l.byName {
		top := versions[len(versions)-1]
		if top.Problem == nil && len(top.Sections) == 0 {
			continue // masked
		}
		out = append(out, top)
		if top.Problem == nil {
			continue
		}
		for _, f := range versions[:len(versions)-1] {
			if f.Problem == nil {
				f.Problem = fmt.Errorf("replaced by %s, which cannot be believed", top.Path)
			}
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b File) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Path, b.Path)
	})
	return out
}

// Read returns the file rel of the highest layer that has it, with the same
// checks of ownership as Load. It returns the path it was read from, also when
// it could not be believed, and no path with fs.ErrNotExist when no layer has it
// or the highest one masks it.
func (r *Reader) Read(rel string, limit int64) (path string, data []byte, err error) {
	if rel == "" || !filepath.IsLocal(rel) {
		return "", nil, fmt.Errorf("read configuration: %q is not a file below the configuration path", rel)
	}
	for _, layer := range slices.Backward(r.path) {
		path = filepath.Join(layer, rel)
		data, err = r.inspect.read(path, limit)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && len(data) == 0 {
			return "", nil, fmt.Errorf("%s is masked: %w", path, fs.ErrNotExist)
		}
		return path, data, err
	}
	return "", nil, fmt.Errorf("%s: %w", rel, fs.ErrNotExist)
}

// ReadFile reads one file by its absolute path with the same checks.
func ReadFile(path string, limit int64) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("read configuration: %q is not absolute", path)
	}
	return newInspector().read(filepath.Clean(path), limit)
}

// list returns the names of the drop-in files of a checked directory.
func (in *inspector) list(dir string) ([]string, error) {
	found, err := in.walk(dir, wantDir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(found)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".conf") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	if len(names) > MaxFiles {
		return nil, fmt.Errorf("%s holds %d files; at most %d are read", dir, len(names), MaxFiles)
	}
	return names, nil
}
