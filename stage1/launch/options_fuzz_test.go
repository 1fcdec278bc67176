// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// FuzzMountOptions: options of a mount, one a line, are refused or taken; none
// is both set and cleared, and what is left for the file system is what was
// written.
func FuzzMountOptions(f *testing.F) {
	words := knownMountOptions()
	f.Add(strings.Join(words, "\n"))
	slices.Reverse(words)
	f.Add(strings.Join(words, "\n"))
	for _, seed := range []string{
		"rw\nro\nrro\nrrw", "noatime\nrelatime\nstrictatime\nrnoatime", "mode=1777\nsize=64m\nnosuid", "rbind\nslave\nrshared", "=x\n\n=\n\x00",
		"idmap\nridmap", "remount\nbind", "nodirsync\ndirsync\nnomand\nmand\nsilent\nloud",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, lines string) {
		options := strings.Split(lines, "\n")
		o, err := parseMountOptions(options)
		if err != nil {
			return
		}
		const attributes = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC |
			unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME | unix.MOUNT_ATTR_NOSYMFOLLOW
		for _, pair := range [][2]uint64{{o.attr.Set, o.attr.Clear}, {o.attr.SetBelow, o.attr.ClearBelow}} {
			if pair[0]&pair[1]&^unix.MOUNT_ATTR__ATIME != 0 {
				t.Errorf("%q: sets and clears %x", options, pair[0]&pair[1])
			}
			if (pair[0]|pair[1])&^attributes != 0 {
				t.Errorf("%q: changes %x, which is no attribute", options, pair[0]|pair[1])
			}
		}
		for _, d := range o.data {
			if !slices.Contains(options, d) {
				t.Errorf("%q: the file system gets %q", options, d)
			}
		}
		spec := minimal()
		for _, kind := range []string{"bind", "tmpfs", "proc", "cgroup"} {
			spec.Mounts = []specs.Mount{{Destination: "/x", Type: kind, Source: "/s", Options: options}}
			_, _ = Plan(spec, PlanOptions{Root: RootPlan{Dir: "/x"}})
		}
	})
}

// FuzzSignalName: a stop signal of an image or a flag is one or none.
func FuzzSignalName(f *testing.F) {
	for _, seed := range []string{"SIGTERM", "term", "15", "RTMIN+3", "SIGRTMIN+31", "RTMIN+-1", "RTMIN++1", "-15", "0x9", "9999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if n := signalNumber(name); n < 0 || n > maxSignal {
			t.Errorf("%q is read as signal %d", name, n)
		}
	})
}
