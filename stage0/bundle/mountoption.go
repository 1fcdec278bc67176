// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/hint"
)

// bindWords is what the options of a bind mount come to.
type bindWords struct {
	words            []string // for the runtime
	uids, gids       []specs.LinuxIDMapping
	chown            bool
	noFill, fillSaid bool
}

func (o bindWords) mount(dest, source string) specs.Mount {
	return specs.Mount{Destination: dest, Type: "bind", Source: source, Options: o.words, UIDMappings: o.uids, GIDMappings: o.gids}
}

// bindOptions sorts the options of --volume and --mount: what a runtime knows,
// what we do ourselves, and what means nothing here and is taken as podman
// takes it.
func (b *builder) bindOptions(options []string) (bindWords, error) {
	var o bindWords
	var plain []string
	idmap := ""
	for _, word := range options {
		key, value, valued := strings.Cut(word, "=")
		switch {
		case word == "z" || word == "Z":
			if b.Host.SELinux {
				return o, fmt.Errorf("option %q: relabelling for SELinux is not supported: label the files with chcon", word)
			}
		case word == "consistent" || word == "cached" || word == "delegated":
			// Docker's words for the file sharing of a virtual machine.
		case word == "U":
			o.chown = true
		case word == "O":
			return o, fmt.Errorf("option %q is not supported: mount it ro, or copy it into a volume", word)
		case word == "copy" || word == "nocopy":
			if o.fillSaid && o.noFill != (word == "nocopy") {
				return o, fmt.Errorf("options %q and %q contradict each other", "copy", "nocopy")
			}
			o.fillSaid, o.noFill = true, word == "nocopy"
		case key == "idmap":
			if idmap != "" && idmap != word {
				return o, fmt.Errorf("options %q and %q contradict each other", idmap, word)
			}
			idmap = word
			if valued {
				var err error
				if o.uids, o.gids, err = parseIDMap(value); err != nil {
					return o, fmt.Errorf("option %q: %w", word, err)
				}
			}
		default:
			plain = append(plain, word)
		}
	}
	var err error
	if o.words, err = settle(plain, bindGroups()); err != nil || idmap == "" {
		return o, err
	}
	if n, err := ParseUserns(b.Options); idmap == "idmap" && (err != nil || n.Host()) {
		return o, hint.With(fmt.Errorf("option idmap: the pod has no user namespace whose ids it could show"), "write the ids, as in idmap=uids=0-1000-1;gids=0-1000-1, or give it one with --userns")
	}
	if o.chown {
		return o, fmt.Errorf("options U and idmap contradict each other: one changes the owners, the other leaves them")
	}
	o.words = append(o.words, "idmap")
	return o, nil
}

// parseIDMap reads podman's uids=FILE-HOST-LENGTH[#…];gids=…: ids of the
// files, and those they are shown as.
func parseIDMap(s string) (uids, gids []specs.LinuxIDMapping, err error) {
	for part := range strings.SplitSeq(s, ";") {
		kind, ranges, _ := strings.Cut(part, "=")
		to := &uids
		switch kind {
		case "uids":
		case "gids":
			to = &gids
		default:
			return nil, nil, fmt.Errorf("write idmap=uids=FILE-SHOWN-LENGTH[#…];gids=FILE-SHOWN-LENGTH[#…]")
		}
		if *to != nil {
			return nil, nil, fmt.Errorf("%s is there twice", kind)
		}
		if *to, err = parseIDRanges(ranges); err != nil {
			return nil, nil, err
		}
	}
	if len(uids) == 0 || len(gids) == 0 {
		return nil, nil, fmt.Errorf("both uids and gids are needed")
	}
	return uids, gids, nil
}

// maxIDRanges is the kernel's limit of a map.
const maxIDRanges = 340

func parseIDRanges(s string) ([]specs.LinuxIDMapping, error) {
	var out []specs.LinuxIDMapping
	for r := range strings.SplitSeq(s, "#") {
		if strings.HasPrefix(r, "@") {
			return nil, fmt.Errorf("range %q: ranges relative to the pod's user namespace are not supported: write the ids of the host", r)
		}
		fields := strings.Split(r, "-")
		if len(fields) != 3 {
			return nil, fmt.Errorf("range %q: write FILE-SHOWN-LENGTH", r)
		}
		var n [3]uint32
		for i, f := range fields {
			v, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("range %q: %q is not an id", r, f)
			}
			n[i] = uint32(v)
		}
		if n[2] == 0 || uint64(n[0])+uint64(n[2]) > 1<<32-1 || uint64(n[1])+uint64(n[2]) > 1<<32-1 {
			return nil, fmt.Errorf("range %q: there are no such ids", r)
		}
		out = append(out, specs.LinuxIDMapping{ContainerID: n[0], HostID: n[1], Size: n[2]})
	}
	if len(out) > maxIDRanges {
		return nil, fmt.Errorf("%d ranges: %d are the limit", len(out), maxIDRanges)
	}
	return out, nil
}

// group is a set of options of which one holds.
type group struct {
	words []string
	def   string // used when none was given; "" is none
}

func bindGroups() []group {
	return []group{
		{[]string{"rbind", "bind"}, "rbind"},
		{[]string{"ro", "rw", "rro"}, ""},
		{[]string{"nosuid", "suid"}, "nosuid"},
		{[]string{"nodev", "dev"}, "nodev"},
		{[]string{"noexec", "exec"}, ""},
		{[]string{"noatime", "relatime", "strictatime"}, ""},
		{[]string{"rprivate", "private", "rshared", "shared", "rslave", "slave", "runbindable", "unbindable"}, "rprivate"},
	}
}

// settle picks one word of each group, in the groups' order.
func settle(options []string, groups []group) ([]string, error) {
	chosen := make([]string, len(groups))
	for _, o := range options {
		i := slices.IndexFunc(groups, func(g group) bool { return slices.Contains(g.words, o) })
		if i < 0 {
			return nil, fmt.Errorf("option %q: there is none of that name", o)
		}
		if chosen[i] != "" && chosen[i] != o {
			return nil, fmt.Errorf("options %q and %q contradict each other", chosen[i], o)
		}
		chosen[i] = o
	}
	var out []string
	for i, g := range groups {
		// "rw", "suid", "dev" and "exec" are what a mount is without options.
		switch o := first(chosen[i], g.def); o {
		case "", "rw", "suid", "dev", "exec":
		default:
			out = append(out, o)
		}
	}
	return out, nil
}
