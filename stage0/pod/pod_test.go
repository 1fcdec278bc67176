// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func marshal(v any) ([]byte, error) { return json.Marshal(v) }

func store(t testing.TB) *Pods {
	dir := t.TempDir()
	return Open(filepath.Join(dir, "data"), filepath.Join(dir, "run"))
}

// dirs are the arguments another process opens the same pods with.
func dirs(s *Pods) []string { return []string{filepath.Dir(s.dir), filepath.Dir(s.names)} }

func create(t testing.TB, s *Pods, name string, to Phase) *Pod {
	t.Helper()
	p, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	if name != "" {
		if err := p.TakeName(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := enrol(p, name, to); err != nil {
		t.Fatal(err)
	}
	return p
}

func state(t testing.TB, s *Pods, uuid string) State {
	t.Helper()
	p, err := s.Find(uuid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	st, err := p.State()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// The whole life of a pod, and every step that the table does not have is
// refused.
func TestLifecycle(t *testing.T) {
	s := store(t)
	p := create(t, s, "", Prepare)
	for _, to := range []Phase{Prepared, Run, Exited, Garbage} {
		for _, wrong := range Phases() {
			if !legal(p.Phase(), wrong) {
				if err := p.Move(wrong); err == nil {
					t.Fatalf("moved from %s to %s", p.Phase(), wrong)
				}
			}
		}
		if err := p.MoveDurably(to); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Delete(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(p.UUID); !errors.Is(err, ErrNotFound) {
		t.Errorf("after deletion: %v", err)
	}
}

// Each state as another process reads it: first held, then let go.
func TestStates(t *testing.T) {
	for _, r := range Lifecycle()[1:] {
		t.Run(string(r.Phase), func(t *testing.T) {
			s := store(t)
			other := play(t, "create", append(dirs(s), string(r.Phase))...)
			uuid := other.line()
			want := r.Unlocked
			if lockMatters(r.Phase) {
				want = r.Locked
			}
			if got := state(t, s, uuid); got != want {
				t.Errorf("held: %s, want %s", got, want)
			}
			other.kill()
			if got := state(t, s, uuid); got != r.Unlocked {
				t.Errorf("owner killed: %s, want %s", got, r.Unlocked)
			}
		})
	}
}

// Two run-prepared of one pod: one wins, the other is told at once.
func TestRaceToRun(t *testing.T) {
	for range 20 {
		s := store(t)
		p := create(t, s, "", Prepared)
		_ = p.Close()
		a, b := play(t, "start", append(dirs(s), p.UUID)...), play(t, "start", append(dirs(s), p.UUID)...)
		a.line()
		b.line()
		a.say("go")
		b.say("go")
		x, y := a.line(), b.line()
		if (x == "ok") == (y == "ok") {
			t.Fatalf("one said %q, the other %q", x, y)
		}
		if loser := strings.TrimPrefix(x+y, "ok"); !strings.Contains(loser, ErrBusy.Error()) && !strings.Contains(loser, "not a legal transition") {
			t.Fatalf("the loser was told %q", loser)
		}
	}
}

// Of many takers of one name exactly one gets it.
func TestRaceForName(t *testing.T) {
	s := store(t)
	var all []*player
	for range 8 {
		p := play(t, "name", append(dirs(s), "web")...)
		p.line()
		all = append(all, p)
	}
	for _, p := range all {
		p.say("go")
	}
	got := 0
	for _, p := range all {
		if answer := p.line(); answer == "ok" {
			got++
		} else if !strings.Contains(answer, `the name "web" is in use by pod `) {
			t.Errorf("told %q", answer)
		}
	}
	if got != 1 {
		t.Errorf("%d pods have the name", got)
	}
}

// The same when the name is a stale one: a boot's first takers all find it.
func TestRaceForStaleName(t *testing.T) {
	for range 5 {
		s := store(t)
		old := create(t, s, "web", Exited)
		if err := old.Delete(); err != nil {
			t.Fatal(err)
		}
		var all []*player
		for range 6 {
			p := play(t, "name", append(dirs(s), "web")...)
			p.line()
			all = append(all, p)
		}
		for _, p := range all {
			p.say("go")
		}
		got := 0
		for _, p := range all {
			if p.line() == "ok" {
				got++
			}
		}
		if got != 1 {
			t.Fatalf("%d pods have the name", got)
		}
	}
}

func TestFind(t *testing.T) {
	s := store(t)
	p := create(t, s, "web", Exited)
	other := create(t, s, "", Run)
	for _, id := range []string{p.UUID, "web", p.UUID[:35]} {
		got, err := s.Find(id)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if got.UUID != p.UUID {
			t.Errorf("%s found %s", id, got.UUID)
		}
		_ = got.Close()
	}
	for _, id := range []string{"", "nope", "../" + p.UUID, strings.ToUpper(p.UUID[:8]) + "-", p.UUID + "0", "/", "..", "zz"} {
		if _, err := s.Find(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	var many *Ambiguous
	for other.UUID[0] != p.UUID[0] {
		other = create(t, s, "", Run)
	}
	if _, err := s.Find(p.UUID[:1]); !errors.As(err, &many) {
		t.Fatalf("an ambiguous prefix: %v", err)
	}
	if !strings.Contains(many.Error(), p.UUID) || !strings.Contains(many.Error(), other.UUID) {
		t.Errorf("it does not list the candidates: %v", many)
	}
}

// A reboot empties RunDir: pods that ran read as exited, keep their names on
// the list and are found by them, and a new pod can take one.
func TestAfterReboot(t *testing.T) {
	s := store(t)
	running := play(t, "create", append(dirs(s), string(Run))...)
	uuid := running.line()
	old := create(t, s, "web", Exited)
	running.kill()
	_ = old.Close()
	if err := os.RemoveAll(filepath.Dir(s.names)); err != nil {
		t.Fatal(err)
	}
	if got := state(t, s, uuid); got != Ended {
		t.Errorf("what ran is %s", got)
	}
	p, err := s.Find("web")
	if err != nil || p.UUID != old.UUID {
		t.Fatalf("by its name: %v", err)
	}
	fresh := create(t, s, "web", Run)
	if p, err = s.Find("web"); err != nil || p.UUID != fresh.UUID {
		t.Errorf("the name of this boot: %v", err)
	}
}

func TestNames(t *testing.T) {
	s := store(t)
	a, b := create(t, s, "web", Run), create(t, s, "", Run)
	var taken *Taken
	if err := b.TakeName("web"); !errors.As(err, &taken) || taken.UUID != a.UUID {
		t.Fatalf("a name that is in use: %v", err)
	}
	if err := b.FreeName("web"); err != nil {
		t.Fatal(err)
	}
	if err := b.TakeName("web"); err == nil {
		t.Fatal("a pod freed the name of another")
	}
	if err := a.FreeName("web"); err != nil {
		t.Fatal(err)
	}
	if err := b.TakeName("web"); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(); err != nil {
		t.Fatal(err)
	}
	if freed, err := s.SweepNames(); err != nil || fmt.Sprint(freed) != "[web]" {
		t.Errorf("sweep freed %v, %v", freed, err)
	}
	for _, name := range []string{"", ".", "..", "-x", "a/b", "a b", "ä", "a\x00", strings.Repeat("a", 129), a.UUID, "_x"} {
		if CheckName(name) == nil {
			t.Errorf("%q was taken for a name", name)
		}
	}
}

// gc meets an embryo between its mkdir and its lock: the creator makes another
// and nobody sees an error.
func TestEmbryoCollected(t *testing.T) {
	s := store(t)
	if err := s.mkdirs(); err != nil {
		t.Fatal(err)
	}
	uuid := NewUUID()
	if err := os.Mkdir(s.path(Embryo, uuid), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := s.Find(uuid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.TryLock(); err != nil {
		t.Fatal(err)
	}
	if err := p.Delete(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(); err != nil {
		t.Fatal(err)
	}
}

// A deletion that is cut short is garbage, and is finished later.
func TestDeleteContinues(t *testing.T) {
	s := store(t)
	p := create(t, s, "", Exited)
	if err := p.Mkdir("upper"); err != nil {
		t.Fatal(err)
	}
	if err := p.Move(Garbage); err != nil {
		t.Fatal(err)
	}
	_ = p.Close()
	again, err := s.Find(p.UUID)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.TryLock(); err != nil {
		t.Fatal(err)
	}
	if err := again.Delete(); err != nil {
		t.Fatal(err)
	}
}

// A link in a pod directory leads nowhere, and a FIFO does not hang a reader.
func TestReadFile(t *testing.T) {
	s := store(t)
	p := create(t, s, "", Run)
	if err := os.Symlink("/etc/passwd", filepath.Join(p.Path(), "link")); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(filepath.Join(p.Path(), "fifo")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "fifo", "../../../data", "/etc/passwd"} {
		if b, err := p.ReadFile(name, 1<<20); err == nil {
			t.Errorf("%s: read %q", name, b)
		}
	}
	if _, err := p.ReadFile(ManifestFile, 10); err == nil {
		t.Error("a file larger than its limit was read")
	}
}

func TestManifestOfNewerGantry(t *testing.T) {
	s := store(t)
	p := create(t, s, "", Run)
	if err := os.WriteFile(filepath.Join(p.Path(), ManifestFile), []byte(`{"version":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Manifest(); !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
}

// Wait sleeps in the kernel and wakes when the owner dies.
func TestWait(t *testing.T) {
	s := store(t)
	owner := play(t, "create", append(dirs(s), string(Run))...)
	p, err := s.Find(owner.line())
	if err != nil {
		t.Fatal(err)
	}
	woken := make(chan error, 1)
	go func() { woken <- p.Wait() }()
	select {
	case <-woken:
		t.Fatal("it woke while the pod ran")
	case <-time.After(20 * time.Millisecond):
	}
	owner.kill()
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
}

// A pod that travels while others look for it is never missed.
func TestFindMoving(t *testing.T) {
	s := store(t)
	if err := s.mkdirs(); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		p := create(t, s, "", Prepare)
		missed := make(chan error, 1)
		go func() {
			q, err := s.Find(p.UUID)
			if err == nil {
				err = q.Close()
			}
			missed <- err
		}()
		for _, to := range []Phase{Prepared, Run, Exited} {
			if err := p.Move(to); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-missed; err != nil {
			t.Fatal(err)
		}
		_ = p.Close()
	}
}

func TestUUID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		u := NewUUID()
		if !ValidUUID(u) || u[14] != '4' || !strings.ContainsRune("89ab", rune(u[19])) || seen[u] {
			t.Fatal(u)
		}
		seen[u] = true
	}
}

var update = flag.Bool("update", false, "rewrite the table of docs/pod-lifecycle.md")

func BenchmarkCreate(b *testing.B) {
	s := store(b)
	for b.Loop() {
		p, err := s.Create()
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Move(Run); err != nil {
			b.Fatal(err)
		}
		_ = p.Close()
	}
}

// Readers who hold the pod for an instant, any number of them, never make
// somebody who removes it believe that another has it.
func TestReadersDoNotMakeBusy(t *testing.T) {
	s := store(t)
	p := create(t, s, "", Run)
	_ = p.Close()
	stop := make(chan struct{})
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				select {
				case <-stop:
					return
				default:
					state(t, s, p.UUID)
				}
			}
		}()
	}
	for range 200 {
		q, err := s.Find(p.UUID)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.TryLock(); err != nil {
			t.Error(err)
		}
		_ = q.Close()
	}
	close(stop)
	for range 4 {
		<-done
	}
}

// Guards: of the first pods of a store, made at the same moment, one stayed
// behind as an embryo: it was made between the directory of embryos and the
// one it was to move to.
func TestFirstPodsLeaveNoEmbryo(t *testing.T) {
	s := store(t)
	if err := os.MkdirAll(filepath.Join(s.dir, string(Embryo)), 0o700); err != nil {
		t.Fatal(err)
	}
	create(t, s, "", Prepare)
	left, err := os.ReadDir(filepath.Join(s.dir, string(Embryo)))
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
