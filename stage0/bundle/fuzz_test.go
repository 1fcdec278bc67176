// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"path"
	"strings"
	"testing"
)

// What the mount parsers accept has one clean absolute destination that is
// neither / nor below /proc.
func FuzzMounts(f *testing.F) {
	for _, s := range []string{"/a:/b", "/a:/b:ro,z", "./a:/b:rshared", "/fresh", "type=bind,src=/a,dst=/b,ro", `type=bind,"src=/a,b",dst=/c`, "type=tmpfs,dst=/x,tmpfs-size=1m", "type=image,src=a:1,dst=/b,subpath=../c", "type=volume,src=v,dst=/b,subpath=c", "v:/b:U,idmap=uids=0-1-2#3-4-5;gids=0-0-1", "type=devpts,dst=/p,uid=1", "/tmp:size=10%,mode=700", "/a:/proc", "/a:/../proc/x", ":::", "\x00:/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, o := range []Options{{Volumes: []string{s}}, {Mounts: []string{s}}, {Tmpfs: []string{s}}} {
			r, err := Spec(input(o))
			if err != nil {
				continue
			}
			for _, m := range r.Spec.Mounts {
				d := m.Destination
				if !path.IsAbs(d) || d != path.Clean(d) || d == "/" || strings.HasPrefix(d, "/proc/") || d == "/proc" && m.Type != "proc" {
					t.Fatalf("%q mounts on %q", s, d)
				}
				if m.Type == "bind" && !path.IsAbs(m.Source) && !strings.Contains(s, "image") {
					t.Fatalf("%q mounts %q", s, m.Source)
				}
			}
			for _, m := range r.Mounts {
				if m.Sub != "" && (path.IsAbs(m.Sub) || m.Sub != path.Clean(m.Sub) || m.Sub == ".." || strings.HasPrefix(m.Sub, "../")) {
					t.Fatalf("%q mounts what is at %q of it", s, m.Sub)
				}
				if m.Volume != "" && CheckVolumeName(m.Volume) != nil {
					t.Fatalf("%q mounts volume %q", s, m.Volume)
				}
			}
		}
	})
}

// Every entry of an environment is NAME=VALUE without a NUL, and an image
// cannot make one of the caller's.
func FuzzEnvironment(f *testing.F) {
	f.Add("A=1", "B", "# x\nC=1")
	f.Add("*", "LC_*", "SECRET\n")
	f.Add("A", "=x", "A B=1")
	f.Add("A=\x00", "A=\x00", "A=\x00\n")
	f.Fuzz(func(t *testing.T, image, flag, file string) {
		in := input(Options{})
		in.Image.Env = []string{image}
		if r, err := Spec(in); err == nil {
			for _, kv := range r.Spec.Process.Env {
				if strings.Contains(kv, "=host") && kv != image {
					t.Fatalf("%q took %q from the caller", image, kv)
				}
			}
		}
		in = input(Options{Env: []string{flag}})
		in.Host.EnvFiles = [][]byte{[]byte(file)}
		r, err := Spec(in)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, kv := range r.Spec.Process.Env {
			name, _, ok := strings.Cut(kv, "=")
			if !ok || name == "" || strings.ContainsRune(kv, 0) || seen[name] {
				t.Fatalf("%q and %q made %q", flag, file, kv)
			}
			seen[name] = true
		}
	})
}

func FuzzUlimit(f *testing.F) {
	for _, s := range []string{"nofile=1024:2048", "core=0", "nproc=-1", "stack=unlimited:unlimited", "nofile=2:1", "=1", "nofile=", "nofile=1:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := ParseUlimit(s); err == nil && (l.Soft > l.Hard || !strings.HasPrefix(l.Type, "RLIMIT_")) {
			t.Fatalf("%q became %+v", s, l)
		}
	})
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"64m", "1.5g", "-1", "1e9", "9223372036854775807", "0x1", "k"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil && n < 0 {
			t.Fatalf("%q became %d", s, n)
		}
	})
}

// Ids stay in range, the primary group comes first, and no group comes twice.
func FuzzUser(f *testing.F) {
	f.Add("web", "root:x:0:0::/root:\nweb:x:1000:1001::/home/web:\n", "audio:x:29:web\n")
	f.Add("1000:audio", "1000:x:0:0::/:\n", "audio:x:4294967296:web\n")
	f.Add(":", ":::::\n", ":::\n")
	f.Add("a:b:c", "a:x:-1:+1:::\n", "b:x:1\n")
	f.Fuzz(func(t *testing.T, user, passwd, group string) {
		u, err := ParseUser(user, []string{"7"}, ImageFiles{Passwd: []byte(passwd), Group: []byte(group)})
		if err != nil {
			return
		}
		if u.UID > maxID || len(u.Groups) == 0 || u.Groups[0] != u.GID || !strings.HasPrefix(u.Home, "/") || clean("", u.Home) != nil {
			t.Fatalf("%q became %+v", user, u)
		}
		seen := map[uint32]bool{}
		for _, g := range u.Groups {
			if g > maxID || seen[g] {
				t.Fatalf("%q has groups %v", user, u.Groups)
			}
			seen[g] = true
		}
	})
}

func FuzzSignal(f *testing.F) {
	for _, s := range []string{"TERM", "sigkill", "9", "RTMIN+3", "SIGRTMAX-1", "RTMIN+", "64", "-9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := SignalNumber(s)
		if err != nil {
			return
		}
		if back, err := SignalNumber(SignalName(n)); err != nil || back != n {
			t.Fatalf("%q is %d, %s, %d", s, n, SignalName(n), back)
		}
	})
}
