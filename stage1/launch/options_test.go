// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// seen is a mount as the app finds it in its mountinfo: its own options,
// its propagation, and the options of the file system.
type seen struct{ own, propagation, super string }

// mountsOf are the mounts of an app by their places.
func mountsOf(t *testing.T, mountinfo string) map[string]seen {
	t.Helper()
	all := map[string]seen{}
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(strings.TrimSpace(line), " - ")
		fields, super := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 6 || len(super) < 3 {
			t.Fatalf("mountinfo line %q", line)
		}
		all[fields[4]] = seen{fields[5], strings.Join(fields[6:], " "), super[2]}
	}
	return all
}

func has(options, word string) bool { return strings.Contains(","+options+",", ","+word+",") }

// Every word of the table in config.md, Linux mount options, does what it
// says; where it only takes back another, after that other.
func TestEachMountOptionOfTheSpecification(t *testing.T) {
	words := map[string]func(seen) bool{
		"ro": func(m seen) bool { return has(m.own, "ro") }, "ro,rw": func(m seen) bool { return has(m.own, "rw") },
		"nosuid": func(m seen) bool { return has(m.own, "nosuid") }, "nosuid,suid": func(m seen) bool { return !has(m.own, "nosuid") },
		"nodev": func(m seen) bool { return has(m.own, "nodev") }, "nodev,dev": func(m seen) bool { return !has(m.own, "nodev") },
		"noexec": func(m seen) bool { return has(m.own, "noexec") }, "noexec,exec": func(m seen) bool { return !has(m.own, "noexec") },
		"nodiratime":          func(m seen) bool { return has(m.own, "nodiratime") },
		"nodiratime,diratime": func(m seen) bool { return !has(m.own, "nodiratime") },
		"nosymfollow":         func(m seen) bool { return has(m.own, "nosymfollow") }, "nosymfollow,symfollow": func(m seen) bool { return !has(m.own, "nosymfollow") },
		"noatime": func(m seen) bool { return has(m.own, "noatime") }, "noatime,atime": func(m seen) bool { return has(m.own, "relatime") },
		"relatime":                  func(m seen) bool { return has(m.own, "relatime") },
		"strictatime":               func(m seen) bool { return !has(m.own, "relatime") && !has(m.own, "noatime") },
		"strictatime,nostrictatime": func(m seen) bool { return has(m.own, "relatime") }, "norelatime": func(m seen) bool { return has(m.own, "relatime") },
		"sync": func(m seen) bool { return has(m.super, "sync") }, "sync,async": func(m seen) bool { return !has(m.super, "sync") },
		"dirsync": func(m seen) bool { return has(m.super, "dirsync") }, "dirsync,nodirsync": func(m seen) bool { return !has(m.super, "dirsync") },
		"lazytime": func(m seen) bool { return has(m.super, "lazytime") }, "lazytime,nolazytime": func(m seen) bool { return !has(m.super, "lazytime") },
		"mand,nomand": func(m seen) bool { return !has(m.super, "mand") },
		"silent":      func(seen) bool { return true }, "loud": func(seen) bool { return true }, "defaults": func(seen) bool { return true },
		"iversion": func(seen) bool { return true }, "noiversion": func(seen) bool { return true },
		"shared": func(m seen) bool { return strings.HasPrefix(m.propagation, "shared:") }, "rshared": func(m seen) bool { return strings.HasPrefix(m.propagation, "shared:") },
		"private": func(m seen) bool { return m.propagation == "" }, "rprivate": func(m seen) bool { return m.propagation == "" },
		"slave": func(m seen) bool { return m.propagation == "" }, "rslave": func(m seen) bool { return m.propagation == "" }, // of nobody
		"unbindable": func(m seen) bool { return m.propagation == "unbindable" }, "runbindable": func(m seen) bool { return m.propagation == "unbindable" },
		"size=64k": func(m seen) bool { return has(m.super, "size=64k") }, // the file system's own
	}
	p := newPod(t, "cat", "/proc/self/mountinfo")
	place := func(words string) string { return "/tmp/" + strings.NewReplacer(",", "-", "=", "-").Replace(words) }
	for word := range words {
		p.request.Spec.Mounts = append(p.request.Spec.Mounts, specs.Mount{
			Destination: place(word), Type: "tmpfs", Source: "tmpfs", Options: strings.Split(word, ","),
		})
	}
	all := mountsOf(t, p.output())
	for word, right := range words {
		if m, ok := all[place(word)]; !ok || !right(m) {
			t.Errorf("%s: mounted %v, as %+v", word, ok, m)
		}
	}
}

// Those with an "r" are about all that a recursive bind brings, those without
// about its top alone.
func TestRecursiveMountOptions(t *testing.T) {
	set := []string{"ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow", "noatime"}
	p := newPod(t, "cat", "/proc/self/mountinfo")
	for _, word := range set {
		p.request.Spec.Mounts = append(p.request.Spec.Mounts,
			specs.Mount{Destination: "/tmp/all-" + word, Source: "/sys", Options: []string{"rbind", "r" + word}},
			specs.Mount{Destination: "/tmp/bound-" + word, Source: "/sys", Options: []string{"bind", word, "rslave"}})
	}
	p.request.Spec.Mounts = append(p.request.Spec.Mounts,
		specs.Mount{Destination: "/tmp/back", Source: "/sys", Options: []string{"rbind", "rrw", "rsuid", "rdev", "rexec", "rdiratime", "rsymfollow", "rrelatime"}})
	all := mountsOf(t, p.output())
	below := 0
	for place, m := range all {
		for _, word := range set {
			if (place == "/tmp/all-"+word || strings.HasPrefix(place, "/tmp/all-"+word+"/")) && !has(m.own, word) {
				t.Errorf("r%s: %s is %s", word, place, m.own)
			}
			if strings.HasPrefix(place, "/tmp/all-"+word+"/") {
				below++
			}
			if place == "/tmp/bound-"+word && !has(m.own, word) || strings.HasPrefix(place, "/tmp/bound-"+word+"/") {
				t.Errorf("%s: %s is %s", word, place, m.own)
			}
			if strings.HasPrefix(place, "/tmp/back") && has(m.own, word) {
				t.Errorf("opposite of r%s: %s is %s", word, place, m.own)
			}
		}
	}
	if below == 0 {
		t.Skip("ability missing: a mount below /sys to see recursion on")
	}
}

// A remount changes a mount that is there, and of one that is not bound the
// file system too.
func TestRemount(t *testing.T) {
	p := newPod(t, "cat", "/proc/self/mountinfo")
	p.request.Spec.Mounts = append(p.request.Spec.Mounts,
		specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k", "noexec"}},
		specs.Mount{Destination: "/tmp", Options: []string{"remount", "ro", "exec", "size=128k"}},
		specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/etc", Type: "bind", Options: []string{"remount", "bind", "nosuid", "size=128k"}})
	all := mountsOf(t, p.output())
	if m := all["/tmp"]; !has(m.own, "ro") || has(m.own, "noexec") || !has(m.super, "size=128k") {
		t.Errorf("/tmp is %+v", m)
	}
	if m := all["/etc"]; !has(m.own, "nosuid") || has(m.super, "size=128k") {
		t.Errorf("/etc is %+v", m)
	}
	p = newPod(t, "true")
	p.request.Spec.Mounts = append(p.request.Spec.Mounts, specs.Mount{Destination: "/etc", Options: []string{"remount", "ro"}})
	out, err := p.command().CombinedOutput()
	if err == nil || !strings.Contains(string(out), "remount /etc: there is no mount to change") {
		t.Errorf("a remount of what is no mount: %v, %q", err, out)
	}
}
