// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// parseTmpfs reads --tmpfs DEST[:OPTIONS].
func (b *builder) parseTmpfs(s string) (specs.Mount, error) {
	dest, options, _ := strings.Cut(s, ":")
	var list []string
	if options != "" {
		list = strings.Split(options, ",")
	}
	return b.tmpfs(dest, list, []string{"noexec"})
}

// tmpfs is a directory in memory that begins with what the image has there,
// owner and mode included, unless asked otherwise.
func (b *builder) tmpfs(dest string, options, defaults []string) (specs.Mount, error) {
	dest, err := destination(dest)
	if err != nil {
		return specs.Mount{}, err
	}
	o, err := b.tmpfsOptions(options)
	if err != nil {
		return specs.Mount{}, err
	}
	out, err := settle(o.plain, []group{
		{[]string{"nosuid", "suid"}, "nosuid"},
		{[]string{"nodev", "dev"}, "nodev"},
		{[]string{"noexec", "exec"}, first(defaults...)},
		{[]string{"noatime", "relatime", "strictatime"}, ""},
		{[]string{"ro", "rw"}, ""},
		{[]string{"private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"}, ""},
	})
	if err != nil {
		return specs.Mount{}, err
	}
	for _, key := range []string{"mode", "size", "nr_inodes", "uid", "gid"} { // without a mode: the image's, or 1777
		if v := o.values[key]; v != "" {
			out = append(out, key+"="+v)
		}
	}
	if o.noSwap {
		out = append(out, "noswap")
	}
	owned := o.values["uid"] != "" || o.values["gid"] != ""
	switch {
	case o.copyUp == "tmpcopyup" && owned:
		return specs.Mount{}, fmt.Errorf("tmpcopyup takes the owner from the image: it contradicts U, uid and gid")
	case o.copyUp == "tmpcopyup", o.copyUp == "" && !owned:
		out = append(out, "tmpcopyup")
	}
	return specs.Mount{Destination: dest, Type: "tmpfs", Source: "tmpfs", Options: out}, nil
}

// tmpfsWords is what the options of a tmpfs come to.
type tmpfsWords struct {
	plain  []string
	values map[string]string
	copyUp string // tmpcopyup, notmpcopyup, or neither was said
	noSwap bool
}

func (b *builder) tmpfsOptions(options []string) (tmpfsWords, error) {
	o := tmpfsWords{values: map[string]string{}}
	for _, word := range options {
		key, value, valued := strings.Cut(word, "=")
		switch {
		case word == "consistent" || word == "cached" || word == "delegated":
		case word == "U":
			u := b.r.Spec.Process.User
			o.values["uid"], o.values["gid"] = strconv.FormatUint(uint64(u.UID), 10), strconv.FormatUint(uint64(u.GID), 10)
		case word == "noswap":
			o.noSwap = true
		case word == "tmpcopyup" || word == "notmpcopyup":
			if o.copyUp != "" && o.copyUp != word {
				return o, fmt.Errorf("options %q and %q contradict each other", o.copyUp, word)
			}
			o.copyUp = word
		case valued:
			v, err := tmpfsValue(key, value)
			if err != nil {
				return o, err
			}
			if old := o.values[key]; old != "" && old != v {
				return o, fmt.Errorf("option %s is there twice", key)
			}
			o.values[key] = v
		default:
			o.plain = append(o.plain, word)
		}
	}
	return o, nil
}

// tmpfsValue checks one KEY=VALUE and writes it as the kernel reads it.
func tmpfsValue(key, value string) (string, error) {
	switch key {
	case "size":
		return tmpfsSize(value)
	case "mode":
		if n, err := strconv.ParseUint(value, 8, 12); err != nil || n > 0o7777 {
			return "", fmt.Errorf("mode %q: write it in octal, as in 1777", value)
		}
		return value, nil
	case "nr_inodes":
		n, err := ParseSize(value)
		if err != nil || n <= 0 {
			return "", fmt.Errorf("nr_inodes %q: write a number, as in 10k", value)
		}
		return strconv.FormatInt(n, 10), nil
	case "uid", "gid":
		if n, err := strconv.ParseUint(value, 10, 31); err != nil || n > maxID {
			return "", fmt.Errorf("%s %q: write a number", key, value)
		}
		return value, nil
	}
	return "", fmt.Errorf("option %q: there is none of that name", key+"="+value)
}

func tmpfsSize(s string) (string, error) {
	if p, ok := strings.CutSuffix(s, "%"); ok {
		if n, err := strconv.ParseUint(p, 10, 8); err != nil || n == 0 || n > 100 {
			return "", fmt.Errorf("size %q: between 1%% and 100%% are allowed", s)
		}
		return s, nil
	}
	n, err := ParseSize(s)
	if err != nil || n <= 0 {
		return "", sizeError("size", s, err)
	}
	return strconv.FormatInt(n, 10), nil
}
