// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/gantryrun/gantry/internal/conf"
	"github.com/gantryrun/gantry/netns/cni"
)

// Plugins is where the plugins of others' networks are, and how they are run.
type Plugins struct {
	Path    []string      // directories of executables
	Lists   []string      // directories of configuration that other programs use too
	Timeout time.Duration // of one plugin
}

// pluginsDir is below the configuration path.
const pluginsDir = "cni.d"

// ReadPlugins is where distributions and other programs have them, and what
// drop-in files say otherwise.
func ReadPlugins(configPath []string) (Plugins, error) {
	p := Plugins{
		Path:    []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"},
		Lists:   []string{"/etc/cni/net.d"},
		Timeout: cni.DefaultTimeout,
	}
	files, err := conf.Load(configPath, pluginsDir)
	if err != nil {
		return p, err
	}
	for _, f := range files {
		if f.Problem != nil {
			return p, f.Problem
		}
		for _, s := range f.Sections {
			if s.Name != "Plugins" {
				return p, fmt.Errorf("%s: line %d: section [%s] is unknown: there is [Plugins]", f.Path, s.Line, s.Name)
			}
			for _, kv := range s.Keys {
				if err := p.set(kv.Key, kv.Value); err != nil {
					return p, fmt.Errorf("%s: line %d: %w", f.Path, kv.Line, err)
				}
			}
		}
	}
	return p, nil
}

func (p *Plugins) set(key, value string) (err error) {
	switch key {
	case "Path":
		p.Path, err = directories(value)
	case "Lists":
		p.Lists, err = directories(value)
	case "Timeout":
		p.Timeout, err = time.ParseDuration(value)
		if err == nil && p.Timeout <= 0 {
			err = fmt.Errorf("%s gives no plugin any time", value)
		}
	default:
		return fmt.Errorf("%s= is unknown: there are Path=, Lists= and Timeout=", key)
	}
	if err != nil {
		return fmt.Errorf("%s=: %w", key, err)
	}
	return nil
}

// directories reads a list as in PATH; an empty one is none.
func directories(value string) ([]string, error) {
	var dirs []string
	for dir := range strings.SplitSeq(value, ":") {
		switch {
		case dir == "":
		case !filepath.IsAbs(dir):
			return nil, fmt.Errorf("%q is not absolute", dir)
		default:
			dirs = append(dirs, filepath.Clean(dir))
		}
	}
	return dirs, nil
}
