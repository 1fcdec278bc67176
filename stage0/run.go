// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/internal/jsonin"
	"github.com/gantryrun/gantry/internal/quiet"
	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// run is prepare and run-prepared in one process: what the first proved and
// wrote need not be read again by the second. Nothing is forced to disk:
// after a power cut the pod has ended whatever its files say.
func run(ctx context.Context, e Env, ref string, o RunOptions) error {
	if o.LogDriver == "" {
		o.LogDriver = stage1.LogPassthrough
	}
	e.glanceOver()
	var u undo.Stack
	defer u.Run()
	r, err := e.make(ctx, ref, o, &u, false)
	if err != nil {
		return err
	}
	return e.start(ctx, r, &u, LaunchOptions{PidFile: o.PidFile, Notes: o.Notes, Warn: o.Warn, Preserve: o.Preserve}, nil)
}

// start moves the pod to run and becomes its supervisor. It returns only when
// the app did not start; the caller's undo stack then deletes the pod.
func (e Env) start(ctx context.Context, r *ready, u *undo.Stack, o LaunchOptions, readyFunc func() error) error {
	given, err := r.given(ctx, e, u)
	if err != nil {
		return err
	}
	if err := r.pod.Move(pod.Run); err != nil {
		return err
	}
	req := e.request(r, o)
	if req.Probe, req.ProbeEvery, err = e.probeCommand(r); err != nil {
		return err
	}
	req.Given = given
	req.Ready = readyFunc
	if err := e.attach(r, &req, u, o.Notes); err != nil {
		return err
	}
	s, err := launch.Start(ctx, req)
	if err != nil {
		return err
	}
	if err := s.Supervise(); err != nil {
		return err // the app was killed again
	}
	u.Release()
	return nil
}

func (e Env) request(r *ready, o LaunchOptions) launch.Request {
	opts := r.launch.Options
	q := launch.Request{
		ID: r.pod.UUID, Spec: r.spec, Bundle: path.Join(r.pod.Path(), stage1.AppsDir, appName),
		Root:   launch.Root{Lower: r.root.mount, Dir: r.root.dir, Mapped: ownUsers(r.spec)},
		PodDir: r.pod.Path(), Lock: r.pod.File(), App: appName, Libexec: e.Libexec, RunDir: e.RunDir,
		Detached: o.detached(), Terminal: opts.TTY, Stdin: opts.Interactive,
		Log:        r.logOf(o.detached()),
		StopSignal: r.launch.StopSignal, StopTimeout: time.Duration(r.launch.StopTimeout) * time.Second,
		Remove: r.manifest.Remove, Init: opts.Init, PidFile: o.PidFile,
		CgroupStrict: r.launch.Strict, Notes: o.Notes, Preserve: o.Preserve,
		Timeout: time.Duration(opts.Timeout) * time.Second,
	}
	if !r.spec.Root.Readonly {
		q.Root.Upper, q.Root.Work = path.Join(r.pod.Path(), upperDir), path.Join(r.pod.Path(), workDir)
	}
	q.Userns = e.user
	q.Hooks = launch.StartHooks(r.spec, r.pod.UUID, q.Bundle)
	if opts.CgroupParent != "" {
		q.CgroupPath = path.Join(opts.CgroupParent, "gantry-"+r.pod.UUID)
	}
	if r.launch.IDs != "" {
		q.Unlink = append(q.Unlink, e.idLink(r.launch.IDs))
	}
	if r.manifest.Name != "" {
		q.NameLink = e.pods().Link(r.manifest.Name)
	}
	return q
}

// plan is the launch's ordered steps, for --dry-run.
func (e Env) plan(res *bundle.Result, root rootTree, o RunOptions) (stage1.Plan, error) {
	layout, err := launch.HostCgroups()
	if err != nil {
		return stage1.Plan{}, err
	}
	po := launch.PlanOptions{
		Cgroups: layout, Terminal: o.TTY, Init: o.Init, Preserve: o.Preserve, Userns: e.user, Below: below(res.Mounts),
		Root: launch.RootPlan{Tree: root.mount != nil, Dir: root.dir, Volatile: o.Remove, Mapped: ownUsers(res.Spec)},
	}
	if !o.ReadOnly {
		po.Root.Upper, po.Root.Work = upperDir, workDir
	}
	if hooks := launch.StartHooks(res.Spec, "POD", "."); hooks != nil {
		po.Container, po.Root.At = hooks.ID, hooks.Root
	}
	return launch.Plan(res.Spec, po)
}

func (o LaunchOptions) detached() bool { return o.Detach || o.ReadyFD != 0 }

func runPrepared(ctx context.Context, e Env, id string, o LaunchOptions) error {
	quiet.Runtime()
	var u undo.Stack
	defer u.Run()
	ready, err := reporter(o.ReadyFD)
	if err != nil {
		return err
	}
	if ready != nil {
		o.Notes, o.Warn = ready.note, ready.warn
	}
	if err = e.runPrepared(ctx, id, o, &u, ready); err != nil && ready != nil {
		u.Run() // all of it is taken back before anybody hears
		ready.fail(err)
	}
	return err
}

func (e Env) runPrepared(ctx context.Context, id string, o LaunchOptions, u *undo.Stack, report *readiness) error {
	p, err := e.own(id, o)
	if err != nil {
		return err
	}
	u.Push(func() { _ = p.Close() })
	if o.Detach {
		return e.detach(p, o)
	}
	r, err := e.reread(p)
	if err != nil {
		return err
	}
	if err := r.launch.Contents.untouched(p); err != nil {
		return err
	}
	v, err := Admit(ctx, e, r.manifest.Apps[0].Image, AdmitOptions{
		Platform: r.manifest.Apps[0].Platform, Manifest: digest.Digest(r.manifest.Apps[0].Manifest),
		Insecure: r.launch.Insecure, Warn: o.Warn,
	})
	if err != nil {
		return err
	}
	if v.Launch.Config != r.launch.Launch.Config {
		return fmt.Errorf("pod %s: its bundle was made from another configuration: %w", pod.Short(p.UUID), ErrSeal)
	}
	if err := r.admitAgain(ctx, e, o.Warn); err != nil {
		return err
	}
	if err := checkBinds(r.launch.Binds); err != nil {
		return err
	}
	if err := e.keepIDs(p, r.launch.IDs); err != nil {
		return err
	}
	if r.root, err = e.mountTree(ctx, v.Tree); err != nil {
		return err
	}
	u.Push(r.root.close)
	r.root.prefetch(r.spec.Process)
	// From here on it was started once: a pod that failed to is not started
	// again, since what it ran may have changed its files.
	u.Push(func() {
		if p.Phase() == pod.Run {
			_ = e.destroy(p)
		}
	})
	if report == nil {
		return e.start(ctx, r, u, o, nil)
	}
	return e.start(ctx, r, u, o, report.ready)
}

// own takes a prepared pod, or the one a detaching parent donated.
func (e Env) own(id string, o LaunchOptions) (*pod.Pod, error) {
	if o.LockFD != 0 {
		return e.pods().Adopt(id, os.NewFile(uintptr(o.LockFD), id))
	}
	p, err := e.pods().Find(id)
	if err != nil {
		return nil, err
	}
	err = p.TryLock()
	switch {
	case errors.Is(err, pod.ErrBusy):
		err = fmt.Errorf("start pod %s: %w", pod.Short(p.UUID), ErrBusy)
	case err == nil && p.Phase() != pod.Prepared:
		err = fmt.Errorf("start pod %s: it is in phase %s, not %s", pod.Short(p.UUID), p.Phase(), pod.Prepared)
	}
	if err != nil {
		_ = p.Close()
		return nil, err
	}
	return p, nil
}

// reread reads back what prepare wrote. The seal binds the manifest, and the
// manifest the bundle and the launch record: nothing that was altered since
// starts.
func (e Env) reread(p *pod.Pod) (*ready, error) {
	r := &ready{pod: p, spec: &specs.Spec{}}
	var err error
	if r.manifest, err = p.Manifest(); err != nil {
		return nil, err
	}
	key, err := e.hostKey()
	if err != nil {
		return nil, err
	}
	if err := checkSeal(key, r.manifest); err != nil {
		return nil, err
	}
	if len(r.manifest.Apps) != 1 {
		return nil, fmt.Errorf("pod %s has %d apps", pod.Short(p.UUID), len(r.manifest.Apps))
	}
	a, dir := r.manifest.Apps[0], path.Join(stage1.AppsDir, appName)
	for _, f := range []struct {
		name, digest string
		to           any
	}{{stage1.ConfigFile, a.Bundle, r.spec}, {launchName, a.Launch, &r.launch}} {
		b, err := readBound(p, path.Join(dir, f.name), f.digest, maxConfig)
		if err != nil {
			return nil, err
		}
		if err := jsonin.Unmarshal(b, f.to); err != nil {
			return nil, fmt.Errorf("read %s of pod %s: %w", f.name, pod.Short(p.UUID), err)
		}
	}
	if r.launch.Version > launchVersion {
		return nil, fmt.Errorf("read launch record of pod %s: %w", pod.Short(p.UUID), pod.ErrVersion)
	}
	return r, nil
}
