// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"fmt"
	"strings"
)

// parseEntrypoint reads --entrypoint: a JSON array, or one command as it
// stands; the empty string clears the image's.
func parseEntrypoint(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	if !strings.HasPrefix(s, "[") {
		return []string{s}, nil
	}
	var args []string
	if err := json.Unmarshal([]byte(s), &args); err != nil {
		return nil, fmt.Errorf("--entrypoint %q: it begins like a JSON array and is none: %w", s, err)
	}
	return args, nil
}

// environ is an ordered set of variables.
type environ struct {
	names  []string
	values map[string]string
}

func (e *environ) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

func (e *environ) unset(name string) { delete(e.values, name) }

func (e *environ) missing(name string) bool { _, ok := e.values[name]; return !ok }

func (e *environ) list() []string {
	out := make([]string, 0, len(e.names))
	for _, n := range e.names {
		if v, ok := e.values[n]; ok {
			out = append(out, n+"="+v)
			delete(e.values, n) // a name unset and set again is listed twice
		}
	}
	return out
}

// environment merges, low to high: defaults, the image, --env-file, --env.
func (b *builder) environment() error {
	env := &environ{values: map[string]string{}}
	env.set("PATH", DefaultPath)
	env.set("container", "gantry")
	if b.Options.TTY {
		env.set("TERM", "xterm")
	}
	b.callersEnvironment(env)
	for _, kv := range b.Image.Env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			// CVE-2026-57231: only the user's own flags may reach into the
			// caller's environment, an image never.
			return fmt.Errorf("the image's environment entry %q: it is not NAME=VALUE", kv)
		}
		if strings.ContainsRune(kv, 0) {
			return fmt.Errorf("the image's environment entry %q: it holds a NUL", kv)
		}
		env.set(name, value)
	}
	if err := b.mergeEnv(env); err != nil {
		return err
	}
	if b.Options.UnsetEnvAll {
		env = &environ{values: map[string]string{}}
	}
	for i, file := range b.Host.EnvFiles {
		name := fmt.Sprintf("--env-file #%d", i+1)
		if i < len(b.Options.EnvFiles) {
			name = "--env-file " + b.Options.EnvFiles[i]
		}
		if err := b.envFile(env, name, file); err != nil {
			return err
		}
	}
	for _, kv := range b.Options.Env {
		if err := setEnv(env, "--env", kv, b.Host.Environ); err != nil {
			return err
		}
	}
	for _, name := range b.Options.UnsetEnv {
		env.unset(name)
	}
	if env.missing("HOSTNAME") {
		env.set("HOSTNAME", b.name)
	}
	if env.missing("HOME") {
		env.set("HOME", b.home)
	}
	b.r.Spec.Process.Env = env.list()
	return nil
}

// envFile reads one --env-file: a line each, '#' begins a comment line, and
// nothing is unquoted, as with podman and Docker.
func (b *builder) envFile(env *environ, name string, file []byte) error {
	for i, line := range strings.Split(string(file), "\n") {
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := setEnv(env, fmt.Sprintf("%s:%d:", name, i+1), line, b.Host.Environ); err != nil {
			return err
		}
	}
	return nil
}

// setEnv applies one entry of the user's: NAME=VALUE; NAME, which is taken
// from the caller where set; NAME*, which takes all that begin so.
func setEnv(env *environ, where, kv string, caller []string) error {
	name, value, ok := strings.Cut(kv, "=")
	switch {
	case name == "" || strings.ContainsAny(name, " \t\n\r"):
		return fmt.Errorf("%s %q: write NAME=VALUE or NAME", where, kv)
	case strings.ContainsRune(kv, 0):
		return fmt.Errorf("%s %q: it holds a NUL", where, kv)
	case ok:
		env.set(name, value)
		return nil
	}
	prefix, glob := strings.CutSuffix(name, "*")
	for _, have := range caller {
		n, v, ok := strings.Cut(have, "=")
		if ok && n != "" && (n == name || glob && strings.HasPrefix(n, prefix)) {
			env.set(n, v)
		}
	}
	return nil
}

// MergeEnv applies --env entries of exec over an app's environment.
func MergeEnv(base, overrides, caller []string, files [][]byte) ([]string, error) {
	env := &environ{values: map[string]string{}}
	for _, kv := range base {
		if n, v, ok := strings.Cut(kv, "="); ok {
			env.set(n, v)
		}
	}
	b := builder{Input: Input{Host: Host{Environ: caller}}}
	for i, f := range files {
		if err := b.envFile(env, fmt.Sprintf("--env-file #%d", i+1), f); err != nil {
			return nil, err
		}
	}
	for _, kv := range overrides {
		if err := setEnv(env, "--env", kv, caller); err != nil {
			return nil, err
		}
	}
	return env.list(), nil
}
