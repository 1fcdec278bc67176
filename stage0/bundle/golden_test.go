// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// image is what most tests launch: an image that uses every field we honour.
func image() ispec.ImageConfig {
	return ispec.ImageConfig{
		User:       "web",
		Env:        []string{"PATH=/app/bin:/bin", "MODE=image", "IMAGE=1"},
		Entrypoint: []string{"/app/serve"},
		Cmd:        []string{"--port", "80"},
		Volumes:    map[string]struct{}{"/var/data": {}, "/cache": {}},
		WorkingDir: "/app",
		Labels:     map[string]string{"run": "binary:///bin/evil", "org.opencontainers.image.title": "web"},
		StopSignal: "SIGINT",
	}
}

func accounts() ImageFiles {
	return ImageFiles{
		Passwd: []byte("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:Web:/home/web:/bin/sh\n"),
		Group:  []byte("root:x:0:\nweb:x:1001:\naudio:x:29:web,other\nvideo:x:44:other,web\n"),
	}
}

// input is a launch of image under opts on a host that can do everything.
func input(opts Options) Input {
	const uuid = "6a0e1f0c-3b57-4d0e-9a54-0c1d2e3f4a5b"
	return Input{
		Image: image(), Options: opts, Files: accounts(),
		Host: Host{
			Environ:    []string{"SECRET=host", "LC_ALL=C", "LC_TIME=de", "MODE=host"},
			Dir:        "/home/me",
			Volumes:    "/var/lib/gantry/volumes",
			Hostname:   "server",
			Hosts:      []byte("127.0.0.1 localhost\n10.0.0.1 server\n"),
			ResolvConf: []byte("search example.com\nnameserver 10.0.0.53\n"),
			Limits:     []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 20000}},
			Zone:       []byte("TZif2"),
			Devices:    map[string][]Node{"/dev/sda": {{Type: "b", Major: 8, Mode: 0o660, GID: 6}}, "/dev/dri": {{Path: "card0", Type: "c", Major: 226}, {Path: "by-path/x", Type: "c", Major: 226, Minor: 1}}},
			CDI:        []string{"example.com/gpu=0"},
			Edits:      edits(opts),
		},
		Pod: Pod{UUID: uuid, Dir: "/var/lib/gantry/pods/run/" + uuid, Rootfs: "rootfs"},
	}
}

// edits are those of a CDI device, if one is asked for.
func edits(o Options) []Edits {
	if len(o.Devices) == 0 {
		return nil
	}
	return []Edits{{
		Env: []string{"MODE=device"}, GIDs: []uint32{0, 44, 44},
		Devices:    []DeviceEdit{{Path: "/dev/gpu0", Host: "/dev/sda", Access: "rw"}, {Path: "/dev/ctl", Type: "c", Major: 195, Access: "rwm", UID: ptr(uint32(0))}},
		NetDevices: map[string]specs.LinuxNetDevice{"eth7": {Name: "eth1"}},
		Mounts:     []specs.Mount{{Destination: "/lib/gpu", Source: "/lib/gpu", Type: "bind", Options: []string{"ro", "bind"}}},
		Hooks:      []HookEdit{{Stage: "createContainer", Hook: specs.Hook{Path: "/bin/hook"}}},
	}}
}

func ptr[T any](v T) *T { return &v }

func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		opts Options
	}{
		{"default", Options{}},
		{"everything", Options{
			Args: []string{"--verbose"}, Entrypoint: ptr(`["/bin/sh", "-c"]`),
			Env: []string{"MODE=user", "LC_*", "EMPTY="}, UnsetEnv: []string{"IMAGE"}, User: "0:0", GroupAdd: []string{"audio", "7"}, Workdir: "/job",
			Volumes: []string{"/srv:/srv:ro", "./data:/data:rro,exec,z", "/fresh"}, Mounts: []string{"type=bind,src=/a,dst=/b/c,bind-propagation=rslave,readonly", "type=tmpfs,dst=/scratch,tmpfs-size=1m,tmpfs-mode=700"},
			Tmpfs: []string{"/tmp:size=64m"}, ReadOnly: true, ShmSize: "1g", AddHosts: []string{"db:10.1.2.3"}, DNS: []string{"1.1.1.1"}, DNSOption: []string{"ndots:2"},
			Hostname: "web-1", Net: []string{"host"}, TTY: true, Interactive: true, StopSignal: "quit", StopTimeout: ptr(uint(3)),
			Labels: []string{"tier=front"}, Annotations: []string{"com.example=1"}, CapAdd: []string{"net_raw"}, CapDrop: []string{"ALL"},
			SecurityOpt: []string{"no-new-privileges", "seccomp=profile.json", "unmask=/proc/kcore", "mask=/secret"},
			Ulimits:     []string{"nofile=1024:2048", "core=0"}, OOMScoreAdj: ptr(500), Memory: "64m", MemoryReserve: "32m", CPUs: "1.5", CPUShares: "512",
			CPUSetCPUs: "0-1", PidsLimit: "100", Sysctls: []string{"kernel.msgmax=65536"},
		}},
		{"resources", Options{Memory: "64m", Resources: Resources{
			CgroupParent: "/machines", CgroupConf: []string{"memory.high=32M"}, CPUPeriod: "50000", CPUQuota: "10000", CPURTPeriod: "1000000", CPURTRuntime: "5000",
			MemorySwappiness: "0", OOMKillDisable: true, BlkioWeight: "500", BlkioWeightDevice: []string{"/dev/sda:100"},
			DeviceReadBps: []string{"/dev/sda:1m"}, DeviceWriteBps: []string{"/dev/sda:2m"}, DeviceReadIOPS: []string{"/dev/sda:10"}, DeviceWriteIOPS: []string{"/dev/sda:20"},
		}}},
		{"devices", Options{User: "1000", Hardware: Hardware{
			Devices: []string{"/dev/sda:r", "/dev/dri:/dev/gpu", "example.com/gpu=0"}, DeviceRules: []string{"c 189:* rw", "a *:* m"},
		}}},
		{"surroundings", Options{Surroundings: Surroundings{
			PID: "host", IPC: "host", UTS: "host", CgroupNS: "host", Umask: "077", Personality: "LINUX32", Timezone: "Asia/Tokyo",
			HTTPProxy: true, EnvMerge: []string{"PATH=${PATH}:/x"}, LabelFiles: []string{"f"},
		}}},
		{"nonroot-caps", Options{CapAdd: []string{"NET_BIND_SERVICE", "CAP_SYS_PTRACE"}, User: "1000"}},
		{"image-volume-tmpfs", Options{ImageVolume: "tmpfs"}},
		{"mounts", Options{
			User: "1000:1001", ImageVolume: "ignore",
			Volumes: []string{"db:/var/lib/db", "logs:/deep/er/logs:ro,U,nocopy", "/srv:/deep:rshared,idmap=uids=0-1000-1#5-2000-10;gids=0-100-10", "/srv:/c:cached"},
			Mounts: []string{
				"type=volume,src=db,dst=/part,subpath=a//b/,ro", "type=volume,dst=/fresh", "type=image,source=oci:tools:1,destination=/tools,subpath=/bin",
				"type=devpts,dst=/pts,uid=1,gid=2,mode=0600", "type=bind,src=./x,dst=/y,bind-propagation=slave,chown,consistency=cached,bind-nonrecursive",
				"type=tmpfs,dst=/own,U,size=1m,nr_inodes=1k,noswap",
			},
			Tmpfs: []string{"/t:mode=0700,notmpcopyup,exec"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Spec(input(c.opts))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, r)
		})
	}
}

func golden(t *testing.T, name string, v any) {
	t.Helper()
	var got bytes.Buffer
	e := json.NewEncoder(&got)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s differs from what was computed (go test -update rewrites it):\n%s", path, got.Bytes())
	}
}

// The same input gives the same bytes: nothing iterates a map on its way out.
func TestDeterministic(t *testing.T) {
	in := input(Options{Env: []string{"A=1", "B=2"}, Volumes: []string{"/a:/a", "/b:/b"}})
	in.Image.Volumes = map[string]struct{}{"/1": {}, "/2": {}, "/3": {}, "/4": {}, "/5": {}}
	first, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(first)
	for range 50 {
		r, err := Spec(in)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := json.Marshal(r); !bytes.Equal(got, want) {
			t.Fatalf("got %s, then %s", want, got)
		}
	}
}

func TestCommand(t *testing.T) {
	entry, cmd := []string{"/entry", "e"}, []string{"cmd", "c"}
	for _, c := range []struct {
		name       string
		entry, cmd []string
		flag       *string
		args, want []string
	}{
		{"image alone", entry, cmd, nil, nil, []string{"/entry", "e", "cmd", "c"}},
		{"arguments replace the command", entry, cmd, nil, []string{"x"}, []string{"/entry", "e", "x"}},
		{"no entrypoint", nil, cmd, nil, nil, cmd},
		{"no entrypoint, arguments", nil, cmd, nil, []string{"x", "y"}, []string{"x", "y"}},
		{"entrypoint flag drops the image's command", entry, cmd, ptr("/mine"), nil, []string{"/mine"}},
		{"entrypoint flag with arguments", entry, cmd, ptr("/mine"), []string{"x"}, []string{"/mine", "x"}},
		{"entrypoint flag is one word", entry, cmd, ptr("/bin/my prog"), nil, []string{"/bin/my prog"}},
		{"entrypoint flag as JSON", entry, cmd, ptr(`["a","b c"]`), []string{"x"}, []string{"a", "b c", "x"}},
		{"empty entrypoint flag", entry, cmd, ptr(""), []string{"x"}, []string{"x"}},
		{"empty entrypoint flag alone", entry, cmd, ptr(""), nil, nil},
		{"nothing", nil, nil, nil, nil, nil},
		{"empty words", nil, []string{""}, nil, nil, nil},
		{"bad JSON", entry, cmd, ptr(`["a"`), nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := command(ispec.ImageConfig{Entrypoint: c.entry, Cmd: c.cmd}, Options{Entrypoint: c.flag, Args: c.args})
			if (err != nil) != (c.want == nil) {
				t.Fatalf("error %v", err)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	in := input(Options{
		Env:      []string{"MODE=flag", "SECRET", "UNSET", "LC_*", "MULTI=a\nb"},
		EnvFiles: []string{"f"},
	})
	in.Host.EnvFiles = [][]byte{[]byte("# comment\n\nMODE=file\n  FILE = spaced\nQUOTED=\"q\"\r\nSECRET\n")}
	if _, err := Spec(in); err == nil || !strings.Contains(err.Error(), `--env-file f:4:`) {
		t.Fatalf("a name with a space: %v", err)
	}
	in.Host.EnvFiles[0] = bytes.Replace(in.Host.EnvFiles[0], []byte("FILE ="), []byte("FILE="), 1)
	r, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"PATH=/app/bin:/bin", "container=gantry", "MODE=flag", "IMAGE=1", "FILE= spaced", `QUOTED="q"`,
		"SECRET=host", "LC_ALL=C", "LC_TIME=de", "MULTI=a\nb", "HOSTNAME=6a0e1f0c", "HOME=/home/web",
	}
	if got := r.Spec.Process.Env; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestStopSignal(t *testing.T) {
	for flag, want := range map[string]string{"": "SIGINT", "9": "SIGKILL", "hup": "SIGHUP", "SIGRTMIN+3": "SIGRTMIN+3", "37": "SIGRTMIN+3", "RTMAX": "SIGRTMIN+30"} {
		r, err := Spec(input(Options{StopSignal: flag}))
		if err != nil || r.StopSignal != want {
			t.Errorf("%q: got %q, %v; want %q", flag, r.StopSignal, err, want)
		}
	}
	for _, flag := range []string{"0", "65", "-1", "NOPE", "SIGRTMIN+31", "SIGRTMIN3"} {
		if _, err := Spec(input(Options{StopSignal: flag})); err == nil {
			t.Errorf("%q was taken", flag)
		}
	}
}

// What is refused says which flag and what to write instead, and says it
// before the image is known.
func TestRefusals(t *testing.T) {
	for want, o := range map[string]Options{
		"--privileged is not supported":                {Privileged: true},
		`--cgroup-parent "a.slice": a slice`:           {Resources: Resources{CgroupParent: "a.slice"}},
		`--cgroup-parent "/..": write`:                 {Resources: Resources{CgroupParent: "/.."}},
		`--cgroup-conf "x": write`:                     {Resources: Resources{CgroupConf: []string{"x"}}},
		`--cpu-period "1": write`:                      {Resources: Resources{CPUPeriod: "1"}},
		`--cpu-quota "-2": write`:                      {Resources: Resources{CPUQuota: "-2"}},
		`--memory-swappiness "101": write`:             {Resources: Resources{MemorySwappiness: "101"}},
		"--oom-kill-disable: it needs --memory":        {Resources: Resources{OOMKillDisable: true}},
		`--blkio-weight "9": write`:                    {Resources: Resources{BlkioWeight: "9"}},
		`--blkio-weight-device "/dev/sda:x": write`:    {Resources: Resources{BlkioWeightDevice: []string{"/dev/sda:x"}}},
		`--device-read-bps "/dev/sda:": "":`:           {Resources: Resources{DeviceReadBps: []string{"/dev/sda:"}}},
		`--device-read-bps "/dev/x:1": /dev/x is not`:  {Resources: Resources{DeviceReadBps: []string{"/dev/x:1"}}},
		`--device-write-iops "/dev/sda:0": write`:      {Resources: Resources{DeviceWriteIOPS: []string{"/dev/sda:0"}}},
		`--device "sda": write HOST[:PATH][:rwm]`:      {Hardware: Hardware{Devices: []string{"sda"}}},
		`--device "/dev/sda:/x:y:z": write`:            {Hardware: Hardware{Devices: []string{"/dev/sda:/x:y:z"}}},
		`--device "/dev/sda:q": write`:                 {Hardware: Hardware{Devices: []string{"/dev/sda:q"}}},
		`--device "/dev/x": /dev/x is neither`:         {Hardware: Hardware{Devices: []string{"/dev/x"}}},
		`--device-cgroup-rule "c 1:3": write`:          {Hardware: Hardware{DeviceRules: []string{"c 1:3"}}},
		`--device-cgroup-rule "x 1:3 r": write`:        {Hardware: Hardware{DeviceRules: []string{"x 1:3 r"}}},
		`--device-cgroup-rule "c 1:-3 r": write`:       {Hardware: Hardware{DeviceRules: []string{"c 1:-3 r"}}},
		`--health-interval "1s2": write`:               {HealthOptions: HealthOptions{HealthInterval: "1s2"}},
		`--health-timeout "1ms": write`:                {HealthOptions: HealthOptions{HealthTimeout: "1ms"}},
		`--health-retries "0": write`:                  {HealthOptions: HealthOptions{HealthRetries: "0"}},
		`--health-on-failure "x": use`:                 {HealthOptions: HealthOptions{HealthOnFailure: "x"}},
		`--health-on-failure restart is not`:           {HealthOptions: HealthOptions{HealthOnFailure: "restart"}},
		`--health-cmd "[]": it begins`:                 {HealthOptions: HealthOptions{HealthCmd: ptr("[]")}},
		`--pid "container:x" is not supported`:         {Surroundings: Surroundings{PID: "container:x"}},
		"--init and --pid host contradict":             {Init: true, Surroundings: Surroundings{PID: "host"}},
		"--hostname and --uts host contradict":         {Hostname: "x", Surroundings: Surroundings{UTS: "host"}},
		"--shm-size and --ipc none contradict":         {ShmSize: "1m", Surroundings: Surroundings{IPC: "none"}},
		`"kernel.msgmax=1": with --ipc=host`:           {Sysctls: []string{"kernel.msgmax=1"}, Surroundings: Surroundings{IPC: "host"}},
		`--umask "0o7"`:                                {Surroundings: Surroundings{Umask: "0o7"}},
		`--umask "1000"`:                               {Surroundings: Surroundings{Umask: "1000"}},
		`--personality "PDP11"`:                        {Surroundings: Surroundings{Personality: "PDP11"}},
		`--env-merge "X": write`:                       {Surroundings: Surroundings{EnvMerge: []string{"X"}}},
		"--group-add keep-groups: it stands alone":     {GroupAdd: []string{"keep-groups", "7"}},
		`--net "slirp4netns": slirp4netns is not`:      {Net: []string{"slirp4netns"}},
		`--publish contradicts --net=host`:             {Net: []string{"host"}, Publish: []string{"80"}},
		`--cap-add "NOPE"`:                             {CapAdd: []string{"NOPE"}},
		"is both in --cap-add and in --cap-drop":       {CapAdd: []string{"KILL"}, CapDrop: []string{"KILL"}},
		`--ulimit "nofile=4:2": the soft`:              {Ulimits: []string{"nofile=4:2"}},
		`--ulimit "nofile=30000": the hard limit`:      {Ulimits: []string{"nofile=30000"}},
		`--ulimit "x=1"`:                               {Ulimits: []string{"x=1"}},
		`--memory "0"`:                                 {Memory: "0"},
		"--memory-swap 1g: it needs --memory":          {MemorySwap: "1g"},
		"--memory-swap 1m: it counts":                  {Memory: "2m", MemorySwap: "1m"},
		`--cpus "0"`:                                   {CPUs: "0"},
		`--cpus "NaN"`:                                 {CPUs: "NaN"},
		`--pids-limit "-2"`:                            {PidsLimit: "-2"},
		`--sysctl "kernel.core_pattern=|/x"`:           {Sysctls: []string{"kernel.core_pattern=|/x"}},
		`--sysctl "net.ipv4.ip_forward=1"`:             {Sysctls: []string{"net.ipv4.ip_forward=1"}, Net: []string{"host"}},
		`--volume "./:/x/../..": destination "/"`:      {Volumes: []string{"./:/x/../.."}},
		`--volume "/a:b": destination "b"`:             {Volumes: []string{"/a:b"}},
		`--volume "/a:/b:ro,rw": options`:              {Volumes: []string{"/a:/b:ro,rw"}},
		`--volume "/a:/b:nope": option "nope"`:         {Volumes: []string{"/a:/b:nope"}},
		`--volume "/c:/b": /b is mounted twice`:        {Volumes: []string{"/a:/b", "/c:/b"}},
		`--mount "type=glob,dst=/x": type "glob"`:      {Mounts: []string{"type=glob,dst=/x"}},
		`--mount "type=bind,dst=/x": it has no source`: {Mounts: []string{"type=bind,dst=/x"}},
		`--tmpfs "/x:size=0"`:                          {Tmpfs: []string{"/x:size=0"}},
		`--security-opt "nope"`:                        {SecurityOpt: []string{"nope"}},
		`working directory "rel"`:                      {Workdir: "rel"},
		`--hostname "a b"`:                             {Hostname: "a b"},
		`--oom-score-adj 1001`:                         {OOMScoreAdj: ptr(1001)},
		`--add-host "x"`:                               {AddHosts: []string{"x"}},
		`--dns "x"`:                                    {DNS: []string{"x"}},
		`--label "=x"`:                                 {Labels: []string{"=x"}},
		`--env "": write`:                              {Env: []string{""}},
		`--image-volume "x"`:                           {ImageVolume: "x"},
		`user "-1"`:                                    {User: "-1"},
		`user "0:99999999999"`:                         {User: "0:99999999999"},
		`user "a:b:c": write USER[:GROUP]`:             {User: "a:b:c"},
		`--group-add "+1"`:                             {GroupAdd: []string{"+1"}},
		`--entrypoint "[": it begins`:                  {Entrypoint: ptr("[")},
	} {
		in := input(o)
		_, err := Spec(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
		if _, early := Check(o, in.Host); fmt.Sprint(early) != fmt.Sprint(err) {
			t.Errorf("without the image: want %v, got %v", err, early)
		}
	}
}

// What only the image can tell, whom a name means and what to run, is not
// refused before it is known. What every image gets is known already.
func TestCheck(t *testing.T) {
	o := Options{User: "web:audio", GroupAdd: []string{"video"}, Volumes: []string{"/a:/b", "./c:/d", "/fresh"}, CapAdd: []string{"NET_RAW"}, SeccompProfile: "p.json"}
	in := input(o)
	early, err := Check(o, in.Host)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(early.Binds, r.Binds) || len(r.Binds) != 2 {
		t.Errorf("host paths: %q, then %q", early.Binds, r.Binds)
	}
	caps, then := early.Spec.Process.Capabilities.Bounding, r.Spec.Process.Capabilities.Bounding
	if early.Seccomp != r.Seccomp || !slices.Equal(caps, then) {
		t.Errorf("what decides the filter: %s %q, then %s %q", early.Seccomp, caps, r.Seccomp, then)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"1": 1, "1b": 1, "1k": 1024, "2KB": 2048, "1KiB": 1024, "64m": 64 << 20, "1.5g": 3 << 29, "1t": 1 << 40} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "k", "-1", "1x", "1kk", "inf", "nan", "1e3", "9999999t", "0x10", "1_0"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q was taken as %d", s, got)
		}
	}
}
