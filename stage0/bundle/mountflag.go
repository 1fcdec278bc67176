// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/hint"
)

// mountFlag is --mount taken apart.
type mountFlag struct {
	kind, source, dest, sub string
	options                 []string
}

// parseMount reads --mount type=bind|volume|tmpfs|image|devpts,… as podman
// spells it.
func (b *builder) parseMount(s string) (specs.Mount, error) {
	fields, err := splitQuoted(s)
	if err != nil {
		return specs.Mount{}, err
	}
	var f mountFlag
	for _, field := range fields {
		if err := f.set(field); err != nil {
			return specs.Mount{}, err
		}
	}
	if f.dest == "" {
		return specs.Mount{}, fmt.Errorf("it has no destination: add dst=PATH")
	}
	if f.sub != "" && f.kind != "volume" && f.kind != "image" {
		return specs.Mount{}, fmt.Errorf("subpath is for type=volume and type=image")
	}
	switch f.kind {
	case "bind":
		if f.source == "" {
			return specs.Mount{}, fmt.Errorf("it has no source: add src=PATH")
		}
		return b.bind(f.source, f.dest, f.options)
	case "volume":
		return b.volumeFlag(f)
	case "image":
		if f.source == "" {
			return specs.Mount{}, fmt.Errorf("it has no source: add src=IMAGE")
		}
		return b.imageMount(f.source, f.dest, f.sub, f.options)
	case "tmpfs", "devpts":
		if f.source != "" {
			return specs.Mount{}, fmt.Errorf("a %s has no source", f.kind)
		}
		if f.kind == "devpts" {
			return devpts(f.dest, f.options)
		}
		return b.tmpfs(f.dest, f.options, nil)
	case "":
		return specs.Mount{}, fmt.Errorf("it has no type: add type=bind, volume, tmpfs, image or devpts")
	}
	return specs.Mount{}, fmt.Errorf("type %q is not supported: use bind, volume, tmpfs, image or devpts", f.kind)
}

// volumeFlag is type=volume: without a source a fresh directory of the pod.
func (b *builder) volumeFlag(f mountFlag) (specs.Mount, error) {
	if f.source != "" {
		return b.namedVolume(f.source, f.dest, f.sub, f.options)
	}
	if f.sub != "" || len(f.options) > 0 {
		return specs.Mount{}, fmt.Errorf("a volume without a name takes no options: add src=NAME")
	}
	return b.freshVolume(f.dest)
}

// devpts is a set of terminals of its own.
func devpts(dest string, options []string) (specs.Mount, error) {
	dest, err := destination(dest)
	if err != nil {
		return specs.Mount{}, err
	}
	values := map[string]string{"mode": "0620", "gid": "5"}
	var plain []string
	for _, word := range options {
		key, value, valued := strings.Cut(word, "=")
		switch {
		case !valued:
			plain = append(plain, word)
		case key == "mode":
			if n, err := strconv.ParseUint(value, 8, 12); err != nil || n > 0o777 {
				return specs.Mount{}, fmt.Errorf("mode %q: write it in octal, as in 0620", value)
			}
			values[key] = value
		case key == "uid" || key == "gid" || key == "max":
			if n, err := strconv.ParseUint(value, 10, 31); err != nil || n > maxID {
				return specs.Mount{}, fmt.Errorf("%s %q: write a number", key, value)
			}
			values[key] = value
		default:
			return specs.Mount{}, fmt.Errorf("option %q: there is none of that name", word)
		}
	}
	out, err := settle(plain, []group{
		{[]string{"nosuid"}, "nosuid"},
		{[]string{"noexec"}, "noexec"},
		{[]string{"ro", "rw"}, ""},
	})
	out = append(out, "newinstance", "ptmxmode=0666")
	for _, key := range []string{"mode", "uid", "gid", "max"} {
		if v := values[key]; v != "" {
			out = append(out, key+"="+v)
		}
	}
	return specs.Mount{Destination: dest, Type: "devpts", Source: "devpts", Options: out}, err
}

// set applies one KEY[=VALUE].
func (f *mountFlag) set(field string) error {
	key, value, has := strings.Cut(field, "=")
	to := map[string]*string{
		"type": &f.kind, "src": &f.source, "source": &f.source,
		"dst": &f.dest, "destination": &f.dest, "target": &f.dest,
		"subpath": &f.sub, "volume-subpath": &f.sub, "image-subpath": &f.sub,
	}[key]
	if to != nil {
		if *to != "" && *to != value {
			return fmt.Errorf("%s=%q: %q was given already", key, value, *to)
		}
		if value == "" {
			return fmt.Errorf("%s has no value", key)
		}
		*to = value
		return nil
	}
	switch key {
	case "consistency": // Docker's, for the file sharing of a virtual machine
	case "bind-propagation":
		f.options = append(f.options, value)
	case "tmpfs-size", "tmpfs-mode":
		f.options = append(f.options, strings.TrimPrefix(key, "tmpfs-")+"="+value)
	case "size", "mode", "uid", "gid", "max", "nr_inodes", "idmap":
		f.options = append(f.options, field)
	case "tmpcopyup", "notmpcopyup", "noswap":
		f.options = append(f.options, key)
	case "relabel":
		switch value {
		case "shared":
			f.options = append(f.options, "z")
		case "private":
			f.options = append(f.options, "Z")
		default:
			return fmt.Errorf("relabel=%q: use shared or private", value)
		}
	case "volume-opt", "volume-label", "volume-driver":
		return hint.With(fmt.Errorf("%s is not supported here", key), "'gantry volume create' makes a volume with options and labels")
	default:
		return f.toggle(key, value, has)
	}
	return nil
}

// toggle applies the keys that are on alone and may be given true or false.
func (f *mountFlag) toggle(key, value string, has bool) error {
	words, ok := map[string][2]string{
		"ro": {"ro", "rw"}, "readonly": {"ro", "rw"}, "rw": {"rw", "ro"}, "rro": {"rro", "rw"},
		"suid": {"suid", "nosuid"}, "nosuid": {"nosuid", "suid"},
		"dev": {"dev", "nodev"}, "nodev": {"nodev", "dev"},
		"exec": {"exec", "noexec"}, "noexec": {"noexec", "exec"},
		"bind-nonrecursive": {"bind", "rbind"}, "volume-nocopy": {"nocopy", "copy"}, "nocopy": {"nocopy", "copy"}, "copy": {"copy", "nocopy"},
		"U": {"U", ""}, "chown": {"U", ""},
	}[key]
	if !ok {
		return fmt.Errorf("%q is not a key of --mount", key)
	}
	var word string
	switch {
	case !has || value == "true" || value == "1":
		word = words[0]
	case value == "false" || value == "0":
		word = words[1]
	default:
		return fmt.Errorf("%s=%q: use true or false", key, value)
	}
	if word != "" {
		f.options = append(f.options, word)
	}
	return nil
}

// splitQuoted splits at commas, except within double quotes, where "" is one.
func splitQuoted(s string) ([]string, error) {
	var out []string
	var field strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' && quoted && i+1 < len(s) && s[i+1] == '"':
			field.WriteByte('"')
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			out = append(out, field.String())
			field.Reset()
		default:
			field.WriteByte(c)
		}
	}
	if quoted {
		return nil, fmt.Errorf("a quote is not closed")
	}
	return append(out, field.String()), nil
}
