// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseHost(t *testing.T) {
	for _, tt := range []struct {
		name       string
		mounts     string
		groups     string
		v1         map[string]hierarchy
		v2         *hierarchy
		tracked    *hierarchy
		v1MaxNames int
	}{
		{
			name:   "v2 with systemd",
			mounts: "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			groups: "0::/user.slice/user-0.slice/session-1.scope\n",
			v2:     &hierarchy{"/sys/fs/cgroup", "/user.slice/user-0.slice/session-1.scope", false},
		},
		{
			name: "hybrid, controllers together and apart, memory group of our own",
			mounts: "31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n" +
				"32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd\n" +
				"33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n" +
				"34 30 0:30 / /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n",
			groups: "4:memory:/a/b\n3:cpu,cpuacct:/c\n1:name=systemd:/d\n0::/\n",
			v1: map[string]hierarchy{
				"cpu":     {"/sys/fs/cgroup/cpu,cpuacct", "/c", false},
				"cpuacct": {"/sys/fs/cgroup/cpu,cpuacct", "/c", false},
				"memory":  {"/sys/fs/cgroup/memory", "/a/b", true},
			},
			v2:      &hierarchy{"/sys/fs/cgroup/unified", "/", false},
			tracked: &hierarchy{"/sys/fs/cgroup/systemd", "/d", false},
		},
		{
			name:   "in a container without a cgroup namespace: its group is the mount's root",
			mounts: "30 23 0:26 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n",
			groups: "0::/docker/abc/x\n",
			v2:     &hierarchy{"/sys/fs/cgroup", "/x", true},
		},
		{
			name:   "somebody else's group is mounted",
			mounts: "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
			groups: "0::/docker/abcd\n",
		},
		{
			name:   "our group is outside the cgroup namespace",
			mounts: "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
			groups: "0::/../../x\n",
		},
		{
			name:   "a blank in the mount point, and noise",
			mounts: "x\n\n30 23 0:26 / /mnt/a\\040b rw - cgroup2 cgroup rw\n29 1 0:5 / / rw - ext4 /dev/vda rw\n",
			groups: "0::/\n",
			v2:     &hierarchy{"/mnt/a b", "/", false},
		},
	} {
		h, err := parseHost(tt.mounts, tt.groups)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if tt.v1 == nil {
			tt.v1 = map[string]hierarchy{}
		}
		if !reflect.DeepEqual(h.v1, tt.v1) || !reflect.DeepEqual(h.v2, tt.v2) || !reflect.DeepEqual(h.tracked, tt.tracked) {
			t.Errorf("%s: v1 %v v2 %v tracked %v, want %v %v %v", tt.name, h.v1, h.v2, h.tracked, tt.v1, tt.v2, tt.tracked)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	f.Add("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/a\n1:cpu,cpuacct:/b\n")
	f.Fuzz(func(t *testing.T, mounts, groups string) {
		h, err := parseHost(mounts, groups)
		if err != nil {
			return
		}
		for _, v1 := range h.v1 {
			if !strings.HasPrefix(v1.own, "/") || strings.Contains(v1.own+"/", "/../") {
				t.Errorf("own group %q leads out of its mount", v1.own)
			}
		}
	})
}

func TestPlace(t *testing.T) {
	for _, tt := range []struct {
		name      string
		own       string
		host      host
		want      placement
		wantWords string
	}{
		{name: "top of the machine", own: "/", host: host{top: true}, want: placement{base: "/gantry", enable: true}},
		{
			name: "unit with Delegate=yes", own: "/system.slice/web.service", host: host{systemd: true, delegated: true},
			want: placement{base: "/system.slice/web.service", leaf: "/system.slice/web.service/supervisor", enable: true},
		},
		{
			name: "and its second launch, from the leaf", own: "/system.slice/web.service/supervisor", host: host{systemd: true, parentToo: true},
			want: placement{base: "/system.slice/web.service", enable: true},
		},
		{name: "login session", own: "/user.slice/user-0.slice/session-3.scope", host: host{systemd: true}, want: placement{base: "/gantry", enable: true}},
		{
			name: "unit without Delegate", own: "/system.slice/web.service", host: host{systemd: true},
			want: placement{base: "/system.slice/web.service"}, wantWords: "Delegate=yes in web.service",
		},
		{
			name: "scope with limits of its own", own: "/system.slice/run-r1.scope", host: host{systemd: true},
			want: placement{base: "/system.slice/run-r1.scope"}, wantWords: "systemd-run --scope -p Delegate=yes",
		},
		{name: "container with a cgroup namespace", own: "/", want: placement{base: "/", leaf: "/supervisor", enable: true}},
		{name: "no systemd", own: "/openrc.sshd", want: placement{base: "/gantry", enable: true}},
	} {
		tt.host.v2 = &hierarchy{mount: "/sys/fs/cgroup", own: tt.own}
		got := place(&tt.host)
		if !strings.Contains(got.mend, tt.wantWords) || got.enable == (got.reason != "") {
			t.Errorf("%s: reason %q, mend %q", tt.name, got.reason, got.mend)
		}
		got.reason, got.mend = "", ""
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// The files enable reads and writes are plain here: what matters is which
// groups are touched, top first, and that nothing is turned on twice.
func TestEnable(t *testing.T) {
	mount := t.TempDir()
	for dir, on := range map[string]string{"/": "cpu memory", "/a": "memory", "/a/b": "", "/a/b/c": ""} {
		if err := os.MkdirAll(filepath.Join(mount, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mount, dir, "cgroup.subtree_control"), []byte(on), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := enable(mount, "/a", "/a/b", []string{"memory", "pids"}); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{"/": "cpu memory", "/a": "+pidsy", "/a/b": "+memory +pids", "/a/b/c": ""} {
		b, err := os.ReadFile(filepath.Join(mount, dir, "cgroup.subtree_control"))
		if err != nil {
			t.Fatal(err)
		}
		if string(b) != want {
			t.Errorf("%s: %q, want %q", dir, b, want)
		}
	}
	got := slices.Collect(downwards("/", "/gantry"))
	if !slices.Equal(got, []string{"/", "/gantry"}) {
		t.Errorf("downwards = %q", got)
	}
}

func TestLimitsOf(t *testing.T) {
	mib := func(n int64) *int64 { n <<= 20; return &n }
	for _, tt := range []struct {
		name string
		res  *specs.LinuxResources
		want string // names in order, or
		err  string // the limit in the error
	}{
		{"nil", nil, "", ""},
		{"nothing", &specs.LinuxResources{}, "", ""},
		{"no limits by value", &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1)), Reservation: ptr(int64(0))},
			Pids:   &specs.LinuxPids{Limit: ptr(int64(-1))},
			CPU:    &specs.LinuxCPU{Quota: ptr(int64(-1)), Shares: ptr(uint64(0))},
		}, "", ""},
		{
			"memory before swap", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: mib(64), Swap: mib(128), Reservation: mib(32)}},
			"memory memory-reservation memory-swap", "",
		},
		{"swap alone", &specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: mib(128)}}, "", "memory-swap"},
		{"swap below memory", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: mib(64), Swap: mib(63)}}, "", "memory-swap"},
		{"everything else", &specs.LinuxResources{
			CPU:            &specs.LinuxCPU{Quota: ptr(int64(1)), Shares: ptr(uint64(2)), Burst: ptr(uint64(1)), Idle: ptr(int64(1)), Cpus: "0-1,3", Mems: "0"},
			Pids:           &specs.LinuxPids{Limit: ptr(int64(9))},
			BlockIO:        &specs.LinuxBlockIO{Weight: ptr(uint16(10)), ThrottleReadBpsDevice: make([]specs.LinuxThrottleDevice, 1)},
			HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 0}},
			Unified:        map[string]string{"memory.high": "1", "cpu.max": "max"},
		}, "cpu cpu-burst cpu-shares cpu-idle cpuset-cpus cpuset-mems pids blkio-weight device-read-bps hugetlb unified unified", ""},
		{"cpuset with a path in it", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "../0"}}, "", "cpuset-cpus"},
		{"unified path", &specs.LinuxResources{Unified: map[string]string{"../memory.max": "1"}}, "", "unified"},
		{"unified kill", &specs.LinuxResources{Unified: map[string]string{"cgroup.kill": "1"}}, "", "unified"},
		{"unified procs", &specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}, "", "unified"},
		{"unified depth", &specs.LinuxResources{Unified: map[string]string{"cgroup.max.depth": "3"}}, "unified", ""},
		{"unified without controller", &specs.LinuxResources{Unified: map[string]string{".max": "1"}}, "", "unified"},
		{"unified release agent", &specs.LinuxResources{Unified: map[string]string{"release_agent": "/x"}}, "", "unified"},
	} {
		got, err := limitsOf(tt.res)
		if tt.err != "" {
			var le *LimitError
			if !errors.As(err, &le) || le.Limit != tt.err {
				t.Errorf("%s: %v, want a *LimitError about %s", tt.name, err, tt.err)
			}
			continue
		}
		var names []string
		for _, l := range got {
			names = append(names, l.name)
		}
		if err != nil || strings.Join(names, " ") != tt.want {
			t.Errorf("%s: %v, %v; want %s", tt.name, names, err, tt.want)
		}
	}
}

func TestStrict(t *testing.T) {
	for _, tt := range []struct {
		limit string
		asked map[string]bool
		want  bool
	}{
		{"memory", map[string]bool{"memory": true}, true},
		{"memory-swap", map[string]bool{"memory": true}, true},
		{"memory-swap", map[string]bool{"memory": true, "memory-swap": false}, false},
		{"memory", map[string]bool{"memory-swap": true}, false},
		{"pids", nil, false},
	} {
		if got := (limit{name: tt.limit}).strict(tt.asked); got != tt.want {
			t.Errorf("%s with %v: %v, want %v", tt.limit, tt.asked, got, tt.want)
		}
	}
}

func throttle(major, minor int64, rate uint64) specs.LinuxThrottleDevice {
	var d specs.LinuxThrottleDevice
	d.Major, d.Minor, d.Rate = major, minor, rate
	return d
}

func TestDeviceRules(t *testing.T) {
	rules, err := deviceRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	if first := rules[0]; first.Allow || first.Type != "a" || first.Access != "rwm" {
		t.Errorf("the first rule is %+v, want all denied", first)
	}
	for _, r := range rules[1:] {
		if r.Type == "b" && r.Access != "m" {
			t.Errorf("a block device may be opened by default: %+v", r)
		}
	}
	for _, bad := range []specs.LinuxDeviceCgroup{{Type: "x"}, {Type: "p"}, {Type: "c", Access: "rx"}} {
		if _, err := deviceRules([]specs.LinuxDeviceCgroup{bad}); err == nil || !strings.Contains(err.Error(), "devices[0]") {
			t.Errorf("%+v: %v, want an error with its place", bad, err)
		}
	}
	bundle := []specs.LinuxDeviceCgroup{{Allow: true}}
	rules, err = deviceRules(bundle)
	if err != nil || rules[1].Type != "a" || rules[1].Access != "rwm" || bundle[0].Type != "" {
		t.Errorf("allow all: %+v, %v; the bundle became %+v", rules[1], err, bundle[0])
	}
}

// What v1 reads of a rule for all kinds of devices is that all is allowed.
func TestDevicesV1(t *testing.T) {
	for want, d := range map[string]specs.LinuxDeviceCgroup{
		"a *:* rwm":         {Type: "a", Access: "rwm"},
		"a *:* mwr":         {Type: "a", Major: ptr(int64(-1)), Minor: ptr(int64(-1)), Access: "mwr"},
		"c *:* r b *:* r":   {Type: "a", Access: "r"},
		"c 5:* rw b 5:* rw": {Type: "a", Major: ptr(int64(5)), Access: "rw"},
		"c 1:3 rwm":         {Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rwm"},
	} {
		var got []string
		for _, s := range devicesV1([]specs.LinuxDeviceCgroup{d}) {
			got = append(got, s.value)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%+v: %q, want %q", d, got, want)
		}
	}
}

// Missing defaults with one reason make one note.
func TestTellOnce(t *testing.T) {
	var notes []string
	b := &builder{note: func(s string) { notes = append(notes, s) }, missing: []*LimitError{
		{Limit: "pids", Reason: "no group", Mend: "make one"}, {Limit: "devices", Reason: "no group", Mend: "make one"}, {Limit: "cpu", Reason: "no cpu"},
	}}
	b.tell()
	want := []string{"running without the default limit on pids, devices: no group; make one", "running without the default limit on cpu: no cpu"}
	if !slices.Equal(notes, want) {
		t.Errorf("notes = %q, want %q", notes, want)
	}
}

// A host whose cgroup file systems cannot be written: a limit by name is
// refused with the reason and the mend, defaults are noted, and the group that
// comes out holds nothing and does nothing.
func TestReadOnlyHost(t *testing.T) {
	h := &host{v1: map[string]hierarchy{}, v2: &hierarchy{"/proc/1", "/", true}, systemd: false, top: true}
	res := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 26))}}
	_, err := create(h, Options{Name: "x", Resources: res, Strict: map[string]bool{"memory": true}})
	var le *LimitError
	if !errors.As(err, &le) || le.Limit != "memory" || le.Reason == "" {
		t.Fatalf("create = %v, want a *LimitError about memory", err)
	}
	var notes []string
	g, err := create(h, Options{Name: "x", Resources: res, Note: func(s string) { notes = append(notes, s) }})
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "memory, devices") {
		t.Fatalf("create = %v, notes %q; want one about memory and devices", err, notes)
	}
	if g.CloneFD() != nil || len(g.Dirs()) != 0 || g.Confined() || g.Add(1) != nil || g.Delete() != nil {
		t.Errorf("an empty group holds something: %+v", g)
	}
	if back, err := g.Enter(); err != nil || back() != nil {
		t.Errorf("enter nothing: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "/a", "a\nb", strings.Repeat("x", 300)} {
		if _, err := create(&host{}, Options{Name: name}); err == nil {
			t.Errorf("name %q passed", name)
		}
	}
}
