// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage0/podlog"
	"github.com/gantryrun/gantry/stage1"
)

func testEnv(t testing.TB) Env {
	dir := t.TempDir()
	return Env{Dir: filepath.Join(dir, "lib"), RunDir: filepath.Join(dir, "run"), Libexec: dir, ConfigPath: []string{filepath.Join(dir, "etc")}}
}

// ended makes a pod that ran and was recorded, without running anything.
func ended(t testing.TB, e Env, name string, x *stage1.Exit) *pod.Pod {
	t.Helper()
	var u undo.Stack
	r, err := e.newPod(context.Background(), RunOptions{Name: name}, &u)
	if err != nil {
		t.Fatal(err)
	}
	p := r.pod
	app := stage1.AppsDir + "/" + appName
	st := stage1.Status{Version: 1, Pid: 1, Started: time.Now().UnixNano(), Exit: x}
	if x != nil {
		st.Finished = st.Started + 1e9
	}
	m := pod.Manifest{
		Version: 1, UUID: p.UUID, Name: name, Created: time.Now().UTC(), Network: "none", Labels: map[string]string{"tier": "front"},
		Apps: []pod.App{{Name: appName, Image: "docker.io/library/busybox:latest", Manifest: "sha256:" + strings.Repeat("0", 64), Command: []string{"sleep", "1000"}}},
	}
	for _, d := range []string{stage1.AppsDir, app} {
		if err := p.Mkdir(d); err != nil {
			t.Fatal(err)
		}
	}
	for file, v := range map[string]any{pod.ManifestFile: m, app + "/" + stage1.StatusFile: st} {
		b, err := encode(v)
		if err == nil {
			err = p.WriteFile(file, b, 0o600, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []pod.Phase{pod.Run, pod.Exited} {
		if err := p.Move(to); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestListAndFilters(t *testing.T) {
	e := testEnv(t)
	if rs, err := List(e, ListOptions{All: true}); err != nil || rs == nil || len(rs) != 0 {
		t.Fatalf("before the first pod: %v, %v", rs, err)
	}
	a := ended(t, e, "web", &stage1.Exit{Code: 137, Signal: 9, OOM: true})
	b := ended(t, e, "", nil)
	for filter, want := range map[string]int{"": 2, "name=we": 1, "state=exited": 2, "state=running": 0, "label=tier": 2, "label=tier=front": 2, "label=tier=back": 0, "image=busybox": 2, "image=redis": 0} {
		o := ListOptions{All: true}
		if filter != "" {
			o.Filter = []string{filter}
		}
		rs, err := List(e, o)
		if err != nil || len(rs) != want {
			t.Errorf("%q: %d pods, %v; want %d", filter, len(rs), err, want)
		}
	}
	if rs, err := List(e, ListOptions{Filter: []string{"state=exited"}}); err != nil || len(rs) != 2 {
		t.Errorf("exited, without All: %d pods, %v", len(rs), err)
	}
	for _, filter := range []string{"x=y", "state=exitted"} {
		if _, err := List(e, ListOptions{Filter: []string{filter}}); err == nil {
			t.Errorf("%q was taken", filter)
		}
	}
	if r, err := Status(e, a.UUID); err != nil || r.Exit.Text() != "137 (SIGKILL, out of memory)" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := Status(e, b.UUID); err != nil || r.Exit.Text() != "killed" {
		t.Errorf("%+v, %v", r, err)
	}
	// One that cannot be read is listed with its problem, and hides no other.
	if err := os.WriteFile(filepath.Join(e.Dir, "pods", "exited", a.UUID, pod.ManifestFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	rs, err := List(e, ListOptions{All: true})
	if err != nil || len(rs) != 2 || rs[0].Problem+rs[1].Problem == "" {
		t.Errorf("%+v, %v", rs, err)
	}
}

// A pod that is being started would run after all.
func TestStopDoesNotPromiseWhatItCannotKeep(t *testing.T) {
	e := testEnv(t)
	var u undo.Stack
	defer u.Run()
	r, err := e.newPod(context.Background(), RunOptions{Name: "soon"}, &u)
	if err != nil {
		t.Fatal(err)
	}
	if err := Stop(context.Background(), e, "soon", StopOptions{}); !errors.Is(err, ErrBusy) {
		t.Errorf("while it is prepared: %v", err)
	}
	if err := r.pod.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Stop(context.Background(), e, "soon", StopOptions{}); err != nil {
		t.Errorf("when that was given up: %v", err)
	}
}

// What a newer gantry made is not deleted over the heads of its processes.
func TestGCLeavesWhatItCannotRead(t *testing.T) {
	e := testEnv(t)
	p := ended(t, e, "new", &stage1.Exit{})
	dir := filepath.Join(e.Dir, "pods", string(pod.Exited), p.UUID)
	if err := os.WriteFile(filepath.Join(dir, stage1.RuntimeFile), []byte(`{"version":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := GC(context.Background(), e, GCOptions{})
	if err != nil || len(r.Removed) != 0 || len(r.Problems) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}

func TestGC(t *testing.T) {
	e := testEnv(t)
	old := ended(t, e, "web", &stage1.Exit{})
	r, err := GC(context.Background(), e, GCOptions{Grace: time.Hour})
	if err != nil || len(r.Removed) != 0 {
		t.Fatalf("within the grace period: %+v, %v", r, err)
	}
	var u undo.Stack
	aborted, err := e.newPod(context.Background(), RunOptions{Name: "half"}, &u)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = GC(context.Background(), e, GCOptions{Grace: time.Hour}); err != nil || len(r.Removed) != 0 {
		t.Fatalf("a preparation that goes on: %+v, %v", r, err)
	}
	_ = aborted.pod.Close() // as kill -9 does
	if r, err = GC(context.Background(), e, GCOptions{Grace: time.Hour}); err != nil || fmt.Sprint(r.Removed, r.Names) != fmt.Sprintf("[%s] [half]", aborted.pod.UUID) {
		t.Errorf("an aborted preparation: %+v, %v", r, err)
	}
	if r, err = GC(context.Background(), e, GCOptions{MarkOnly: true}); err != nil || len(r.Removed) != 0 {
		t.Errorf("mark only: %+v, %v", r, err)
	}
	if r, err = GC(context.Background(), e, GCOptions{}); err != nil || fmt.Sprint(r.Removed) != "["+old.UUID+"]" {
		t.Errorf("no grace: %+v, %v", r, err)
	}
	if names, _ := filepath.Glob(filepath.Join(e.RunDir, "names", "*")); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

// What a pod's file says about control groups is followed only where it can
// be that pod's.
func TestOurs(t *testing.T) {
	const uuid = "6a0e1f0c-3b57-4d0e-9a54-0c1d2e3f4a5b"
	for dir, want := range map[string]bool{
		"/sys/fs/cgroup/gantry/gantry-" + uuid: true, "/sys/fs/cgroup": false, "/": false, "": false,
		"/sys/fs/cgroup/gantry-" + uuid + "/..": false, "gantry-" + uuid: false,
	} {
		if ours(dir, uuid) != want {
			t.Errorf("%q: %v", dir, !want)
		}
	}
}

func TestLogs(t *testing.T) {
	e := testEnv(t)
	p := ended(t, e, "", &stage1.Exit{})
	const log = "2026-11-22T10:00:00.000000000Z stdout F one\n" +
		"2026-11-22T10:00:01.000000000Z stdout P tw\n" +
		"2026-11-22T10:00:01.000000000Z stdout F o\n" +
		"2026-11-22T10:00:02.000000000Z stderr F three\n" +
		"2026-11-22T10:00:03.000000000Z stdout F \n" +
		"2026-11-22T10:00:04.000000000Z stdout F torn"
	for name, text := range map[string]string{stage1.LogFile: log, launchName: `{"version": 1, "logDriver": "file"}`} {
		if err := os.WriteFile(filepath.Join(e.Dir, "pods", "exited", p.UUID, stage1.AppsDir, appName, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		o         podlog.Options
		out, errs string
	}{
		{podlog.Options{Tail: -1}, "one\ntwo\n\n", "three\n"},
		{podlog.Options{Tail: -1, Follow: true}, "one\ntwo\n\n", "three\n"},
		{podlog.Options{Tail: 3}, "\n", "three\n"},
		{podlog.Options{Tail: 0}, "", ""},
		{podlog.Options{Tail: 99}, "one\ntwo\n\n", "three\n"},
		{podlog.Options{Tail: -1, Since: time.Date(2026, 11, 22, 10, 0, 2, 0, time.UTC)}, "\n", "three\n"},
		{podlog.Options{Tail: -1, Timestamps: true}, "2026-11-22T10:00:00.000000000Z one\n2026-11-22T10:00:01.000000000Z two\n2026-11-22T10:00:03.000000000Z \n", "2026-11-22T10:00:02.000000000Z three\n"},
	} {
		var out, errs bytes.Buffer
		if err := Logs(context.Background(), e, p.UUID, c.o, &out, &errs); err != nil || out.String() != c.out || errs.String() != c.errs {
			t.Errorf("%+v: %q, %q, %v", c.o, out.String(), errs.String(), err)
		}
	}
}

// A seal is about every field, and about nothing but a pod's manifest.
func TestSeal(t *testing.T) {
	key := bytes.Repeat([]byte{1}, 32)
	m := pod.Manifest{Version: 1, UUID: pod.NewUUID(), Apps: []pod.App{{Bundle: "sha256:a"}}}
	var err error
	if m.Seal, err = seal(key, m); err != nil {
		t.Fatal(err)
	}
	if err := checkSeal(key, m); err != nil {
		t.Error(err)
	}
	for _, alter := range []func(*pod.Manifest){
		func(m *pod.Manifest) { m.Name = "x" }, func(m *pod.Manifest) { m.UUID = pod.NewUUID() },
		func(m *pod.Manifest) { m.Apps = []pod.App{{Bundle: "sha256:b"}} }, func(m *pod.Manifest) { m.Remove = true }, func(m *pod.Manifest) { m.Seal = "" },
	} {
		n := m
		alter(&n)
		if checkSeal(key, n) == nil {
			t.Errorf("%+v passed", n)
		}
	}
	if checkSeal(bytes.Repeat([]byte{2}, 32), m) == nil {
		t.Error("another host's seal passed")
	}
}

func TestCheckNamesEverything(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Check(testEnv(t)) {
		if c.Name == "" || c.Have == "" || seen[c.Name] || c.State != yes && c.State != partly && c.State != no {
			t.Errorf("%+v", c)
		}
		seen[c.Name] = true
		if c.State == no && c.Means == "" && c.Mend == "" {
			t.Errorf("%s says neither what it means nor how to mend it", c.Name)
		}
	}
}

// The budget is 50 ms for 1,000 pods.
func BenchmarkList1000(b *testing.B) {
	e := testEnv(b)
	for i := range 1000 {
		ended(b, e, fmt.Sprintf("pod%d", i), &stage1.Exit{})
	}
	for b.Loop() {
		if rs, err := List(e, ListOptions{All: true}); err != nil || len(rs) != 1000 {
			b.Fatal(len(rs), err)
		}
	}
}

func BenchmarkGlance1000(b *testing.B) {
	e := testEnv(b)
	for i := range 1000 {
		ended(b, e, fmt.Sprintf("pod%d", i), &stage1.Exit{})
	}
	for b.Loop() {
		e.glanceOver()
	}
}
