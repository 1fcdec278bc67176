// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/internal/jsonin"
	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// appName is the name of the app of a pod that has one.
const appName = "app"

// Bounds of what is read back from a pod directory.
const (
	maxStatus = 64 << 10
	maxConfig = 8 << 20
)

func (e Env) pods() *pod.Pods { return pod.Open(e.Dir, e.RunDir) }

// record reads what list shows of one pod. Nothing in it takes a lock for
// longer than a question.
func record(p *pod.Pod) (Record, error) {
	state, err := p.State()
	if err != nil {
		return Record{}, err
	}
	r := Record{UUID: p.UUID, State: string(state)}
	m, err := p.Manifest()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if r.Created, err = p.Since(); err != nil {
			return Record{}, err
		}
		return r, nil // being made, or being deleted
	case err != nil:
		r.Problem = err.Error()
		return r, nil
	}
	r.describe(m)
	if ph := p.Phase(); ph == pod.Run || ph == pod.Exited {
		r.fill(p, state)
		r.networked(p)
	}
	return r, nil
}

// describe adds what the pod was made of.
func (r *Record) describe(m pod.Manifest) {
	r.Name, r.Created, r.Network, r.Labels, r.Volumes = m.Name, m.Created, m.Network, m.Labels, m.Volumes
	if len(m.Apps) > 0 {
		r.Image, r.Manifest, r.Command = m.Apps[0].Image, m.Apps[0].Manifest, m.Apps[0].Command
	}
}

// fill adds what the supervisor recorded.
func (r *Record) fill(p *pod.Pod, state pod.State) {
	st, err := readStatus(p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.Problem = err.Error()
	}
	if st.Started != 0 {
		r.Started = time.Unix(0, st.Started)
	}
	if state == pod.Running {
		r.PID = st.Pid
		if rt, err := readRuntime(p); err == nil {
			r.Supervisor = rt.Supervisor
		}
		if h, err := readHealth(p); err == nil {
			r.Health = h.Status
		}
		return
	}
	if state != pod.Ended && state != pod.Deleting {
		return
	}
	r.end(st)
	if st.Finished != 0 {
		return
	}
	if r.Exited, err = p.Since(); err != nil || p.Phase() == pod.Run {
		r.Exited = time.Time{} // nobody knows when
	}
}

// end adds how the app ended, as far as the supervisor could say.
func (r *Record) end(st stage1.Status) {
	r.Exit = &Exit{}
	if st.Finished != 0 {
		r.Exited = time.Unix(0, st.Finished)
	}
	if x := st.Exit; x != nil {
		*r.Exit = Exit{Known: true, Code: x.Code, OOM: x.OOM}
		if x.Signal != 0 {
			r.Exit.Signal = bundle.SignalName(x.Signal)
		}
	}
}

func exitText(x Exit) string {
	if !x.Known {
		return "killed" // with its supervisor, before it could say more
	}
	var notes []string
	if x.Signal != "" {
		notes = append(notes, x.Signal)
	}
	if x.OOM {
		notes = append(notes, "out of memory")
	}
	if len(notes) == 0 {
		return strconv.Itoa(x.Code)
	}
	return fmt.Sprintf("%d (%s)", x.Code, strings.Join(notes, ", "))
}

// readJSON reads one of a pod's own files. A format of a newer gantry is
// named, not guessed at.
//
//nolint:unparam // the versions of the formats are equal only today
func readJSON(p *pod.Pod, name string, limit int64, version int, v any) error {
	b, err := p.ReadFile(name, limit)
	if err != nil {
		return err
	}
	var head struct {
		Version int `json:"version"`
	}
	// The version comes first in every file of ours: most need no second look.
	if current := `{"version":` + strconv.Itoa(version) + `,`; !strings.HasPrefix(string(b[:min(len(b), len(current))]), current) {
		if err := jsonin.Unmarshal(b, &head); err != nil {
			return fmt.Errorf("read %s of pod %s: %w", name, pod.Short(p.UUID), err)
		}
	}
	if head.Version > version {
		return fmt.Errorf("read %s of pod %s: format %d: %w", name, pod.Short(p.UUID), head.Version, pod.ErrVersion)
	}
	if err := jsonin.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s of pod %s: %w", name, pod.Short(p.UUID), err)
	}
	return nil
}

func readStatus(p *pod.Pod) (stage1.Status, error) {
	var st stage1.Status
	err := readJSON(p, path.Join(stage1.AppsDir, appName, stage1.StatusFile), maxStatus, stage1.StatusVersion, &st)
	return st, err
}

func readRuntime(p *pod.Pod) (stage1.Runtime, error) {
	var rt stage1.Runtime
	err := readJSON(p, stage1.RuntimeFile, maxStatus, stage1.RuntimeVersion, &rt)
	return rt, err
}

func list(e Env, o ListOptions) ([]Record, error) {
	keep, err := selection(o.Filter, podQuestions())
	if err != nil {
		return nil, err
	}
	phases, anyState := []pod.Phase{pod.Run}, o.All || o.asksState()
	if anyState {
		phases = pod.Phases()
	}
	out := []Record{}
	swept := 0
	var mu sync.Mutex
	err = e.pods().ListAtOnce(func(p *pod.Pod) error {
		r, err := record(p)
		mu.Lock()
		defer mu.Unlock()
		if err == nil && r.State == string(pod.Ended) && p.Phase() == pod.Run && swept < glance {
			// Its supervisor was killed. The list is true either way, so
			// what stands in the way of tidying is not this command's.
			swept++
			_, _ = e.sweepCrashed(p)
		}
		if err == nil && (anyState || r.State == string(pod.Running)) && keep(r) {
			out = append(out, r)
		}
		return err
	}, phases...)
	slices.SortFunc(out, func(a, b Record) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.UUID, b.UUID)
	})
	return out, err
}

// asksState tells whether the states to be listed are named, which then are
// not those of running pods alone.
func (o ListOptions) asksState() bool {
	return slices.ContainsFunc(o.Filter, func(f string) bool {
		return strings.HasPrefix(f, "state=") || strings.HasPrefix(f, "status=")
	})
}

func podQuestions() map[string]question[Record] {
	state := exactly(func(r Record) string { return r.State }, pod.States()...)
	return map[string]question[Record]{
		"id":     {holds: func(r Record, value string) bool { return strings.HasPrefix(r.UUID, value) }},
		"name":   named(func(r Record) string { return r.Name }),
		"image":  named(func(r Record) string { return r.Image }),
		"volume": {holds: func(r Record, value string) bool { return slices.Contains(r.Volumes, value) }},
		"label":  labelled(func(r Record) map[string]string { return r.Labels }),
		"health": exactly(func(r Record) string { return r.Health }, HealthStarting, HealthHealthy, HealthUnhealthy),
		"state":  state,
		"status": state, // as podman calls it
	}
}

// find opens a pod; one whose supervisor was killed is put in order first, so
// that whoever asks about it meets the truth.
func (e Env) find(id string) (*pod.Pod, error) {
	p, err := e.pods().Find(id)
	if err != nil {
		return nil, err
	}
	if p.Phase() == pod.Run {
		if _, err := e.sweepCrashed(p); err != nil {
			_ = p.Close()
			return nil, err
		}
	}
	return p, nil
}

func status(e Env, id string) (Record, error) {
	p, err := e.find(id)
	if err != nil {
		return Record{}, err
	}
	defer p.Close()
	return record(p)
}

func wait(ctx context.Context, e Env, id string) (Record, error) {
	p, err := e.find(id)
	if err != nil {
		return Record{}, err
	}
	defer p.Close()
	m, _ := p.Manifest()
	last := lastStatus(p)
	if err := waitFree(ctx, p); err != nil {
		return Record{}, err
	}
	if _, err := e.sweepCrashed(p); err != nil && !errors.Is(err, pod.ErrNotFound) {
		return Record{}, err
	}
	r, err := record(p)
	removed := errors.Is(err, pod.ErrNotFound)
	if err != nil && !removed || r.Exit != nil && r.Exit.Known {
		return r, err
	}
	st, told := <-last
	if removed && (told || m.Remove) {
		r, err = Record{UUID: p.UUID, State: "removed"}, nil
		r.describe(m)
	}
	if told {
		r.Started = time.Unix(0, st.Started)
		r.end(st)
	}
	return r, err
}

// lastStatus is what the supervisor says when the app has ended: one status, or
// none when it was killed, has too many clients, or is not there yet. Of a pod
// that is removed, by its supervisor or by somebody who is faster than us, it is
// all there is to know.
func lastStatus(p *pod.Pod) <-chan stage1.Status {
	last := make(chan stage1.Status, 1)
	c, err := launch.Dial(p.File())
	if err != nil {
		close(last)
		return last
	}
	go func() {
		defer close(last)
		defer c.Close()
		if st, err := c.End(appName); err == nil {
			last <- st
		}
	}()
	return last
}

// waitFree blocks until nobody owns the pod, or ctx ends.
func waitFree(ctx context.Context, p *pod.Pod) error { return freed(p).wait(ctx) }

// end is told when nobody owns a pod any more. The goroutine behind it sleeps
// in the kernel until then.
type end chan error

func freed(p *pod.Pod) end {
	e := make(end, 1)
	go func() { e <- p.Wait() }()
	return e
}

func (e end) wait(ctx context.Context) error {
	select {
	case err := <-e:
		e <- err // for the next who asks
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func inspect(e Env, id string) (Inspection, error) {
	p, err := e.find(id)
	if err != nil {
		return Inspection{}, err
	}
	defer p.Close()
	r, err := record(p)
	if err != nil {
		return Inspection{}, err
	}
	in := Inspection{Record: r, Dir: p.Path()}
	dir := path.Join(stage1.AppsDir, appName)
	if b, err := p.ReadFile(path.Join(dir, stage1.ConfigFile), maxConfig); err == nil {
		in.Config = json.RawMessage(b)
	}
	var l launchFile
	if err := readJSON(p, path.Join(dir, launchName), maxConfig, launchVersion, &l); err == nil {
		in.Launch, in.Options, in.Mounts = &l.Launch, l.Options, l.Mounts
		in.Images = launches(l.Images)
	}
	if rt, err := readRuntime(p); err == nil {
		in.Cgroups = cgroups.Existing(rt.Cgroups)
	}
	if h, err := readHealth(p); err == nil {
		in.Probes = &h
	}
	if r.PID != 0 {
		in.Limits = processLimits(r.PID)
	}
	return in, nil
}
