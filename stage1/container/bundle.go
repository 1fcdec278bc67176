// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/jsonin"
)

// maxConfig bounds a config.json; those engines write have some 100 KiB.
const maxConfig = 8 << 20

func loadBundle(bundle string) ([]byte, *specs.Spec, error) {
	// A pipe in its place would keep us for ever (the like of CVE-2024-9676).
	f, err := os.OpenFile(filepath.Join(bundle, configFile), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle: %w", err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("bundle: %w", errors.Join(err, fmt.Errorf("%s is not a regular file", f.Name())))
	}
	b, err := readAtMost(f, maxConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle: %w", err)
	}
	spec, err := decodeBundle(b)
	if err != nil {
		return nil, nil, err
	}
	if fi, err := os.Stat(rootfs(spec, bundle)); err != nil || !fi.IsDir() {
		if err == nil {
			err = errors.New("is not a directory")
		}
		return nil, nil, fmt.Errorf("root.path: %w", err)
	}
	return b, spec, nil
}

func decodeBundle(b []byte) (*specs.Spec, error) {
	var spec specs.Spec
	err := jsonin.Unmarshal(b, &spec)
	if e := (*json.UnmarshalTypeError)(nil); errors.As(err, &e) && e.Field != "" {
		return nil, fmt.Errorf("%s: is a JSON %s, and must be %s", e.Field, e.Value, jsonKind(e.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("bundle: read %s: %w", configFile, err)
	}
	switch {
	case spec.Version == "":
		return nil, errors.New("ociVersion: is missing")
	case !strings.HasPrefix(spec.Version, "1."):
		return nil, fmt.Errorf("ociVersion: %q is not a version this runtime knows (1.0 to %s)", spec.Version, specs.Version)
	case spec.Root == nil || spec.Root.Path == "":
		return nil, errors.New("root.path: is missing")
	}
	return &spec, nil
}

// jsonKind says in words of JSON what a field takes.
func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	}
	return "a number of type " + t.Kind().String()
}

func rootfs(spec *specs.Spec, bundle string) string {
	if filepath.IsAbs(spec.Root.Path) {
		return spec.Root.Path
	}
	return filepath.Join(bundle, spec.Root.Path)
}

// cgroupPath is what the bundle asks for; empty leaves it to us.
func cgroupPath(spec *specs.Spec) string {
	if spec.Linux == nil {
		return ""
	}
	return spec.Linux.CgroupsPath
}

// Rootfs is the absolute path of the container's root on the host.
func (c *Container) Rootfs() string {
	spec, err := c.Spec()
	if err != nil || spec.Root == nil {
		return ""
	}
	return rootfs(spec, c.Bundle)
}

// SpecVersion is the version of runtime-spec that is implemented.
var SpecVersion = specs.Version
