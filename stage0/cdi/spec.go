// SPDX-License-Identifier: Apache-2.0

// Package cdi reads specifications of the Container Device Interface: what a
// vendor's device consists of, in files that the host's admin installed.
// The reference library brings a watcher of directories, two parsers of YAML
// and a validator with it, several times what a launch otherwise links.
package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/stage0/bundle"
)

// Spec is one file, as SPEC.md of CDI 1.1 has it.
type Spec struct {
	Version     string            `json:"cdiVersion"`
	Kind        string            `json:"kind"`
	Annotations map[string]string `json:"annotations"`
	Devices     []Device          `json:"devices"`
	Edits       Edits             `json:"containerEdits"`
}

// Device is one that can be asked for.
type Device struct {
	Name        string            `json:"name"`
	Annotations map[string]string `json:"annotations"`
	Edits       Edits             `json:"containerEdits"`
}

// Edits are what an app gets.
type Edits struct {
	Env         []string    `json:"env"`
	DeviceNodes []Node      `json:"deviceNodes"`
	NetDevices  []NetDevice `json:"netDevices"`
	Hooks       []Hook      `json:"hooks"`
	Mounts      []Mount     `json:"mounts"`
	IntelRdt    *IntelRdt   `json:"intelRdt"`
	GIDs        []uint32    `json:"additionalGIDs"`
}

// Node is a device node. What it lacks is the host's.
type Node struct {
	Path        string  `json:"path"`
	HostPath    string  `json:"hostPath"`
	Type        string  `json:"type"`
	Major       int64   `json:"major"`
	Minor       int64   `json:"minor"`
	FileMode    *uint32 `json:"fileMode"`
	Permissions string  `json:"permissions"`
	UID         *uint32 `json:"uid"`
	GID         *uint32 `json:"gid"`
}

// NetDevice is a network interface that is moved.
type NetDevice struct {
	Host string `json:"hostInterfaceName"`
	Name string `json:"name"`
}

// Mount is one of the host's.
type Mount struct {
	HostPath      string   `json:"hostPath"`
	ContainerPath string   `json:"containerPath"`
	Options       []string `json:"options"`
	Type          string   `json:"type"`
}

// Hook is a program of the host.
type Hook struct {
	Name    string   `json:"hookName"`
	Path    string   `json:"path"`
	Args    []string `json:"args"`
	Env     []string `json:"env"`
	Timeout *int     `json:"timeout"`
}

// IntelRdt is a class of cache and memory bandwidth.
type IntelRdt struct {
	ClosID           string   `json:"closID"`
	L3CacheSchema    string   `json:"l3CacheSchema"`
	MemBwSchema      string   `json:"memBwSchema"`
	Schemata         []string `json:"schemata"`
	EnableMonitoring bool     `json:"enableMonitoring"`
	EnableCMT        bool     `json:"enableCMT"`
	EnableMBM        bool     `json:"enableMBM"`
}

// Parse reads one file, YAML unless it is JSON, and checks all of it.
func Parse(b []byte, isJSON bool) (*Spec, error) {
	if !isJSON {
		var err error
		if b, err = toJSON(b); err != nil {
			return nil, err
		}
	}
	s := &Spec{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if d.More() {
		return nil, errors.New("something follows the specification")
	}
	return s, s.check()
}

// versions that were released.
func versions() []string {
	return []string{"0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"}
}

func (s *Spec) check() error {
	vendor, class, _ := strings.Cut(s.Kind, "/")
	switch {
	case !slices.Contains(versions(), s.Version):
		return fmt.Errorf("cdiVersion: %q is not one of %s", s.Version, strings.Join(versions(), " "))
	case !word(vendor, "_-.") || !word(class, "_-"):
		return fmt.Errorf("kind: %q is not VENDOR/CLASS", s.Kind)
	case len(s.Devices) == 0:
		return errors.New("devices: are missing")
	}
	if err := s.Edits.check("containerEdits"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i, d := range s.Devices {
		field := fmt.Sprintf("devices[%d]", i)
		if !deviceName(d.Name) {
			return fmt.Errorf("%s.name: %q is not the name of a device", field, d.Name)
		}
		if seen[d.Name] {
			return fmt.Errorf("%s.name: %q is given twice", field, d.Name)
		}
		seen[d.Name] = true
		if err := d.Edits.check(field + ".containerEdits"); err != nil {
			return err
		}
	}
	return nil
}

func (e *Edits) check(field string) error {
	for i, kv := range e.Env {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("%s.env[%d]: %q is not NAME=VALUE", field, i, kv)
		}
	}
	for i, n := range e.DeviceNodes {
		if err := n.check(); err != nil {
			return fmt.Errorf("%s.deviceNodes[%d].%w", field, i, err)
		}
	}
	for i, n := range e.NetDevices {
		for name, value := range map[string]string{"hostInterfaceName": n.Host, "name": n.Name} {
			if value == "" || len(value) > 15 || strings.ContainsAny(value, "/ \t\n\x00") {
				return fmt.Errorf("%s.netDevices[%d].%s: %q is not the name of an interface", field, i, name, value)
			}
		}
	}
	for i, m := range e.Mounts {
		if !path.IsAbs(m.HostPath) || strings.ContainsRune(m.HostPath, 0) {
			return fmt.Errorf("%s.mounts[%d].hostPath: %q is not an absolute path", field, i, m.HostPath)
		}
		if !path.IsAbs(m.ContainerPath) || strings.ContainsRune(m.ContainerPath, 0) || path.Clean(m.ContainerPath) == "/" {
			return fmt.Errorf("%s.mounts[%d].containerPath: %q is not an absolute path", field, i, m.ContainerPath)
		}
	}
	for i, h := range e.Hooks {
		if err := h.check(); err != nil {
			return fmt.Errorf("%s.hooks[%d].%w", field, i, err)
		}
	}
	if e.IntelRdt != nil {
		return fmt.Errorf("%s.intelRdt: classes of cache and memory bandwidth are not given out by run", field)
	}
	return nil
}

func (n Node) check() error {
	switch {
	case !path.IsAbs(n.Path) || strings.ContainsRune(n.Path, 0):
		return fmt.Errorf("path: %q is not an absolute path", n.Path)
	case n.HostPath != "" && !path.IsAbs(n.HostPath):
		return fmt.Errorf("hostPath: %q is not an absolute path", n.HostPath)
	case !slices.Contains([]string{"", "b", "c", "u", "p"}, n.Type):
		return fmt.Errorf("type: %q is not one of b, c, u, p", n.Type)
	case strings.Trim(n.Permissions, "rwm") != "":
		return fmt.Errorf("permissions: %q are not some of rwm", n.Permissions)
	case n.Major < 0 || n.Minor < 0:
		return fmt.Errorf("major: %d:%d is not the number of a device", n.Major, n.Minor)
	case n.FileMode != nil && *n.FileMode > 0o7777:
		return fmt.Errorf("fileMode: %#o is not a mode", *n.FileMode)
	}
	return nil
}

func (h Hook) check() error {
	switch {
	case !slices.Contains([]string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}, h.Name):
		return fmt.Errorf("hookName: %q is not the name of a hook", h.Name)
	case !path.IsAbs(h.Path):
		return fmt.Errorf("path: %q is not an absolute path", h.Path)
	case h.Timeout != nil && *h.Timeout <= 0:
		return fmt.Errorf("timeout: %d is not above zero", *h.Timeout)
	}
	return nil
}

// word tells whether a name is of letters, digits and some others, and begins
// with a letter.
func word(s, others string) bool {
	return s != "" && letter(s[0]) && alnum(s[len(s)-1]) && strings.Trim(s, letters+digits+others) == ""
}

func deviceName(s string) bool {
	return s != "" && alnum(s[0]) && alnum(s[len(s)-1]) && strings.Trim(s, letters+digits+"_-.:") == ""
}

const (
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
)

func letter(c byte) bool { return strings.IndexByte(letters, c) >= 0 }
func alnum(c byte) bool  { return strings.IndexByte(letters+digits, c) >= 0 }

// bundle says edits in the words of a bundle.
func (e *Edits) bundle() bundle.Edits {
	out := bundle.Edits{Env: e.Env, GIDs: e.GIDs}
	for _, n := range e.DeviceNodes {
		out.Devices = append(out.Devices, bundle.DeviceEdit{
			Path: path.Clean(n.Path), Host: cmpOr(n.HostPath, n.Path), Type: n.Type, Major: n.Major, Minor: n.Minor,
			Mode: n.FileMode, UID: n.UID, GID: n.GID, Access: cmpOr(n.Permissions, "rwm"),
		})
	}
	for _, n := range e.NetDevices {
		if out.NetDevices == nil {
			out.NetDevices = map[string]specs.LinuxNetDevice{}
		}
		out.NetDevices[n.Host] = specs.LinuxNetDevice{Name: n.Name}
	}
	for _, m := range e.Mounts {
		kind := cmpOr(m.Type, "bind")
		options := m.Options
		if kind == "bind" && !slices.Contains(options, "bind") && !slices.Contains(options, "rbind") {
			options = append(slices.Clone(options), "bind")
		}
		out.Mounts = append(out.Mounts, specs.Mount{Destination: path.Clean(m.ContainerPath), Source: m.HostPath, Type: kind, Options: options})
	}
	for _, h := range e.Hooks {
		out.Hooks = append(out.Hooks, bundle.HookEdit{Stage: h.Name, Hook: specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout}})
	}
	return out
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
