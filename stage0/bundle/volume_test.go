// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What cannot be mounted is refused before the image is known, by the flag as
// it was typed.
func TestMountRefusals(t *testing.T) {
	for _, c := range []struct{ flag, value, want string }{
		{"-v", "a/b:/x", `volume name "a/b": use letters`},
		{"-v", ".hidden:/x", `volume name ".hidden"`},
		{"-v", strings.Repeat("n", 129) + ":/x", "between 1 and 128"},
		{"-v", "a:b:c:d", "write [SOURCE:]DEST[:OPTIONS]"},
		{"-v", "v:/x:copy,nocopy", "contradict each other"},
		{"-v", "/a:/x:nocopy", "options of volumes"},
		{"-v", "/a:/x:O", `option "O" is not supported`},
		{"-v", "/a:/x:shared,slave", "contradict each other"},
		{"-v", "/etc:/x:U", "keeps its owners"},
		{"-v", "/usr/share:/x:U", "keeps its owners"},
		{"-v", "/a:/x:idmap=uids=0-1", "write FILE-SHOWN-LENGTH"},
		{"-v", "/a:/x:idmap=uids=0-1-1", "both uids and gids"},
		{"-v", "/a:/x:idmap=uids=0-1-0;gids=0-0-1", "there are no such ids"},
		{"-v", "/a:/x:idmap=uids=@0-1-1;gids=0-0-1", "relative"},
		{"-v", "/a:/x:idmap=uids=0-0-1;gids=0-0-1;uids=0-0-1", "uids is there twice"},
		{"-v", "/a:/x:idmap=uids=0-4294967295-2;gids=0-0-1", "there are no such ids"},
		{"-v", "/a:/proc/self/attr", `destination "/proc/self/attr"`},
		{"-v", "v:/sys", `destination "/sys"`},
		{"-v", "v:/", `destination "/"`},
		{"-v", "v:/x\n/y", "control characters"},
		{"--mount", "type=bind,src=v,dst=/x", `source "v" is not a path`},
		{"--mount", "type=bind,src=/v,dst=/x,subpath=y", "subpath is for"},
		{"--mount", "type=volume,src=v,dst=/x,subpath=../y", "must not go upwards"},
		{"--mount", "type=volume,src=v,dst=/x,subpath=y/../../z", "must not go upwards"},
		{"--mount", "type=volume,dst=/x,ro", "without a name takes no options"},
		{"--mount", "type=volume,src=v,dst=/x,volume-opt=size=1g", "not supported here"},
		{"--mount", "type=volume,src=v,src=w,dst=/x", "was given already"},
		{"--mount", "type=volume,src=v,dst=", "has no value"},
		{"--mount", "type=image,dst=/x", "it has no source"},
		{"--mount", "type=image,src=i,dst=/x,rw", "cannot be mounted writable"},
		{"--mount", "type=image,src=i,dst=/x,ro=false", "cannot be mounted writable"},
		{"--mount", "type=image,src=i,dst=/x,U", "mounted as they are"},
		{"--mount", "type=devpts,src=/x,dst=/x", "a devpts has no source"},
		{"--mount", "type=devpts,dst=/x,size=1m", "there is none of that name"},
		{"--mount", "type=tmpfs,dst=/x,ro,rw", "contradict each other"},
		{"--mount", "type=tmpfs,dst=/x,U,tmpcopyup", "contradicts U"},
		{"--mount", "type=bind,src=/x,dst=/x,size=1m", "there is none of that name"},
		{"--mount", "type=ramfs,dst=/x", `type "ramfs" is not supported`},
		{"--mount", "src=/x,dst=/x", "it has no type"},
		{"--mount", "type=bind,nope=1,src=/x,dst=/x", `"nope" is not a key`},
		{"--tmpfs", "/x:mode=999", "write it in octal"},
		{"--tmpfs", "/x:uid=-1", "write a number"},
		{"--tmpfs", "/x:nr_inodes=0", "write a number"},
		{"--volumes-from", "db:rx", `option "rx": use ro or rw`},
		{"--volumes-from", "db:ro,rw", "contradict each other"},
	} {
		o := map[string]Options{
			"-v": {Volumes: []string{c.value}}, "--mount": {Mounts: []string{c.value}}, "--tmpfs": {Tmpfs: []string{c.value}}, "--volumes-from": {VolumesFrom: []string{c.value}},
		}[c.flag]
		_, err := Check(o, input(o).Host)
		flag := strings.Replace(c.flag, "-v", "--volume", 1)
		if c.flag != "-v" {
			flag = c.flag
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), fmt.Sprintf("%s %q", flag, c.value)) {
			t.Errorf("%s %s: want %q, got %v", c.flag, c.value, c.want, err)
		}
	}
	o := Options{Volumes: []string{"v:/x"}, Mounts: []string{"type=tmpfs,dst=/x/"}}
	if _, err := Check(o, input(o).Host); err == nil || !strings.Contains(err.Error(), "/x is mounted twice") {
		t.Errorf("two at one destination: %v", err)
	}
}

// Labels are for SELinux: without it they are taken and mean nothing, as with
// podman; with it they would have to be made.
func TestRelabelWithoutSELinux(t *testing.T) {
	o := Options{Volumes: []string{"v:/x:z", "/a:/y:Z"}, Mounts: []string{"type=bind,src=/a,dst=/z,relabel=shared"}}
	if _, err := Spec(input(o)); err != nil {
		t.Error(err)
	}
	in := input(o)
	in.Host.SELinux = true
	if _, err := Spec(in); err == nil || !strings.Contains(err.Error(), "chcon") {
		t.Errorf("with SELinux: %v", err)
	}
}

// Whatever the order of the flags, what is mounted on a directory comes before
// what is mounted below it.
func TestParentsBeforeChildren(t *testing.T) {
	r, err := Spec(input(Options{ImageVolume: "ignore", Volumes: []string{"c:/a/b/c", "b:/a/b", "x:/x"}, Tmpfs: []string{"/a"}}))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range r.Spec.Mounts {
		if m.Destination[1:2] == "a" || m.Destination == "/x" {
			got = append(got, m.Destination)
		}
	}
	if want := []string{"/x", "/a", "/a/b", "/a/b/c"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// What another pod mounts comes before what the user asks for himself, and its
// read-only mounts stay so unless he says otherwise.
func TestVolumesFrom(t *testing.T) {
	shared := func() [][]Shared {
		return [][]Shared{
			{
				{Spec: specs.Mount{Destination: "/data", Type: "bind", Source: "/v/db/data", Options: []string{"rbind", "ro"}}, Mount: Mount{Dest: "/data", Volume: "db", Chown: true}},
				{Spec: specs.Mount{Destination: "/conf", Type: "bind", Source: "/srv", Options: []string{"rbind"}}, Mount: Mount{Dest: "/conf"}},
			},
			{{Spec: specs.Mount{Destination: "/conf", Type: "bind", Source: "/other", Options: []string{"rbind"}}, Mount: Mount{Dest: "/conf"}}},
		}
	}
	in := input(Options{VolumesFrom: []string{"one:rw", "two:ro"}, Tmpfs: []string{"/var/data"}})
	in.Host.From = shared()
	r, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]specs.Mount{}
	for _, m := range r.Spec.Mounts {
		got[m.Destination] = m
	}
	if m := got["/data"]; !slices.Equal(m.Options, []string{"rbind"}) {
		t.Errorf("/data: %+v", m)
	}
	if m := got["/conf"]; m.Source != "/other" || !slices.Equal(m.Options, []string{"rbind", "ro"}) {
		t.Errorf("/conf: %+v", m)
	}
	at := slices.IndexFunc(r.Mounts, func(m Mount) bool { return m.Volume == "db" })
	if at < 0 || r.Mounts[at].Chown {
		t.Errorf("recorded as %+v", r.Mounts)
	}

	in = input(Options{VolumesFrom: []string{"one", "two"}, Volumes: []string{"/mine:/data"}})
	in.Host.From = shared()
	if r, err = Spec(in); err != nil {
		t.Fatal(err)
	}
	for _, m := range r.Mounts {
		if m.Dest == "/data" && m.Volume != "" {
			t.Errorf("the user's own mount did not replace it: %+v", r.Mounts)
		}
	}

	in = input(Options{VolumesFrom: []string{"one"}})
	in.Host.From = [][]Shared{{{Mount: Mount{Dest: "/data", Dir: "volumes/0"}}}}
	_, err = Spec(in)
	var hint interface{ Hint() string }
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "--volume NAME:/data") {
		t.Errorf("a directory of another pod: %v", err)
	}
}

// containerd: an image's volume with ".." in it was copied from the host. Here
// it is a path of the pod, whatever is written in it, and what it begins with
// is looked up in the image's root by its descriptor.
func TestCVE_2022_23648_ImageVolumeTraversal(t *testing.T) {
	in := input(Options{})
	in.Image.Volumes = map[string]struct{}{"/../../../../../../../../var/lib/kubelet/pki/": {}}
	r, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Volumes) != 1 || r.Volumes[0].Dest != "/var/lib/kubelet/pki" || r.Volumes[0].Dir != "volumes/0" {
		t.Errorf("got %+v", r.Volumes)
	}
	in.Image.Volumes = map[string]struct{}{"../../etc": {}}
	refused(t, in, "must be an absolute path")
	in.Image.Volumes = map[string]struct{}{"/a/../../proc/self": {}}
	refused(t, in, "nothing can be mounted there")
}

// A pod that takes over what is read-only down to the last mount gets no more
// of it by asking for ro, and needs nothing of what its own mounts replace.
func TestVolumesFromTakesNoMore(t *testing.T) {
	from := []Shared{
		{Spec: specs.Mount{Destination: "/data", Type: "bind", Source: "/host/data", Options: []string{"rbind", "rro"}}, Mount: Mount{Dest: "/data"}},
		{Spec: specs.Mount{Destination: "/gone", Type: "bind", Source: "/host/gone", Options: []string{"rbind"}}, Mount: Mount{Dest: "/gone"}},
	}
	for access, want := range map[string]string{"": "rro", ":ro": "rro", ":rw": ""} {
		r, err := Check(Options{VolumesFrom: []string{"other" + access}, Volumes: []string{"v:/gone"}}, Host{From: [][]Shared{from}})
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(r.Spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/data" })
		if o := r.Spec.Mounts[at].Options; slices.Contains(o, "ro") || slices.Contains(o, "rro") != (want == "rro") {
			t.Errorf("%q: options %q, want %q", access, o, want)
		}
		if !slices.Equal(r.Binds, []string{"/host/data"}) {
			t.Errorf("%q: host paths %q", access, r.Binds)
		}
	}
}
