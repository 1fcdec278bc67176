// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fakeResctrl is a directory that behaves like the file system: directories
// have their files from birth and lose them with themselves. What is written
// to a file replaces it: that is what the test sees of an order to the kernel.
func fakeResctrl(t *testing.T) *resctrl {
	t.Helper()
	r := &resctrl{root: t.TempDir()}
	fill := func(dir string) error {
		return errors.Join(
			os.MkdirAll(filepath.Join(dir, "mon_groups"), 0o755),
			os.WriteFile(filepath.Join(dir, "tasks"), nil, 0o644),
			os.WriteFile(filepath.Join(dir, "schemata"), []byte("    L3:0=00ff;1=00FF\n    MB:0= 100;1= 100\n"), 0o644))
	}
	if err := fill(r.root); err != nil {
		t.Fatal(err)
	}
	r.mkdir = func(dir string) error {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		return fill(dir)
	}
	return r
}

func (r *resctrl) has(name string) string {
	b, err := os.ReadFile(filepath.Join(r.root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "nothing"
	}
	return string(b)
}

// The rules of config-linux.md, IntelRdt, one after the other.
func TestClassesOfService(t *testing.T) {
	for name, c := range map[string]struct {
		rdt            specs.LinuxIntelRdt
		ready          string // class that somebody made before
		says           string
		joined, absent string
		kept           string // after the container is gone
	}{
		"without a closID the class is the container's own": {
			rdt: specs.LinuxIntelRdt{}, joined: "id/tasks",
		},
		"and may not be another's": {
			rdt: specs.LinuxIntelRdt{}, ready: "id", says: "id exists already, and is not this container's", kept: "id/tasks",
		},
		"a closID with schemata is made, and stays": {
			rdt: specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L2:0=f"}}, joined: "gold/tasks", kept: "gold/tasks",
		},
		"a closID that is there has to say the same": {
			rdt: specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f"}, ready: "gold", says: "gold has L3:0=ff, not f", kept: "gold/tasks",
		},
		"in whatever way it is written": {
			rdt: specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=ff;1=FF", MemBwSchema: "MB:1=100"}, ready: "gold", joined: "gold/tasks", kept: "gold/tasks",
		},
		"a closID alone has to be there": {
			rdt: specs.LinuxIntelRdt{ClosID: "gold"}, says: "linux.intelRdt.closID: there is no class", absent: "gold/tasks",
		},
		"the root is the default class": {
			rdt: specs.LinuxIntelRdt{ClosID: "/"}, joined: "tasks", kept: "tasks",
		},
		"monitoring has a group of its own, which goes": {
			rdt: specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true}, ready: "gold", joined: "gold/mon_groups/id/tasks", kept: "gold/tasks",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := fakeResctrl(t)
			if c.ready != "" {
				if err := r.mkdir(filepath.Join(r.root, c.ready)); err != nil {
					t.Fatal(err)
				}
			}
			place, err := r.plan(&c.rdt, "id")
			if err == nil {
				err = place.join(42)
			}
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, want %q", err, c.says)
			}
			if c.joined != "" && r.has(c.joined) != "42" {
				t.Errorf("%s has %q", c.joined, r.has(c.joined))
			}
			if c.absent != "" && r.has(c.absent) != "nothing" {
				t.Errorf("%s was made", c.absent)
			}
			if err == nil {
				for _, dir := range place.ours {
					if err := os.RemoveAll(dir); err != nil { // as rmdir(2) does there
						t.Error(err)
					}
				}
				if r.has("id/tasks")+r.has("gold/mon_groups/id/tasks") != "nothingnothing" {
					t.Error("what was the container's is left")
				}
			}
			if c.kept != "" && r.has(c.kept) == "nothing" {
				t.Errorf("%s is gone", c.kept)
			}
		})
	}
}

// What update changes is the class that the bundle means, and no other.
func TestSchemataOfTheClassAreChanged(t *testing.T) {
	for closID, name := range map[string]string{"": "id/schemata", "gold": "gold/schemata", "/": "schemata"} {
		r := fakeResctrl(t)
		for _, dir := range []string{"id", "gold"} {
			if err := r.mkdir(filepath.Join(r.root, dir)); err != nil {
				t.Fatal(err)
			}
		}
		own := class{on: r, dir: r.dir(&specs.LinuxIntelRdt{ClosID: closID}, "id"), schema: []string{"L3:0=1"}}
		if err := own.fill(); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"id/schemata", "gold/schemata", "schemata"} {
			if changed := strings.HasPrefix(r.has(file), "L3:0=1\n"); changed != (file == name) {
				t.Errorf("closID %q: %s changed: %v", closID, file, changed)
			}
		}
	}
}

// "The runtimes MUST write l3CacheSchema first and memBwSchema last", and
// schemata after both.
func TestSchemataAreWrittenInTheirOrder(t *testing.T) {
	r := fakeResctrl(t)
	place, err := r.plan(&specs.LinuxIntelRdt{Schemata: []string{"L2:0=1"}, MemBwSchema: "MB:0=10", L3CacheSchema: "L3:0=3"}, "id")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(place.schema, " "); got != "L3:0=3 MB:0=10 L2:0=1" {
		t.Errorf("written as %s", got)
	}
}
