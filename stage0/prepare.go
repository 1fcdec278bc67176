// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/internal/jsonout"
	"github.com/gantryrun/gantry/internal/quiet"
	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/seccomp"
	"github.com/gantryrun/gantry/signature"
	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
)

// ready is a pod that can be launched: owned, its files written, its image
// proven and its root mounted, all in this process.
type ready struct {
	pod      *pod.Pod
	manifest pod.Manifest
	launch   launchFile
	spec     *specs.Spec
	root     rootTree
}

// rootTree is the image's read-only root: a detached mount, or a directory
// where EROFS cannot be mounted.
type rootTree struct {
	mount *os.File
	dir   string
}

// open returns a directory handle to read the image's own files by.
func (r rootTree) open() (*os.File, func(), error) {
	if r.mount != nil {
		return r.mount, func() {}, nil
	}
	f, err := os.Open(r.dir)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { _ = f.Close() }, nil
}

// close lets go of a mount that was not handed on.
func (r rootTree) close() {
	if r.mount != nil {
		_ = r.mount.Close()
	}
}

// mountTree mounts a verified tree. Pods of one image share its superblock,
// and with that its page cache.
func (e Env) mountTree(ctx context.Context, t tree.Tree) (rootTree, error) {
	trees, err := e.trees()
	if err != nil {
		return rootTree{}, err
	}
	defer trees.Close()
	m, err := trees.Mount(t)
	if err == nil {
		return rootTree{mount: m}, nil
	}
	if !errors.Is(err, tree.ErrNoErofs) {
		return rootTree{}, fmt.Errorf("mount root: %w", err)
	}
	dir, err := trees.Materialise(ctx, t)
	if err != nil {
		return rootTree{}, fmt.Errorf("make root: %w", err)
	}
	return rootTree{dir: dir}, nil
}

// make does everything of a launch up to the launch itself. The undo stack
// takes back all of it. With durable the pod's files survive a power cut.
func (e Env) make(ctx context.Context, ref string, o RunOptions, u *undo.Stack, durable bool) (*ready, error) {
	tell := hold(&o.Notes)
	asked, err := o.check(e)
	if err != nil {
		return nil, err
	}
	if err := e.checkNetworks(asked.network, asked.ports, asked.fallback); err != nil {
		return nil, err
	}
	r, err := e.newPod(ctx, o, u)
	if err != nil {
		return nil, err
	}
	v, err := e.admitFetching(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	quiet.Runtime()
	if r.root, err = e.mountTree(ctx, v.Tree); err != nil {
		return nil, err
	}
	u.Push(r.root.close)
	if r.root.dir != "" {
		v.Launch.Proof = ProofDirectory
		if !e.Rootless { // no ordinary user can
			o.Notes("this host cannot mount EROFS: the root of " + v.Launch.Reference + " is a plain directory, whose files are not checked again at launch")
		}
	}
	users, ids, err := e.users(o.Options, r.pod.UUID, u)
	if err != nil {
		return nil, err
	}
	res, err := e.bundle(v, r.root, asked, o, bundle.Pod{UUID: r.pod.UUID, Users: users})
	if err != nil {
		return nil, err
	}
	r.spec = res.Spec
	r.root.prefetch(r.spec.Process)
	r.launch = launchFile{
		Version: launchVersion, Launch: v.Launch, Options: o.Options,
		Insecure: o.Insecure, Platform: o.Platform, LogDriver: o.LogDriver, Log: o.log, Health: res.Health,
		StopSignal: res.StopSignal, StopTimeout: res.StopTimeout, Strict: res.Strict, Binds: res.Binds,
		Mounts: res.Mounts, Contents: contentsOf(res), IDs: ids,
		Network: res.Network, Fallback: res.Fallback, Ports: res.Ports,
	}
	if r.launch.Images, err = e.admitImages(ctx, res.Mounts, o); err != nil {
		return nil, err
	}
	var held undo.Stack
	defer held.Run()
	volumes, err := e.holdVolumes(r, res.Mounts, &held)
	if err != nil {
		return nil, err
	}
	if o.Replace {
		if err := e.takeName(ctx, r.pod, o, u); err != nil {
			return nil, err
		}
	}
	r.manifest = pod.Manifest{
		Version: pod.Version, UUID: r.pod.UUID, Name: o.Name, Created: time.Now().UTC(), Remove: o.Remove,
		Network: networkName(res.Network), Labels: res.Labels,
		Volumes: volumes, Images: podImages(r.launch.Images),
		Apps: []pod.App{{Name: appName, Image: v.Launch.Reference, Manifest: v.Launch.Manifest, Platform: v.Launch.Platform, Command: res.Spec.Process.Args}},
	}
	if err := e.write(r, res, durable); err != nil {
		return nil, err
	}
	tell()
	return r, nil
}

// hold keeps what is noted of defaults until tell: it is about pods, and would
// only stand in the way of a refusal.
func hold(notes *func(string)) (tell func()) {
	var held []string
	to := *notes
	*notes = func(text string) { held = append(held, text) }
	return func() {
		for _, text := range held {
			if to != nil {
				to(text)
			}
		}
	}
}

// newPod makes the pod directory and takes its name, so that whoever waits
// for either sees it before anything slow begins.
func (e Env) newPod(ctx context.Context, o RunOptions, u *undo.Stack) (*ready, error) {
	p, err := e.pods().Create()
	if err != nil {
		return nil, err
	}
	u.Push(func() { _ = p.Close() })
	u.Push(func() { _ = p.Delete() })
	if o.UUIDFile != "" {
		if err := replaceFile(o.UUIDFile, p.UUID+"\n"); err != nil {
			return nil, fmt.Errorf("write the pod's UUID: %w", err)
		}
	}
	if o.Replace {
		return &ready{pod: p}, nil // the old pod goes when the new one can start
	}
	return &ready{pod: p}, e.takeName(ctx, p, o, u)
}

// takeName takes the name asked for, if one is. A pod that lost its supervisor
// and was to be removed at its end, or one that --replace gives up, makes room
// first.
func (e Env) takeName(ctx context.Context, p *pod.Pod, o RunOptions, u *undo.Stack) error {
	if o.Name == "" {
		return nil
	}
	err := p.TakeName(o.Name)
	var taken *pod.Taken
	if errors.As(err, &taken) {
		err = e.makeRoom(ctx, p, taken, o)
	}
	if err == nil {
		u.Push(func() { _ = p.FreeName(o.Name) })
	}
	return err
}

// makeRoom takes a name that another pod has, where that may be.
func (e Env) makeRoom(ctx context.Context, p *pod.Pod, taken *pod.Taken, o RunOptions) error {
	old, err := e.find(taken.UUID) // sweeps it if it crashed
	if errors.Is(err, pod.ErrNotFound) {
		return p.TakeName(o.Name)
	}
	if err != nil {
		return taken
	}
	defer old.Close()
	if o.Replace {
		if err := e.removePod(ctx, old, RemoveOptions{Force: true}); err != nil {
			return fmt.Errorf("replace pod %s: %w", pod.Short(old.UUID), err)
		}
	}
	return p.TakeName(o.Name)
}

// replaceFile writes a small file for others by rename, so that they never
// read half of it.
func replaceFile(name, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.WriteString(text)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

// admitFetching admits the image, fetching it first as --pull says.
func (e Env) admitFetching(ctx context.Context, ref string, o RunOptions) (*Verified, error) {
	a := AdmitOptions{Platform: o.Platform, Insecure: o.Insecure, Warn: o.Warn}
	pull := o.Pull
	if pull == "" {
		pull = PullMissing
	}
	if pull == PullAlways || pull == PullNewer {
		if err := fetchImage(ctx, ref, pull, o.Fetch); err != nil {
			return nil, err
		}
		return Admit(ctx, e, ref, a)
	}
	v, err := Admit(ctx, e, ref, a)
	if pull == PullNever || !missing(err) {
		return v, err
	}
	if err := fetchImage(ctx, ref, pull, o.Fetch); err != nil {
		return nil, err
	}
	return Admit(ctx, e, ref, a)
}

// missing says whether fetching can help: the image, or the proof of it, is
// not here. A refusal is none of the network's business.
func missing(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, signature.ErrNoReceipt)
}

func fetchImage(ctx context.Context, ref string, pull Pull, fetch Fetcher) error {
	if fetch == nil {
		return &notHere{ref, errors.New("nothing here can fetch it")}
	}
	return fetch(ctx, ref, pull)
}

// bundle computes the app's bundle from the verified image.
func (e Env) bundle(v *Verified, root rootTree, asked *sound, o RunOptions, p bundle.Pod) (*bundle.Result, error) {
	dir, done, err := root.open()
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	defer done()
	files, err := imageFiles(dir)
	if err != nil {
		return nil, err
	}
	p.Dir, p.Rootfs = filepath.Join(e.pods().Dir(), string(pod.Run), p.UUID), "rootfs"
	res, err := bundle.Spec(bundle.Input{
		Image: v.Config, ImageHealth: imageHealth(v.Health), Options: o.Options, Files: files, Host: asked.host,
		Pod: p,
	})
	if err != nil {
		return nil, err
	}
	res.Spec.Linux.Seccomp = asked.seccomp
	return res, addHooks(res.Spec, o)
}

// profile loads the seccomp profile a bundle asks for.
func profile(res *bundle.Result) (*specs.LinuxSeccomp, error) {
	caps := res.Spec.Process.Capabilities.Bounding
	switch res.Seccomp {
	case "unconfined":
		return nil, nil
	case "default":
		return seccomp.Default(caps)
	}
	b, err := readHostFile(res.Seccomp)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	sp, err := seccomp.Load(b, caps)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile %s: %w", res.Seccomp, err)
	}
	return sp, nil
}

// write fills the pod directory. Nothing in it is seen before the pod moves,
// so each file is written once and in place.
func (e Env) write(r *ready, res *bundle.Result, durable bool) error {
	app := path.Join(stage1.AppsDir, appName)
	dirs := []string{stage1.AppsDir, app}
	if !r.spec.Root.Readonly {
		dirs = append(dirs, upperDir, workDir)
	}
	if len(res.Volumes) > 0 {
		dirs = append(dirs, "volumes")
	}
	if r.spec.Hooks != nil {
		dirs = append(dirs, path.Join(app, r.spec.Root.Path)) // where they look for it
	}
	for _, v := range res.Volumes {
		dirs = append(dirs, v.Dir)
	}
	for _, d := range dirs {
		if err := r.pod.Mkdir(d); err != nil {
			return err
		}
	}
	if err := r.dress(res); err != nil {
		return err
	}
	for name, data := range res.Files {
		if err := r.pod.WriteFile(name, data, 0o644, durable); err != nil {
			return err
		}
	}
	config, err := encode(r.spec)
	if err != nil {
		return err
	}
	launch, err := encode(r.launch)
	if err != nil {
		return err
	}
	a := &r.manifest.Apps[0]
	a.Bundle, a.Launch = digest.FromBytes(config).String(), digest.FromBytes(launch).String()
	key, err := e.hostKey()
	if err != nil {
		return err
	}
	if r.manifest.Seal, err = seal(key, r.manifest); err != nil {
		return err
	}
	manifest, err := encode(r.manifest)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		path.Join(app, stage1.ConfigFile): config, path.Join(app, launchName): launch, pod.ManifestFile: manifest,
	} {
		if err := r.pod.WriteFile(name, data, 0o600, durable); err != nil {
			return err
		}
	}
	if durable {
		return r.pod.SyncDirs(dirs...)
	}
	return nil
}

// dress makes the overlay's upper directory look like the image's root, which
// it covers, and lets the app's user into its volumes; those the image has
// content for are dressed by who fills them.
func (r *ready) dress(res *bundle.Result) error {
	if !r.spec.Root.Readonly {
		dir, done, err := r.root.open()
		if err != nil {
			return err
		}
		defer done()
		var st unix.Stat_t
		if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
			return fmt.Errorf("stat root: %w", err)
		}
		if err := r.pod.Dress(upperDir, st.Uid, st.Gid, st.Mode&0o7777); err != nil {
			return err
		}
	}
	for _, v := range res.Volumes {
		if err := r.pod.Dress(v.Dir, 0, 0, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Directories of the writable overlay, in the pod directory.
const (
	upperDir = "upper"
	workDir  = "work"
)

// encode writes JSON as our files hold it.
func encode(v any) ([]byte, error) {
	b, err := jsonout.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return append(b, '\n'), nil
}

func prepare(ctx context.Context, e Env, ref string, o RunOptions) (string, error) {
	var u undo.Stack
	defer u.Run()
	r, err := e.make(ctx, ref, o, &u, true)
	if err != nil {
		return "", err
	}
	if err := r.pod.MoveDurably(pod.Prepared); err != nil {
		return "", err
	}
	u.Release()
	r.root.close()
	return r.pod.UUID, r.pod.Close()
}

func dryRun(ctx context.Context, e Env, ref string, o RunOptions) (DryRun, error) {
	tell := hold(&o.Notes)
	asked, err := o.check(e)
	if err != nil {
		return DryRun{}, err
	}
	v, err := e.admitFetching(ctx, ref, o)
	if err != nil {
		return DryRun{}, err
	}
	root, err := e.mountTree(ctx, v.Tree)
	if err != nil {
		return DryRun{}, err
	}
	defer root.close()
	users, _, err := e.users(o.Options, "", nil)
	if err != nil {
		return DryRun{}, err
	}
	res, err := e.bundle(v, root, asked, o, bundle.Pod{UUID: pod.NewUUID(), Users: users})
	if err != nil {
		return DryRun{}, err
	}
	images, err := e.admitImages(ctx, res.Mounts, o)
	if err != nil {
		return DryRun{}, err
	}
	plan, err := e.plan(res, root, o)
	if err != nil {
		return DryRun{}, err
	}
	tell()
	return DryRun{Image: v.Launch, Images: launches(images), Config: res.Spec, Plan: plan}, nil
}
