// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseUserns(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string // of %+v, or of the error after "error: "
	}{
		{Options{}, "host"},
		{Options{Userns: "host"}, "host"},
		{Options{Userns: "auto"}, "auto 65536 [] []"},
		{Options{Userns: "auto:size=7,uidmapping=1:2:3,gidmapping=4:5"}, "auto 7 [1:2:3] [4:5:1]"},
		{Options{UIDMaps: []string{"0:9:2", "5:1:1"}}, "maps [0:9:2 5:1:1] [0:9:2 5:1:1]"},
		{Options{GIDMaps: []string{"0:9"}, Userns: "private"}, "maps [0:9:1] [0:9:1]"},
		{Options{SubUIDName: "a"}, "a a"},
		{Options{SubUIDName: "a", SubGIDName: "b"}, "a b"},
		{Options{Userns: "private"}, "error: --userns=private needs ids"},
		{Options{Userns: "auto:x=1"}, `error: --userns=auto: option "x"`},
		{Options{Userns: "auto:size=-1"}, `error: --userns=auto: size "-1"`},
		{Options{Userns: "auto:size=4294967295"}, `error: --userns=auto: size`},
		{Options{Userns: "auto:uidmapping=1"}, `error: --userns=auto: "1": write`},
		{Options{Userns: "host:x"}, "error: --userns \"host:x\": host has no options"},
		{Options{Userns: "keep-id"}, "error: --userns=keep-id is not supported"},
		{Options{Userns: "container:x"}, "error: --userns=container:x is not supported"},
		{Options{Userns: "what"}, `error: --userns "what"`},
		{Options{Userns: "auto", GIDMaps: []string{"0:1"}}, "error: --userns=auto and maps"},
		{Options{UIDMaps: []string{"0:1"}, SubUIDName: "a"}, "error: --subuidname"},
		{Options{UIDMaps: []string{"+0:1"}}, `error: --uidmap: "+0:1"`},
		{Options{UIDMaps: []string{"0:1:0"}}, `error: --uidmap: "0:1:0": it is empty`},
		{Options{UIDMaps: []string{"0:4294967295:2"}}, `error: --uidmap: "0:4294967295:2": it is empty or goes beyond`},
		{Options{UIDMaps: []string{"0:1:5", "9:5:1"}}, `error: --uidmap: "9:5:1": it overlaps with 0:1:5`},
		{Options{UIDMaps: []string{"1:1:5"}}, `error: --uidmap: the container's id 0 is missing`},
	} {
		n, err := ParseUserns(c.o)
		var got string
		switch {
		case err != nil:
			got = "error: " + err.Error()
		case n.Host():
			got = "host"
		case n.Auto:
			got = fmt.Sprint("auto ", n.Size, mapText(n.UIDs), mapText(n.GIDs))
		case n.SubUID != "":
			got = n.SubUID + " " + n.SubGID
		default:
			got = fmt.Sprint("maps", mapText(n.UIDs), mapText(n.GIDs))
		}
		if err != nil && strings.HasPrefix(got, c.want) && strings.HasPrefix(c.want, "error") {
			continue
		}
		if got != c.want {
			t.Errorf("%+v:\n got %s\nwant %s", c.o, got, c.want)
		}
	}
}

func mapText(maps []specs.LinuxIDMapping) string {
	var out []string
	for _, m := range maps {
		out = append(out, fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size))
	}
	return " [" + strings.Join(out, " ") + "]"
}

// Whatever is fixed, the container has each id up to the size exactly once.
func TestFilled(t *testing.T) {
	for _, c := range []struct{ fixed, want string }{
		{"", " [0:1000:10]"},
		{"0:5:1", " [0:5:1 1:1000:9]"},
		{"3:5:2", " [0:1000:3 3:5:2 5:1003:5]"},
		{"9:5:1", " [0:1000:9 9:5:1]"},
		{"20:5:1", " [0:1000:10 20:5:1]"},
		{"6:5:1 2:9:1", " [0:1000:2 2:9:1 3:1002:3 6:5:1 7:1005:3]"},
		{"8:50:9", " [0:1000:8 8:50:9]"},
	} {
		n := Userns{Auto: true, Size: 10}
		for _, s := range strings.Fields(c.fixed) {
			var err error
			if n.UIDs, err = addMap(n.UIDs, s); err != nil {
				t.Fatal(err)
			}
		}
		if got := mapText(n.Filled(1000).UIDs); got != c.want {
			t.Errorf("%q: got%s, want%s", c.fixed, got, c.want)
		}
	}
}

func TestUsernsBundle(t *testing.T) {
	in := input(Options{Userns: "auto", NoHosts: true})
	in.Pod.Users = Userns{Size: 65536}.Filled(100000)
	res, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(res.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace && n.Path == "" }) {
		t.Error("no user namespace")
	}
	for _, m := range res.Spec.Mounts {
		own := strings.HasPrefix(m.Source, in.Pod.Dir)
		if own != slices.Contains(m.Options, "idmap") {
			t.Errorf("%s of %s: %v", m.Destination, m.Source, m.Options)
		}
	}
	in.Pod.Users = Userns{Size: 1000}.Filled(100000)
	if _, err := Spec(in); err == nil || err.Error() != "user 1000 is not one of the pod's user namespace" {
		t.Errorf("user 1000 of ids to 999: %v", err)
	}
}
