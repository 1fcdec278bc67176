// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	for _, tt := range []struct {
		path, id string
		want     Name
		err      string
	}{
		{"", "web", Name{"system.slice", "gantry-oci-web.scope"}, ""},
		{"machine.slice:libpod:0123", "x", Name{"machine.slice", "libpod-0123.scope"}, ""},
		{":cri-containerd:0123", "x", Name{"system.slice", "cri-containerd-0123.scope"}, ""},
		{"kubepods-burstable-pod1_2.slice:crio:a", "x", Name{"kubepods-burstable-pod1_2.slice", "crio-a.scope"}, ""},
		{"-:p:n", "x", Name{"-.slice", "p-n.scope"}, ""},
		{"-.slice:p:n", "x", Name{"-.slice", "p-n.scope"}, ""},
		{"a.slice::n", "x", Name{"a.slice", "-n.scope"}, ""},
		{"a.slice:p:", "x", Name{}, "no NAME"},
		{"/docker/0123", "x", Name{}, "is not SLICE:PREFIX:NAME"},
		{"a.slice:p:n:m", "x", Name{}, "is not SLICE:PREFIX:NAME"},
		{"a.slice:p:b.slice", "x", Name{}, "names a slice"},
		{"a:p:n", "x", Name{}, "is not the name of one"},
		{".slice:p:n", "x", Name{}, "is not the name of one"},
		{"a.slice/b.slice:p:n", "x", Name{}, "is not the name of one"},
		{"a--b.slice:p:n", "x", Name{}, "a dash with nothing beside it"},
		{"-a.slice:p:n", "x", Name{}, "a dash with nothing beside it"},
		{"../x.slice:p:n", "x", Name{}, "is not the name of one"},
		{"a.slice:p:../n", "x", Name{}, "may have letters"},
		{"a.slice:p:n\n", "x", Name{}, "may have letters"},
		{"a.slice:p:" + strings.Repeat("n", 250), "x", Name{}, "longer than"},
		{"", "a+b", Name{}, "may have letters"},
	} {
		got, err := ParseName(tt.path, tt.id, false)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: %v, want an error with %q", tt.path, err, tt.err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%q of %s: %+v, %v; want %+v", tt.path, tt.id, got, err, tt.want)
		}
	}
}

// A user's systemd has no system.slice.
func TestParseNameOfUser(t *testing.T) {
	for path, want := range map[string]Name{
		"":                     {"user.slice", "gantry-oci-web.scope"},
		":libpod:0123":         {"user.slice", "libpod-0123.scope"},
		"app.slice:libpod:012": {"app.slice", "libpod-012.scope"},
	} {
		if got, err := ParseName(path, "web", true); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", path, got, err, want)
		}
	}
}

func TestUserSockets(t *testing.T) {
	for dir, want := range map[string]sockets{
		"":           {"/run/user/1000/systemd/private", "/run/user/1000/bus"},
		"run":        {"/run/user/1000/systemd/private", "/run/user/1000/bus"},
		"/home/u/rt": {"/home/u/rt/systemd/private", "/home/u/rt/bus"},
	} {
		if got := userSockets(1000, dir); got != want {
			t.Errorf("%q: %+v, want %+v", dir, got, want)
		}
	}
}

func TestExpand(t *testing.T) {
	for slice, want := range map[string]string{
		"system.slice": "/system.slice", "-.slice": "/", "a-b-c.slice": "/a.slice/a-b.slice/a-b-c.slice",
	} {
		if got, err := expand(slice); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", slice, got, err, want)
		}
	}
}

func TestPath(t *testing.T) {
	for top, want := range map[string]string{
		"":                       "/m.slice/p-n.scope",
		"/":                      "/m.slice/p-n.scope",
		"/machine.slice/c.scope": "/machine.slice/c.scope/m.slice/p-n.scope", // in a container with systemd
	} {
		if got, err := (&Manager{top: top}).Path(Name{"m.slice", "p-n.scope"}); err != nil || got != want {
			t.Errorf("below %q: %q, %v; want %q", top, got, err, want)
		}
	}
}

func TestResources(t *testing.T) {
	const none = uint64(math.MaxUint64)
	for _, tt := range []struct {
		files   []File
		version int
		want    []Property
	}{
		{[]File{{"memory.max", "4096"}, {"memory.low", "1"}, {"memory.high", "max"}, {"memory.min", "2"}, {"memory.swap.max", "0"}}, 257, []Property{
			{"MemoryMax", uint64(4096)}, {"MemoryLow", uint64(1)}, {"MemoryHigh", none}, {"MemoryMin", uint64(2)}, {"MemorySwapMax", uint64(0)},
		}},
		{[]File{{"cpu.max", "50000 100000"}}, 257, []Property{{"CPUQuotaPeriodUSec", uint64(100000)}, {"CPUQuotaPerSecUSec", uint64(500000)}}},
		{[]File{{"cpu.max", "50000 100000"}}, 241, []Property{{"CPUQuotaPerSecUSec", uint64(500000)}}},
		{[]File{{"cpu.max", "max 100000"}}, 257, []Property{{"CPUQuotaPeriodUSec", uint64(100000)}, {"CPUQuotaPerSecUSec", none}}},
		// A third of a processor is 333333 µs: 330000 would be less than asked.
		{[]File{{"cpu.max", "10000 30000"}}, 257, []Property{{"CPUQuotaPeriodUSec", uint64(30000)}, {"CPUQuotaPerSecUSec", uint64(340000)}}},
		{[]File{{"cpu.weight", "79"}}, 257, []Property{{"CPUWeight", uint64(79)}}},
		{[]File{{"cpu.weight", "79"}, {"cpu.idle", "1"}}, 257, []Property{{"CPUWeight", uint64(0)}}},
		{[]File{{"cpu.weight", "79"}, {"cpu.idle", "1"}}, 251, []Property{{"CPUWeight", uint64(79)}}},
		{[]File{{"pids.max", "max"}}, 257, []Property{{"TasksMax", none}}},
		{[]File{{"cpuset.cpus", "0-2,9"}, {"cpuset.mems", "0"}}, 257, []Property{{"AllowedCPUs", []byte{7, 2}}, {"AllowedMemoryNodes", []byte{1}}}},
		{[]File{{"cpuset.cpus", "0-2,9"}}, 243, nil},
		{[]File{{"cpuset.cpus", ""}}, 257, nil},
		{[]File{{"io.bfq.weight", "300"}, {"io.weight", "2930"}}, 257, []Property{{"IOWeight", uint64(2930)}}},
		{[]File{{"io.weight", "default 2930\n8:0 100"}}, 257, []Property{{"IOWeight", uint64(2930)}}},
		{[]File{{"io.weight", "8:0 100"}}, 257, nil},
		{[]File{{"hugetlb.2MB.max", "1"}, {"rdma.max", "x hca_handle=1"}}, 257, nil},
		{[]File{{"memory.limit_in_bytes", "4096"}, {"cpu.shares", "512"}, {"blkio.weight", "300"}}, 245, []Property{
			{"MemoryLimit", uint64(4096)}, {"CPUShares", uint64(512)}, {"BlockIOWeight", uint64(300)},
		}},
	} {
		got, err := Resources(tt.files, tt.version)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%v for %d: %v, %v; want %v", tt.files, tt.version, got, err, tt.want)
		}
	}
	for _, f := range []File{{"memory.max", "1M"}, {"cpu.max", "1 0"}, {"cpu.max", "1 2 3"}, {"cpuset.cpus", "3-1"}, {"cpuset.cpus", "0-4000000000"}} {
		if got, err := Resources([]File{f}, 257); err == nil {
			t.Errorf("%v became %v", f, got)
		}
	}
}

func TestAnnotated(t *testing.T) {
	got, err := Annotated(map[string]string{
		"org.systemd.property.TimeoutStopUSec":     "uint64 10000000",
		"org.systemd.property.KillSignal":          "37",
		"org.systemd.property.CollectMode":         "'inactive'",
		"org.systemd.property.After":               "['crio.service', \"b.target\"]",
		"org.systemd.property.Before":              "[]",
		"org.systemd.property.DefaultDependencies": "true",
		"org.example": "x",
	})
	want := []Property{
		{"After", []string{"crio.service", "b.target"}},
		{"Before", []string{}},
		{"CollectMode", "inactive"},
		{"DefaultDependencies", true},
		{"KillSignal", int32(37)},
		{"TimeoutStopUSec", uint64(10000000)},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	got, err = Annotated(map[string]string{"org.systemd.property.TimeoutStopSec": "90"})
	if err != nil || !reflect.DeepEqual(got, []Property{{"TimeoutStopUSec", uint64(90_000_000)}}) {
		t.Errorf("in seconds: %v, %v", got, err)
	}
}

// CVE-2024-3154: annotations became properties of the unit whatever they were,
// and ExecStartPre of systemd runs as root on the host.
func TestCVE_2024_3154_OnlyHarmlessProperties(t *testing.T) {
	for name, text := range map[string]string{
		"ExecStartPre": "[('/bin/sh', ['sh'], false)]", "ExecStopPost": "['x']", "PIDs": "[1]", "Slice": "'-.slice'", "Delegate": "false",
		"MemoryMax": "uint64 1", "DeviceAllow": "[]", "User": "'root'", "OnFailure": "['x.service']", "Wants": "['x.service']",
		"": "'x'", "timeoutstopusec": "1", "TimeoutStopUSec ": "1",
		"TimeoutStopUSec": "-1", "TimeoutStopSec": "18446744073709551615", "KillSignal": "4294967296", "KillMode": "none", "After": "'x'",
		"Description": "'a'b'", "SendSIGHUP": "1", "Before": "['a\n']",
	} {
		key := "org.systemd.property." + name
		if got, err := Annotated(map[string]string{key: text}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("annotations[%q]", key)) {
			t.Errorf("%s=%s became %v, %v", name, text, got, err)
		}
	}
}

func FuzzAnnotated(f *testing.F) {
	f.Add("After", "['a', 'b']")
	f.Add("TimeoutStopSec", "uint64 90")
	f.Add("Before", "[")
	f.Fuzz(func(t *testing.T, name, text string) {
		got, err := Annotated(map[string]string{annotation + name: text})
		if err != nil {
			return
		}
		for _, p := range got {
			if allowed[p.Name] != signatureOf(p.Value) {
				t.Errorf("%s=%s became %v", name, text, p)
			}
		}
	})
}

func TestVersion(t *testing.T) {
	for s, want := range map[string]int{"257.7-1~deb13u1": 257, "v245": 245, "252": 252, "": 0, "x": 0} {
		if got, err := parseVersion(s); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
}
