// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/stage0/network"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
)

const (
	// embryoGrace is how long a creator may take from mkdir to lock. A
	// creator that is slower makes another pod.
	embryoGrace = time.Minute
	// DefaultExpirePrepared is how long a prepared pod waits to be run.
	DefaultExpirePrepared = 24 * time.Hour
	// glance bounds the sweep of commands that have something else to do.
	glance = 16
)

// sweepCrashed puts a pod in order whose supervisor was killed: what the
// kernel did not take back is removed, and the pod is recorded as exited, or
// deleted where that was asked for. It never waits: a pod somebody else works
// on is left to him. It says whether it did something.
func (e Env) sweepCrashed(p *pod.Pod) (bool, error) {
	if p.Phase() != pod.Run {
		return false, nil
	}
	// It is looked at before it is locked: who was woken by its end and finds
	// it moved must not stand in the way of who removes it.
	if state, err := p.State(); err != nil || state != pod.Ended || p.Phase() != pod.Run {
		return false, ignoreGone(err)
	}
	if err := p.TryLock(); err != nil {
		if errors.Is(err, pod.ErrBusy) {
			return false, nil // it runs, or another one sweeps it
		}
		return false, ignoreGone(err)
	}
	defer p.Unlock()
	if p.Phase() != pod.Run {
		return false, nil // its supervisor moved it after all
	}
	rt, err := e.release(p)
	var stuck *network.Stuck
	if errors.As(err, &stuck) {
		// A plugin that does not answer is asked again by who removes the pod, and
		// not by everybody who comes by.
		return true, p.Move(pod.Exited)
	}
	if err != nil {
		return false, err
	}
	e.freeIDs(p.UUID)
	m, err := p.Manifest()
	if rt.Remove || err == nil && m.Remove {
		return true, e.destroy(p)
	}
	return true, p.Move(pod.Exited)
}

// release takes back what the kernel does not: control groups with whatever
// still runs in them. They were recorded before anything ran.
func (e Env) release(p *pod.Pod) (stage1.Runtime, error) {
	rt, err := readRuntime(p)
	if errors.Is(err, pod.ErrVersion) {
		return rt, err // a newer gantry made more than this one could find
	}
	if err != nil {
		rt.Cgroups = nil // nothing was recorded, or a power cut took it: nothing is there
	}
	dirs := slices.DeleteFunc(slices.Clone(rt.Cgroups), func(d string) bool { return !ours(d, p.UUID) })
	if err := cgroups.KillAll(dirs); err != nil {
		return rt, fmt.Errorf("kill what is left of pod %s: %w", pod.Short(p.UUID), err)
	}
	if err := cgroups.RemoveAll(dirs); err != nil {
		return rt, fmt.Errorf("remove control groups of pod %s: %w", pod.Short(p.UUID), err)
	}
	if err := e.networks().Release(p.Path(), p.UUID); err != nil {
		return rt, fmt.Errorf("give back networks of pod %s: %w", pod.Short(p.UUID), err)
	}
	return rt, nil
}

// ours says whether a recorded control group can be this pod's: its name has
// the UUID in it. A file that says otherwise is not followed.
func ours(dir, uuid string) bool {
	return filepath.IsAbs(dir) && filepath.Clean(dir) == dir && strings.Contains(dir, uuid)
}

// destroy deletes an owned pod with its name. The name goes first: it must
// never point to nothing for longer than a moment, and a pod without its name
// is still found by its UUID.
func (e Env) destroy(p *pod.Pod) error {
	if p.Phase() == pod.Exited || p.Phase() == pod.Run {
		if _, err := e.release(p); err != nil {
			return err
		}
	}
	e.freeIDs(p.UUID)
	if m, err := p.Manifest(); err == nil && m.Name != "" {
		if err := p.FreeName(m.Name); err != nil {
			return err
		}
	}
	return p.Delete()
}

// glanceOver sweeps a bounded number of pods on the way of a command that is
// about something else.
func (e Env) glanceOver() {
	_ = e.pods().Some(glance, func(p *pod.Pod) error {
		_, _ = e.sweepOne(p)
		return nil
	}, pod.Prepare, pod.Run)
}

// sweepOne does what is due for one pod whatever its age: crashed and aborted
// ones. It returns what became of it: "marked", "removed" or "".
func (e Env) sweepOne(p *pod.Pod) (string, error) {
	switch p.Phase() {
	case pod.Run:
		done, err := e.sweepCrashed(p)
		if err != nil || !done {
			return "", err
		}
		if p.Phase() == pod.Exited {
			return "marked", nil
		}
		return "removed", nil
	case pod.Prepare, pod.Garbage:
		return e.destroyIf(p, p.Phase(), 0)
	}
	return "", nil
}

// destroyIf deletes a pod nobody owns that has stood in the phase for longer
// than age. Phase and age are looked at again under the lock.
func (e Env) destroyIf(p *pod.Pod, phase pod.Phase, age time.Duration) (string, error) {
	old := func() (bool, error) {
		since, err := p.Since()
		return err == nil && p.Phase() == phase && time.Since(since) >= age, err
	}
	if ok, err := old(); !ok {
		return "", ignoreGone(err)
	}
	if err := p.TryLock(); err != nil {
		if errors.Is(err, pod.ErrBusy) {
			return "", nil
		}
		return "", ignoreGone(err)
	}
	defer p.Unlock()
	if ok, err := old(); !ok {
		return "", err
	}
	if err := e.destroy(p); err != nil {
		return "", err
	}
	return "removed", nil
}

func gc(ctx context.Context, e Env, o GCOptions) (GCReport, error) {
	r := GCReport{Marked: []string{}, Removed: []string{}, Names: []string{}, Problems: []string{}}
	expire := o.ExpirePrepared
	if expire == 0 {
		expire = DefaultExpirePrepared
	}
	note := func(p *pod.Pod, what string, err error) {
		switch {
		case err != nil:
			r.Problems = append(r.Problems, fmt.Sprintf("pod %s: %v", pod.Short(p.UUID), err))
		case what == "marked":
			r.Marked = append(r.Marked, p.UUID)
		case what == "removed":
			r.Removed = append(r.Removed, p.UUID)
		}
	}
	err := e.pods().List(func(p *pod.Pod) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if p.Phase() == pod.Run {
			what, err := e.sweepOne(p)
			note(p, what, err)
		}
		if o.MarkOnly {
			return nil
		}
		what, err := e.collect(p, o.Grace, expire)
		note(p, what, err)
		return nil
	})
	if err != nil || o.MarkOnly {
		return r, err
	}
	if _, err := e.volumes().Sweep(); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	if err := e.networks().CollectPlugged(ctx); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	if err := e.networks().Collect(); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	r.Names, err = e.pods().SweepNames()
	if r.Names == nil {
		r.Names = []string{}
	}
	return r, err
}

// collect deletes a pod that is due. Its age is since it entered its phase.
func (e Env) collect(p *pod.Pod, grace, expire time.Duration) (string, error) {
	switch p.Phase() {
	case pod.Embryo:
		return e.destroyIf(p, pod.Embryo, embryoGrace)
	case pod.Prepare, pod.Garbage:
		return e.destroyIf(p, p.Phase(), 0)
	case pod.Prepared:
		return e.destroyIf(p, pod.Prepared, expire)
	case pod.Exited:
		return e.destroyIf(p, pod.Exited, grace)
	}
	return "", nil
}
