// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNotFound is returned when no file describes a network.
var ErrNotFound = errors.New("no configuration describes it")

// File is a file with a list, or one that should have had one.
type File struct {
	List
	Problem error // why it cannot be used; List.Name is "" when not even that can be read
}

// Read returns the bytes of a file that may be believed.
type Read func(path string) ([]byte, error)

// Load reads the lists of every directory: gantry's own layers, from low to
// high, where a file replaces that of the same name and an empty one masks it;
// then those of other programs. A network that several files describe is that of
// the first: ours before theirs, by name.
func Load(layers, shared []string, read Read) ([]File, error) {
	own := map[string]string{}
	for _, dir := range layers {
		names, err := files(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			own[name] = filepath.Join(dir, name)
		}
	}
	var out []File
	described := map[string]int{} // where in out a network is
	for _, name := range sorted(own) {
		f, ok := load(own[name], read)
		if !ok {
			continue
		}
		if i, again := described[f.Name]; again && f.Name != "" {
			out[i].Problem = &FieldError{f.File, "name", fmt.Errorf("%s describes a network %q already", out[i].File, f.Name)}
			continue
		}
		described[f.Name] = len(out)
		out = append(out, f)
	}
	for _, dir := range shared {
		names, err := files(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range byKind(names) {
			if f, ok := load(filepath.Join(dir, name), read); ok {
				f.Shared = true
				out = append(out, f)
			}
		}
	}
	return first(out), nil
}

// Find is the list of a name among those Load read. A file of that name which
// is broken is the answer, too: another must not silently take its place.
func Find(all []File, name string) (List, error) {
	for _, f := range all {
		if f.Name == name {
			return f.List, f.Problem
		}
	}
	return List{}, ErrNotFound
}

// Broken is what is wrong with files that do not even tell their name.
func Broken(all []File) error {
	var broken []error
	for _, f := range all {
		if f.Name == "" {
			broken = append(broken, f.Problem)
		}
	}
	return errors.Join(broken...)
}

func load(path string, read Read) (File, bool) {
	data, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return File{}, false // it went meanwhile
	case err != nil:
		return File{List: List{File: path}, Problem: err}, true
	case len(data) == 0:
		return File{}, false // masked
	case len(data) > MaxFile:
		return File{List: List{File: path}, Problem: &FieldError{path, "", fmt.Errorf("it has more than %d bytes", MaxFile)}}, true
	}
	// Its name says where the rest of it is.
	var extra []Extra
	l, err := Parse(path, data, nil)
	if !single(path) && l.Name != "" {
		if extra, err = beside(dirOf(path, l.Name), read); err == nil {
			l, err = Parse(path, data, extra)
		}
	}
	return File{List: l, Problem: err}, true
}

// beside reads the plugins that are files of their own.
func beside(dir string, read Read) ([]Extra, error) {
	names, err := files(dir)
	if err != nil {
		return nil, err
	}
	var out []Extra
	for _, name := range names {
		if filepath.Ext(name) != ".conf" {
			continue
		}
		path := filepath.Join(dir, name)
		data, err := read(path)
		if err != nil {
			return nil, err
		}
		out = append(out, Extra{path, data})
	}
	return out, nil
}

func dirOf(file, name string) string { return filepath.Join(filepath.Dir(file), name) }

// files are the names of a directory that may hold configuration, sorted. One
// that is not there is empty.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	var names []string
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") && slices.Contains([]string{".conflist", ".conf", ".json"}, ext) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// byKind puts lists before single plugins, as libcni looks.
func byKind(names []string) []string {
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case single(a) == single(b):
			return strings.Compare(a, b)
		case single(a):
			return 1
		}
		return -1
	})
	return names
}

func sorted(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	return byKind(names)
}

// first drops files that describe a network again.
func first(all []File) []File {
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(f File) bool {
		again := f.Name != "" && seen[f.Name]
		seen[f.Name] = true
		return again
	})
}
