// SPDX-License-Identifier: Apache-2.0

package neighbours

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const base = "127.0.0.1\tlocalhost\n::1\tlocalhost\n"

// world is a network's members and the pods that run.
type world struct {
	t             *testing.T
	members, runs string
	fd            int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, members: t.TempDir(), runs: t.TempDir()}
	fd, err := unix.Open(w.runs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	w.fd = fd
	return w
}

func (w *world) write(dir, name, text string) {
	w.t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// comes has a pod with a hosts file join.
func (w *world) comes(uuid, line string) {
	w.t.Helper()
	w.write(w.runs, uuid+"/hosts", base)
	w.write(w.members, uuid, line)
	w.sync()
}

func (w *world) goes(uuid string) {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.members, uuid)); err != nil {
		w.t.Fatal(err)
	}
	w.sync()
}

func (w *world) sync() {
	w.t.Helper()
	if err := Sync("back", w.members, w.fd); err != nil {
		w.t.Error(err)
	}
}

func (w *world) hosts(uuid string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.runs, uuid, "hosts"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func (w *world) has(uuid, want string) {
	w.t.Helper()
	if got := w.hosts(uuid); got != want {
		w.t.Errorf("hosts of %s:\n%swant\n%s", uuid, got, want)
	}
}

func part(lines ...string) string {
	return "# network back\n" + strings.Join(lines, "") + "# end of network back\n"
}

const db, web = "10.1.0.2\tdb\n", "10.1.0.3\tweb\n"

func TestPodsLearnWhoComesAndGoes(t *testing.T) {
	w := newWorld(t)
	w.comes("a", db)
	w.has("a", base+part(db))
	w.comes("b", web)
	w.has("a", base+part(db, web))
	w.has("b", base+part(web, db))
	w.goes("b")
	w.has("a", base+part(db))
}

// The file is mounted into the pod as this very inode: a new one would not be
// seen there.
func TestTheFileStaysTheSame(t *testing.T) {
	w := newWorld(t)
	w.comes("a", db)
	mounted, err := os.Open(filepath.Join(w.runs, "a", "hosts"))
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	w.comes("b", web)
	var seen bytes.Buffer
	if _, err := seen.ReadFrom(mounted); err != nil || seen.String() != base+part(db, web) {
		t.Errorf("the pod sees %q (%v)", seen.String(), err)
	}
}

func TestWhatThePodWroteStays(t *testing.T) {
	w := newWorld(t)
	w.comes("a", db)
	w.write(w.runs, "a/hosts", w.hosts("a")+"192.0.2.1 mine") // no newline at the end
	w.comes("b", web)
	w.has("a", base+part(db, web)+"192.0.2.1 mine")
	w.goes("b")
	w.has("a", base+part(db)+"192.0.2.1 mine")
}

// A pod that crashed is told of until it is swept; then it is forgotten by
// whoever comes next.
func TestAMemberWithoutAPodIsForgotten(t *testing.T) {
	w := newWorld(t)
	w.comes("a", db)
	w.comes("b", web)
	if err := os.RemoveAll(filepath.Join(w.runs, "b")); err != nil {
		t.Fatal(err)
	}
	w.sync()
	w.has("a", base+part(db))
	if _, err := os.Stat(filepath.Join(w.members, "b")); !os.IsNotExist(err) {
		t.Errorf("its member is still there: %v", err)
	}
}

// --no-hosts: others are told of the pod.
func TestAPodWithoutAHostsFileIsKnownToOthers(t *testing.T) {
	w := newWorld(t)
	w.comes("a", db)
	if err := os.Mkdir(filepath.Join(w.runs, "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.write(w.members, "b", web)
	w.sync()
	w.has("a", base+part(db, web))
}

// What the app can do to its own hosts file hurts nobody but itself: that file
// is left as it is, and nothing outside is written or read.
func TestHostsFilesOfHostilePods(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path, outside string) error{
		"a link":      func(_ *testing.T, path, outside string) error { return os.Symlink(outside, path) },
		"a pipe":      func(_ *testing.T, path, _ string) error { return unix.Mkfifo(path, 0o644) },
		"a directory": func(_ *testing.T, path, _ string) error { return os.Mkdir(path, 0o755) },
		"endless": func(_ *testing.T, path, _ string) error {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(path, 1<<40)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			outside := filepath.Join(t.TempDir(), "outside")
			if err := os.WriteFile(outside, []byte("theirs\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			w.comes("evil", "10.1.0.9\tevil\n")
			path := filepath.Join(w.runs, "evil", "hosts")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := spoil(t, path, outside); err != nil {
				t.Fatal(err)
			}
			w.comes("a", db)
			w.comes("b", web)
			if got := w.hosts("a"); !strings.Contains(got, db+web) && !strings.Contains(got, web) {
				t.Errorf("a does not know of b:\n%s", got)
			}
			if b, _ := os.ReadFile(outside); string(b) != "theirs\n" {
				t.Errorf("a file outside was written: %q", b)
			}
		})
	}
}

// A file of ours that cannot be read is an error, and everybody keeps the
// addresses they had: they lost that pod's.
func TestNoFileIsRewrittenWithoutWhatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	w.comes("a", db)
	w.comes("b", web)
	w.write(w.members, "b", strings.Repeat("x", MaxMember+1))
	if err := Sync("back", w.members, w.fd); err == nil || !strings.Contains(err.Error(), "read members of network back: b: ") {
		t.Errorf("%v", err)
	}
	w.has("a", base+part(db, web))
}

// A network may have more pods than this process may have open files.
func TestMorePodsThanDescriptors(t *testing.T) {
	w := newWorld(t)
	for i := range 64 {
		name := fmt.Sprintf("pod%02d", i)
		w.write(w.runs, name+"/hosts", base)
		w.write(w.members, name, "10.1.0.9\t"+name+"\n")
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	probe, err := os.Open(w.runs)
	if err != nil {
		t.Fatal(err)
	}
	free := uint64(probe.Fd())
	limit := func(n uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}); err != nil {
			t.Fatal(err)
		}
	}
	probe.Close()
	limit(free + 8)
	err = Sync("back", w.members, w.fd)
	// With the directory alone there is an error, and not a word less.
	limit(free + 1)
	none := Sync("back", w.members, w.fd)
	limit(old.Cur)
	if err != nil {
		t.Error(err)
	}
	if none == nil {
		t.Error("no error without descriptors")
	}
	for i := range 64 {
		if got := strings.Count(w.hosts(fmt.Sprintf("pod%02d", i)), "10.1.0.9"); got != 64 {
			t.Errorf("pod%02d knows of %d pods", i, got)
		}
	}
}

// Pods come and go at one time; in the end each that is there knows of all that
// are, and of no other.
func TestManyAtATime(t *testing.T) {
	w := newWorld(t)
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			w.comes(name, "10.1.0."+name+"\n")
			if i%2 == 0 {
				w.goes(name)
			}
		})
	}
	all.Wait()
	for i, name := range names {
		if i%2 == 0 {
			continue
		}
		got := w.hosts(name)
		for j, other := range names {
			if has := strings.Contains(got, "10.1.0."+other+"\n"); has != (j%2 == 1) {
				t.Errorf("%s knows of %s: %t\n%s", name, other, has, got)
			}
		}
	}
}

// Whatever a pod made of its file, marks of ours without their other half too:
// the lines are there, the text does not grow from one time to the next, and
// the third time changes nothing.
func FuzzReplace(f *testing.F) {
	f.Add([]byte(base), "back")
	f.Add([]byte(base+part(db)+"x"), "back")
	f.Add([]byte("# network back\n"), "back")
	f.Add([]byte("# end of network back\n# network back\n"), "back")
	f.Fuzz(func(t *testing.T, old []byte, network string) {
		if strings.Contains(network, "\n") {
			t.Skip()
		}
		before := bytes.Clone(old)
		w := newWriter(network, [][]byte{[]byte(db), []byte(web)})
		once := bytes.Clone(w.replace(old, 1))
		if !bytes.Equal(before, old) {
			t.Fatal("the old text was changed")
		}
		if !bytes.Contains(once, []byte("# network "+network+"\n"+web+db)) {
			t.Fatalf("%q", once)
		}
		twice := bytes.Clone(w.replace(once, 1))
		if len(twice) > len(once) {
			t.Fatalf("%q\n%q", once, twice)
		}
		if again := w.replace(twice, 1); !bytes.Equal(twice, again) {
			t.Fatalf("%q\n%q", twice, again)
		}
	})
}
