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

// maxID is the highest uid or gid we accept. The kernel has twice as many,
// but programs hold them in signed integers: 2^32-1 is "no change" to
// setuid(2), and overflow made it root elsewhere (CVE-2024-40635).
const maxID = 1<<31 - 1

// maxAccounts bounds what is read of an image's account file, in lines.
const maxAccounts = 1 << 16

// maxGroups is NGROUPS_MAX of Linux.
const maxGroups = 1 << 16

// User is whom an app runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // for setgroups: the GID first, then each other once
	Name     string   // in the image's passwd, or ""
	Home     string
}

// ParseUser resolves name|uid[:group|gid] by the image's own files. A number
// is always a number: an account that is called "1000" cannot make USER 1000
// mean root (CVE-2026-46680). Without a group, the groups are those the image
// gives the user; with one, it is the only one. add are further groups, by
// name or number.
func ParseUser(spec string, add []string, files ImageFiles) (User, error) {
	if err := checkUser(spec, add); err != nil {
		return User{}, err
	}
	who, group, explicit := strings.Cut(spec, ":")
	if who == "" {
		who = "0"
	}
	u, err := account(who, files.Passwd)
	if err != nil {
		return User{}, fmt.Errorf("user %q: %w", spec, err)
	}
	var groups []uint32
	if explicit && group != "" {
		if u.GID, err = groupID(group, files.Group); err != nil {
			return User{}, fmt.Errorf("user %q: %w", spec, err)
		}
	} else if groups, err = memberships(u.Name, files.Group); err != nil {
		return User{}, fmt.Errorf("user %q: %w", spec, err)
	}
	for _, g := range add {
		gid, err := groupID(g, files.Group)
		if err != nil {
			return User{}, fmt.Errorf("--group-add %q: %w", g, err)
		}
		groups = append(groups, gid)
	}
	// The primary group is in the list, or a file that denies it to its
	// group would be open to the app (CVE-2022-2989).
	u.Groups = unique(append([]uint32{u.GID}, groups...))
	return u, nil
}

// checkUser finds what no image can make right.
func checkUser(spec string, add []string) error {
	who, group, _ := strings.Cut(spec, ":")
	if strings.Contains(group, ":") {
		return fmt.Errorf("user %q: write USER[:GROUP]", spec)
	}
	for _, part := range []string{who, group} {
		if part == "" {
			continue // the default
		}
		if _, _, err := parseID(part); err != nil {
			return fmt.Errorf("user %q: %w", spec, err)
		}
	}
	for _, g := range add {
		if _, _, err := parseID(g); err != nil {
			return fmt.Errorf("--group-add %q: %w", g, err)
		}
	}
	return nil
}

// account finds a user by name or number. A number needs no account.
func account(who string, passwd []byte) (User, error) {
	id, numeric, err := parseID(who)
	if err != nil {
		return User{}, err
	}
	u := User{UID: id, Home: "/"}
	found := false
	err = lines("/etc/passwd", passwd, func(f []string) error {
		if found || len(f) < 4 {
			return nil
		}
		if !numeric && f[0] != who || numeric && !isID(f[2], id) {
			return nil
		}
		uid, ok, err := parseID(f[2])
		gid, okg, errg := parseID(f[3])
		if !ok || !okg || err != nil || errg != nil {
			return fmt.Errorf("its entry in the image's /etc/passwd has no valid numbers")
		}
		u.UID, u.GID, u.Name, found = uid, gid, f[0], true
		if len(f) > 5 && strings.HasPrefix(f[5], "/") && clean("home", f[5]) == nil {
			u.Home = f[5]
		}
		return nil
	})
	if err != nil {
		return User{}, err
	}
	if !found && !numeric {
		return User{}, fmt.Errorf("the image's /etc/passwd has no user %q", who)
	}
	if !found && id == 0 {
		u.Home = "/root"
	}
	return u, nil
}

// groupID finds a group by name or number. A number needs no entry.
func groupID(group string, file []byte) (uint32, error) {
	id, numeric, err := parseID(group)
	if numeric || err != nil {
		return id, err
	}
	found := false
	err = lines("/etc/group", file, func(f []string) error {
		if found || len(f) < 3 || f[0] != group {
			return nil
		}
		var ok bool
		if id, ok, err = parseID(f[2]); !ok || err != nil {
			return fmt.Errorf("group %q has no valid number in the image's /etc/group", group)
		}
		found = true
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("the image's /etc/group has no group %q", group)
	}
	return id, err
}

// memberships returns the groups that list the user.
func memberships(name string, file []byte) ([]uint32, error) {
	if name == "" {
		return nil, nil
	}
	var gids []uint32
	err := lines("/etc/group", file, func(f []string) error {
		if len(f) < 4 || !listed(name, f[3]) {
			return nil
		}
		gid, ok, err := parseID(f[2])
		if !ok || err != nil {
			return fmt.Errorf("group %q has no valid number in the image's /etc/group", f[0])
		}
		if len(gids) == maxGroups-1 {
			return fmt.Errorf("it is in more than %d groups", maxGroups-1)
		}
		gids = append(gids, gid)
		return nil
	})
	return gids, err
}

func listed(name, members string) bool {
	for m := range strings.SplitSeq(members, ",") {
		if m == name {
			return true
		}
	}
	return false
}

// lines calls f with the fields of each entry of an account file. The number
// of lines is bounded: an image can be made to hold any (CVE-2026-47262).
func lines(name string, file []byte, f func([]string) error) error {
	n := 0
	for line := range strings.Lines(string(file)) {
		if n++; n > maxAccounts {
			return fmt.Errorf("the image's %s has more than %d lines", name, maxAccounts)
		}
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := f(strings.Split(line, ":")); err != nil {
			return err
		}
	}
	return nil
}

// parseID reads a decimal uid or gid. Only digits make a number; a number out
// of range is an error, never a name.
func parseID(s string) (id uint32, numeric bool, err error) {
	if s == "" {
		return 0, false, fmt.Errorf("it is empty")
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			if s[0] == '-' || s[0] == '+' {
				return 0, false, fmt.Errorf("%q: names do not begin with a sign, and numbers have none", s)
			}
			return 0, false, clean("name", s)
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxID {
		return 0, true, fmt.Errorf("%s is out of range: 0 to %d are allowed", s, maxID)
	}
	return uint32(n), true, nil
}

func isID(s string, id uint32) bool {
	n, numeric, err := parseID(s)
	return numeric && err == nil && n == id
}

func unique(ids []uint32) []uint32 {
	out := ids[:0:0]
	seen := map[uint32]bool{}
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}

func (b *builder) user() error {
	spec := first(b.Options.User, b.Image.User)
	var u User
	var err error
	add, keep := b.Options.GroupAdd, slices.Contains(b.Options.GroupAdd, "keep-groups")
	switch {
	case keep && len(add) > 1:
		return fmt.Errorf("--group-add keep-groups: it stands alone, with no other --group-add")
	case keep && b.Host.Own != nil:
		return hint.With(
			fmt.Errorf("--group-add keep-groups: what is no subordinate id of an ordinary user is nobody's in the pod, and so are their other groups"),
			"leave it out, and let the user itself reach what a group may, or run as root",
		)
	case keep:
		add = nil
	}
	if b.early {
		err = checkUser(spec, add)
	} else {
		u, err = ParseUser(spec, add, b.Files)
	}
	if keep {
		u.Groups = unique(append(u.Groups, b.Host.Groups...))
	}
	if err != nil {
		return err
	}
	b.home, b.root = u.Home, u.UID == 0
	umask, err := b.umask()
	if err != nil {
		return err
	}
	b.r.Spec.Process.User = specs.User{UID: u.UID, GID: u.GID, Umask: &umask, AdditionalGids: u.Groups}
	return nil
}
