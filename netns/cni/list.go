// SPDX-License-Identifier: Apache-2.0

// Package cni reads the network configuration lists of the Container Network
// Interface, by which others describe networks, and talks to gantry-net, which
// runs their plugins. It links none of their code.
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// MaxFile is more than a person writes into one file.
const MaxFile = 64 << 10

// versions are those of the specification, oldest first.
var versions = [...]string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// List is a configuration list with all its plugins inside.
type List struct {
	File         string `json:"file"`
	Name         string `json:"name"`
	Version      string `json:"cniVersion"` // of the specification, the one that is used
	DisableCheck bool   `json:"disableCheck,omitempty"`
	DisableGC    bool   `json:"disableGC,omitempty"`
	// Shared is set for a list that other programs use too: what they attached
	// is none of ours to collect.
	Shared  bool            `json:"shared,omitempty"`
	Plugins []Plugin        `json:"-"`
	Bytes   json.RawMessage `json:"-"` // the list as libcni reads it, nothing left to load
}

// Plugin is one element of a list.
type Plugin struct {
	Type         string
	Capabilities []string // what it takes of the runtime, sorted
	Bytes        json.RawMessage
}

// Has says whether a plugin of the list takes a capability argument.
func (l List) Has(capability string) bool {
	return slices.ContainsFunc(l.Plugins, func(p Plugin) bool { return slices.Contains(p.Capabilities, capability) })
}

// Types are the plugins in their order.
func (l List) Types() []string {
	types := make([]string, len(l.Plugins))
	for i, p := range l.Plugins {
		types[i] = p.Type
	}
	return types
}

// FieldError says which field of which file is wrong.
type FieldError struct {
	File, Field string // Field is a path such as plugins[1].type; "" is the whole file
	Err         error
}

func (e *FieldError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s: %s: %v", e.File, e.Field, e.Err)
}

func (e *FieldError) Unwrap() error { return e.Err }

// Parse reads a file by what its name says it is: a list (.conflist) or one
// plugin (.conf, .json), which is a list of one. extra are the files of the
// directory that goes with a list that does not say loadOnlyInlinedPlugins.
// When something is wrong with the file its name comes back all the same, if it
// can be read.
func Parse(file string, data []byte, extra []Extra) (List, error) {
	l := List{File: file}
	top, err := object(file, "", data)
	if err != nil {
		return l, err
	}
	r := reader{file: file, top: top}
	l.Name = r.name()
	l.Version = r.version()
	l.DisableCheck, l.DisableGC = r.flag("disableCheck"), r.flag("disableGC")
	if single(file) {
		l.Plugins = r.one(data)
	} else {
		l.Plugins = r.plugins(extra)
	}
	if r.err != nil {
		return l, r.err
	}
	l.Bytes, err = l.inlined(top)
	return l, err
}

// Extra is a file with one plugin that belongs to a list.
type Extra struct {
	File string
	Data []byte
}

func single(file string) bool { return filepath.Ext(file) != ".conflist" }

// inlined writes the list as it is used: one version, nothing left to load.
func (l List) inlined(top map[string]json.RawMessage) ([]byte, error) {
	out := map[string]any{"name": l.Name, "loadOnlyInlinedPlugins": true}
	if l.Version != "" {
		out["cniVersion"] = l.Version
	}
	if !single(l.File) {
		for k, v := range top {
			if out[k] == nil && k != "cniVersions" && k != "cniVersion" {
				out[k] = v
			}
		}
	}
	raw := make([]json.RawMessage, len(l.Plugins))
	for i, p := range l.Plugins {
		raw[i] = p.Bytes
	}
	out["plugins"] = raw
	return json.Marshal(out)
}

// reader reads fields and keeps the first error.
type reader struct {
	file string
	top  map[string]json.RawMessage
	err  error
}

func (r *reader) wrong(field, format string, args ...any) {
	if r.err == nil {
		r.err = &FieldError{r.file, field, fmt.Errorf(format, args...)}
	}
}

func (r *reader) name() string {
	raw, ok := r.top["name"]
	if !ok {
		r.wrong("name", "it is missing: a network is found by it")
		return ""
	}
	s, ok := text(raw)
	switch {
	case !ok:
		r.wrong("name", "%s is not a string", short(raw))
		return ""
	case !ValidName(s):
		r.wrong("name", "%q is not letters, digits, '.', '_' and '-' beginning with a letter or digit", s)
		return ""
	}
	return s
}

// ValidName says whether the specification allows a network to be called so.
func ValidName(s string) bool {
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// version is the highest this build knows of those the file offers.
func (r *reader) version() string {
	best := -1
	offer := func(field, v string) {
		i := slices.Index(versions[:], v)
		if i < 0 && field == "cniVersion" && r.top["cniVersions"] == nil {
			r.wrong(field, "%q is not a version this gantry knows: %s", v, strings.Join(versions[:], " "))
		}
		best = max(best, i)
	}
	if raw, ok := r.top["cniVersion"]; ok {
		v, ok := text(raw)
		if !ok {
			r.wrong("cniVersion", "%s is not a string", short(raw))
			return ""
		}
		offer("cniVersion", v)
	}
	if raw, ok := r.top["cniVersions"]; ok {
		var all []string
		if json.Unmarshal(raw, &all) != nil {
			r.wrong("cniVersions", "%s is not a list of strings", short(raw))
			return ""
		}
		for _, v := range all {
			offer("cniVersions", v)
		}
		if best < 0 {
			r.wrong("cniVersions", "none of %s is known to this gantry: %s", short(raw), strings.Join(versions[:], " "))
		}
	}
	if best < 0 {
		return "" // 0.1.0 to a plugin
	}
	return versions[best]
}

// flag reads a boolean, for which the specification also takes a string.
func (r *reader) flag(field string) bool {
	raw, ok := r.top[field]
	if !ok {
		return false
	}
	switch s := strings.ToLower(strings.Trim(string(raw), `"`)); s {
	case "true":
		return true
	case "false":
		return false
	}
	r.wrong(field, "%s is neither true nor false", short(raw))
	return false
}

func (r *reader) one(data []byte) []Plugin {
	if _, ok := r.top["plugins"]; ok {
		r.wrong("plugins", "a list is read from a file whose name ends in .conflist")
		return nil
	}
	p, err := plugin(r.file, "", data)
	if err != nil && r.err == nil {
		r.err = err
	}
	return []Plugin{p}
}

func (r *reader) plugins(extra []Extra) []Plugin {
	onlyInlined := r.flag("loadOnlyInlinedPlugins")
	var raw []json.RawMessage
	list, ok := r.top["plugins"]
	switch {
	case ok && json.Unmarshal(list, &raw) != nil:
		r.wrong("plugins", "%s is not a list", short(list))
	case ok && len(raw) == 0:
		r.wrong("plugins", "it is empty")
	case !ok && onlyInlined:
		r.wrong("plugins", "it is missing, and loadOnlyInlinedPlugins is true")
	case !ok && len(extra) == 0:
		r.wrong("plugins", "it is missing, and no file of one plugin is in %s", dirOf(r.file, "NAME"))
	}
	var out []Plugin
	add := func(file, field string, data []byte) {
		p, err := plugin(file, field, data)
		if err != nil && r.err == nil {
			r.err = err
		}
		out = append(out, p)
	}
	for i, b := range raw {
		add(r.file, fmt.Sprintf("plugins[%d]", i), b)
	}
	if onlyInlined {
		return out
	}
	for _, e := range extra {
		add(e.File, "", e.Data)
	}
	return out
}

// plugin reads one element. What only the plugin knows is left to it.
func plugin(file, field string, data []byte) (Plugin, error) {
	p := Plugin{Bytes: data}
	top, err := object(file, field, data)
	if err != nil {
		return p, err
	}
	if p.Type, err = executable(file, join(field, "type"), top["type"]); err != nil {
		return p, err
	}
	var capabilities map[string]bool
	if raw, ok := top["capabilities"]; ok {
		if json.Unmarshal(raw, &capabilities) != nil {
			return p, &FieldError{file, join(field, "capabilities"), fmt.Errorf("%s is not an object of booleans", short(raw))}
		}
	}
	for c, has := range capabilities {
		if has {
			p.Capabilities = append(p.Capabilities, c)
		}
	}
	slices.Sort(p.Capabilities)
	return p, delegate(file, join(field, "ipam"), top["ipam"])
}

// delegate looks at the plugin that gives the addresses: the other one runs it.
func delegate(file, field string, raw json.RawMessage) error {
	if raw == nil || string(raw) == "null" {
		return nil
	}
	ipam, err := object(file, field, raw)
	if err != nil || ipam["type"] == nil {
		return err // without addresses
	}
	_, err = executable(file, join(field, "type"), ipam["type"])
	return err
}

// executable reads the name of a plugin. It is looked for in directories of
// plugins and nowhere else: a path in it has run any program as root
// (CVE-2021-20206).
func executable(file, field string, raw json.RawMessage) (string, error) {
	if raw == nil {
		return "", &FieldError{file, field, errors.New("it is missing: it names the plugin's executable")}
	}
	s, ok := text(raw)
	if !ok || !ValidType(s) {
		return s, &FieldError{file, field, fmt.Errorf("%s is not the bare name of an executable", short(raw))}
	}
	return s, nil
}

// ValidType says whether a plugin may be called so.
func ValidType(s string) bool {
	bad := func(c rune) bool { return c == '/' || c == '\\' || c == ':' || c <= ' ' || c == 0x7f || c == 0xfffd }
	return s != "" && s[0] != '.' && len(s) <= 255 && !strings.ContainsFunc(s, bad)
}

func object(file, field string, data []byte) (map[string]json.RawMessage, error) {
	var m map[string]json.RawMessage
	err := json.Unmarshal(data, &m)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		line := 1 + strings.Count(string(data[:min(int(syntax.Offset), len(data))]), "\n")
		return nil, &FieldError{file, field, fmt.Errorf("line %d: %w", line, err)}
	case err != nil, m == nil:
		return nil, &FieldError{file, field, fmt.Errorf("%s is not an object", short(data))}
	}
	return m, nil
}

func text(raw json.RawMessage) (string, bool) {
	var s *string
	if json.Unmarshal(raw, &s) != nil || s == nil {
		return "", false
	}
	return *s, true
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}

func short(raw []byte) string {
	if len(raw) > 40 {
		return strings.ToValidUTF8(string(raw[:37]), "") + "…"
	}
	return string(raw)
}
