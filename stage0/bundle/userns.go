// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/hint"
)

// Users are the ids of the host behind those of a pod.
type Users struct {
	UIDs, GIDs []specs.LinuxIDMapping
}

// Userns is what --userns and its kin ask for. The zero value is the host's
// user namespace.
type Userns struct {
	Auto bool   // a range of its own, of Size ids, beside the fixed maps
	Size uint32 // of the range
	Users
	SubUID, SubGID string // whose ranges of subuid(5) and subgid(5) are mapped, one after the other
}

// Host tells that the pod gets no user namespace of its own.
func (n Userns) Host() bool { return !n.Auto && n.SubUID == "" && len(n.UIDs) == 0 }

// defaultUsers is how many ids --userns=auto gives: those that images use.
const defaultUsers = 1 << 16

// ParseUserns reads the options in podman's spelling.
func ParseUserns(o Options) (Userns, error) {
	mode, rest, listed := strings.Cut(o.Userns, ":")
	maps := len(o.UIDMaps)+len(o.GIDMaps) > 0 || o.SubUIDName+o.SubGIDName != ""
	switch {
	case maps && mode != "" && mode != "private":
		return Userns{}, fmt.Errorf("--userns=%s and maps of ids contradict each other: --uidmap, --gidmap, --subuidname and --subgidname make a user namespace of their own", o.Userns)
	case mode == "auto":
		return parseAuto(rest)
	case listed && (mode == "" || mode == "host" || mode == "private"):
		return Userns{}, fmt.Errorf("--userns %q: %s has no options", o.Userns, mode)
	case mode == "private" && !maps:
		return Userns{}, hint.With(fmt.Errorf("--userns=private needs ids"), "give them with --uidmap, or let --userns=auto choose")
	case maps:
		return parseMaps(o)
	case mode == "" || mode == "host":
		return Userns{}, nil
	case mode == "keep-id" || mode == "nomap":
		return Userns{}, hint.With(fmt.Errorf("--userns=%s is not supported", mode), "--userns=auto gives the pod ids of nobody, --uidmap those you name")
	case mode == "ns" || mode == "container" || mode == "pod":
		return Userns{}, hint.With(fmt.Errorf("--userns=%s is not supported: a pod joins nobody's user namespace", o.Userns), "use --userns=auto")
	}
	return Userns{}, fmt.Errorf("--userns %q: use host, auto[:size=N,uidmapping=C:H:N,gidmapping=C:H:N], or --uidmap", o.Userns)
}

// parseAuto reads what follows "auto:".
func parseAuto(s string) (Userns, error) {
	n := Userns{Auto: true, Size: defaultUsers}
	if s == "" {
		return n, nil
	}
	for word := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "size":
			var size uint64
			size, err = strconv.ParseUint(value, 10, 32)
			if err != nil || size == 0 || size > maxID {
				err = fmt.Errorf("size %q: a number of ids from 1 on", value)
			}
			n.Size = uint32(size)
		case "uidmapping":
			n.UIDs, err = addMap(n.UIDs, value)
		case "gidmapping":
			n.GIDs, err = addMap(n.GIDs, value)
		default:
			err = fmt.Errorf("option %q: there are size=, uidmapping= and gidmapping=", key)
		}
		if err != nil {
			return Userns{}, fmt.Errorf("--userns=auto: %w", err)
		}
	}
	return n, nil
}

// parseMaps reads explicit maps. Where only those of users or of groups are
// given they are the others' too, as podman has it.
func parseMaps(o Options) (Userns, error) {
	n := Userns{SubUID: first(o.SubUIDName, o.SubGIDName), SubGID: first(o.SubGIDName, o.SubUIDName)}
	if n.SubUID != "" && len(o.UIDMaps)+len(o.GIDMaps) > 0 {
		return Userns{}, fmt.Errorf("--subuidname and --subgidname stand for --uidmap and --gidmap: give one kind")
	}
	for _, f := range []struct {
		flag   string
		values []string
		to     *[]specs.LinuxIDMapping
	}{{"--uidmap", o.UIDMaps, &n.UIDs}, {"--gidmap", o.GIDMaps, &n.GIDs}} {
		for _, v := range f.values {
			var err error
			if *f.to, err = addMap(*f.to, v); err != nil {
				return Userns{}, fmt.Errorf("%s: %w", f.flag, err)
			}
		}
	}
	if len(n.UIDs) == 0 {
		n.UIDs = n.GIDs
	}
	if len(n.GIDs) == 0 {
		n.GIDs = n.UIDs
	}
	if n.SubUID != "" {
		return n, nil
	}
	for _, m := range []struct {
		flag string
		maps []specs.LinuxIDMapping
	}{{"--uidmap", n.UIDs}, {"--gidmap", n.GIDs}} {
		if !covers(m.maps, 0) {
			return Userns{}, fmt.Errorf("%s: the container's id 0 is missing: its root file system is made as that", m.flag)
		}
	}
	return n, nil
}

// addMap appends CONTAINER:HOST[:SIZE].
func addMap(to []specs.LinuxIDMapping, s string) ([]specs.LinuxIDMapping, error) {
	parts := strings.Split(s, ":")
	if len(parts) == 2 {
		parts = append(parts, "1")
	}
	var n [3]uint32
	if len(parts) != 3 {
		return nil, fmt.Errorf("%q: write CONTAINER:HOST:SIZE", s)
	}
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q: write CONTAINER:HOST:SIZE, three numbers (podman's +, @, u and g are not supported)", s)
		}
		n[i] = uint32(v)
	}
	m := specs.LinuxIDMapping{ContainerID: n[0], HostID: n[1], Size: n[2]}
	if m.Size == 0 || uint64(m.ContainerID)+uint64(m.Size) > math.MaxUint32 || uint64(m.HostID)+uint64(m.Size) > math.MaxUint32 {
		return nil, fmt.Errorf("%q: it is empty or goes beyond the last id", s)
	}
	for _, other := range to {
		if overlaps(m.ContainerID, other.ContainerID, m.Size, other.Size) || overlaps(m.HostID, other.HostID, m.Size, other.Size) {
			return nil, fmt.Errorf("%q: it overlaps with %d:%d:%d", s, other.ContainerID, other.HostID, other.Size)
		}
	}
	return append(slices.Clone(to), m), nil
}

func overlaps(a, b, aSize, bSize uint32) bool {
	return uint64(a) < uint64(b)+uint64(bSize) && uint64(b) < uint64(a)+uint64(aSize)
}

func covers(maps []specs.LinuxIDMapping, id uint32) bool {
	return slices.ContainsFunc(maps, func(m specs.LinuxIDMapping) bool {
		return id >= m.ContainerID && id-m.ContainerID < m.Size
	})
}

// Filled are the maps when the range of ids from start on was found: the fixed
// ones, and the container's ids up to Size that they leave out.
func (n Userns) Filled(start uint32) Users {
	return Users{UIDs: fill(n.UIDs, start, n.Size), GIDs: fill(n.GIDs, start, n.Size)}
}

func fill(fixed []specs.LinuxIDMapping, start, size uint32) []specs.LinuxIDMapping {
	out := slices.Clone(fixed)
	slices.SortFunc(out, func(a, b specs.LinuxIDMapping) int { return int(int64(a.ContainerID) - int64(b.ContainerID)) })
	at := uint32(0)
	gap := func(until uint32) {
		if until = min(until, size); at < until {
			out = append(out, specs.LinuxIDMapping{ContainerID: at, HostID: start, Size: until - at})
			start += until - at
		}
	}
	for _, m := range out[:len(out):len(out)] {
		gap(m.ContainerID)
		at = m.ContainerID + m.Size
	}
	gap(size)
	slices.SortFunc(out, func(a, b specs.LinuxIDMapping) int { return int(int64(a.ContainerID) - int64(b.ContainerID)) })
	return out
}

// userns gives the pod its user namespace.
func (b *builder) userns() error {
	n, err := ParseUserns(b.Options)
	if err != nil {
		return err
	}
	if b.Host.Own != nil {
		return b.ordinary(n)
	}
	if n.Host() || b.early {
		return nil
	}
	u := b.Pod.Users
	l := b.r.Spec.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings, l.GIDMappings = u.UIDs, u.GIDs
	return b.mapped(u, func(id uint32) string {
		if n.Auto {
			return fmt.Sprintf("--userns=auto:size=%d has it", uint64(id)+1)
		}
		return "map it with --uidmap and --gidmap"
	})
}

// ordinary checks the pod of an ordinary user, which is in the user namespace
// that was made for gantry.
func (b *builder) ordinary(n Userns) error {
	if !n.Host() {
		return hint.With(
			fmt.Errorf("a user namespace of the pod's own takes the host's root: no ordinary user can show files with other ids"),
			"leave it out: without root the pod is in a user namespace already, whose root is you",
		)
	}
	if b.early {
		return nil
	}
	return b.mapped(*b.Host.Own, func(uint32) string {
		return "give yourself a range in /etc/subuid and /etc/subgid, with newuidmap (package uidmap) installed: 'usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER'"
	})
}

// mapped wants that the app's user and groups exist in a user namespace.
func (b *builder) mapped(u Users, mend func(id uint32) string) error {
	user := b.r.Spec.Process.User
	if !covers(u.UIDs, user.UID) {
		return hint.With(fmt.Errorf("user %d is not one of the pod's user namespace", user.UID), mend(user.UID))
	}
	for _, gid := range append([]uint32{user.GID}, user.AdditionalGids...) {
		if !covers(u.GIDs, gid) {
			return hint.With(fmt.Errorf("group %d is not one of the pod's user namespace", gid), mend(gid))
		}
	}
	return nil
}

// owned adds what shows the pod's own files with the pod's ids.
func (b *builder) owned(options []string) []string {
	if n, err := ParseUserns(b.Options); err != nil || n.Host() {
		return options
	}
	return append(options, "idmap")
}
