// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mountFlag is --mount taken apart.
type mountFlag struct {
	kind, source, dest string
	options            []string
}

// parseMount reads --mount type=bind|tmpfs,… as podman spells it.
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
	switch f.kind {
	case "bind":
		if f.source == "" {
			return specs.Mount{}, fmt.Errorf("it has no source: add src=PATH")
		}
		return b.bind(f.source, f.dest, f.options)
	case "tmpfs":
		if f.source != "" {
			return specs.Mount{}, fmt.Errorf("a tmpfs has no source")
		}
		return tmpfs(f.dest, f.options, nil)
	case "":
		return specs.Mount{}, fmt.Errorf("it has no type: add type=bind or type=tmpfs")
	}
	return specs.Mount{}, fmt.Errorf("type %q is not supported: use bind or tmpfs", f.kind)
}

// set applies one KEY[=VALUE].
func (f *mountFlag) set(field string) error {
	key, value, has := strings.Cut(field, "=")
	switch key {
	case "type":
		f.kind = value
	case "src", "source":
		f.source = value
	case "dst", "destination", "target":
		f.dest = value
	case "bind-propagation":
		f.options = append(f.options, value)
	case "tmpfs-size":
		f.options = append(f.options, "size="+value)
	case "tmpfs-mode":
		f.options = append(f.options, "mode="+value)
	case "tmpcopyup", "notmpcopyup":
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
		"bind-nonrecursive": {"bind", "rbind"},
	}[key]
	if !ok {
		return fmt.Errorf("%q is not a key of --mount", key)
	}
	switch {
	case !has || value == "true" || value == "1":
		f.options = append(f.options, words[0])
	case value == "false" || value == "0":
		f.options = append(f.options, words[1])
	default:
		return fmt.Errorf("%s=%q: use true or false", key, value)
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
