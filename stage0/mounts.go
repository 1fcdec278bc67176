// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/rootfs"
	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage0/volume"
	"github.com/gantryrun/gantry/stage1/launch"
)

func (e Env) volumes() volume.Dir { return volume.Open(e.volumesDir()) }

func (e Env) volumesDir() string { return filepath.Join(e.Dir, "volumes") }

// mountedImage is an image that an app mounts, as it was proven for that.
type mountedImage struct {
	Dest   string `json:"dest"`
	Launch Launch `json:"launch"`

	tree *Verified
}

// noSource is a path of the host that is to be mounted and is not there.
type noSource struct{ err error }

func (n *noSource) Error() string { return fmt.Sprintf("mount a path of the host: %v", n.err) }
func (n *noSource) Unwrap() error { return n.err }
func (n *noSource) Hint() string {
	var p *os.PathError
	if errors.As(n.err, &p) && errors.Is(n.err, os.ErrNotExist) {
		return fmt.Sprintf("gantry makes no directories of the host: 'mkdir -p %s' does, and a source without / at its beginning is a volume that is made", p.Path)
	}
	return ""
}

// checkBinds tells early what would otherwise end a launch half-way: a source
// that does not exist is not made.
func checkBinds(binds []string) error {
	for _, b := range binds {
		if _, err := os.Stat(b); err != nil {
			return &noSource{err}
		}
	}
	return nil
}

// sharedMounts are what the pods of --volumes-from mount.
func (e Env) sharedMounts(from []string) ([][]bundle.Shared, error) {
	var out [][]bundle.Shared
	for _, v := range from {
		id, _, _ := strings.Cut(v, ":")
		shared, err := e.sharedMountsOf(id)
		if err != nil {
			return nil, fmt.Errorf("--volumes-from %q: %w", v, err)
		}
		out = append(out, shared)
	}
	return out, nil
}

func (e Env) sharedMountsOf(id string) ([]bundle.Shared, error) {
	p, err := e.find(id)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	r, err := e.reread(p)
	if err != nil {
		return nil, err
	}
	var out []bundle.Shared
	for _, m := range r.launch.Mounts {
		at := slices.IndexFunc(r.spec.Mounts, func(s specs.Mount) bool { return s.Destination == m.Dest })
		if at >= 0 {
			out = append(out, bundle.Shared{Spec: r.spec.Mounts[at], Mount: m})
		}
	}
	return out, nil
}

// admitImages proves the images that are to be mounted, as the pod's own.
func (e Env) admitImages(ctx context.Context, mounts []bundle.Mount, o RunOptions) ([]mountedImage, error) {
	var out []mountedImage
	for _, m := range mounts {
		if m.Image == "" {
			continue
		}
		v, err := e.admitFetching(ctx, m.Image, o)
		if err != nil {
			return nil, fmt.Errorf("mount image at %s: %w", m.Dest, err)
		}
		out = append(out, mountedImage{Dest: m.Dest, Launch: v.Launch, tree: v})
	}
	return out, nil
}

// admitAgain proves what a prepared pod mounts: the manifests it was prepared
// with, whatever their references name today.
func (r *ready) admitAgain(ctx context.Context, e Env, warn func(string)) error {
	for i := range r.launch.Images {
		m := &r.launch.Images[i]
		v, err := Admit(ctx, e, m.Launch.Reference, AdmitOptions{
			Platform: m.Launch.Platform, Manifest: digest.Digest(m.Launch.Manifest), Insecure: r.launch.Insecure, Warn: warn,
		})
		if err != nil {
			return fmt.Errorf("mount image at %s: %w", m.Dest, err)
		}
		m.tree = v
	}
	return nil
}

// holdVolumes makes the volumes that are missing, fills those that are new, and
// keeps all of them from being removed until the pod's record names them.
func (e Env) holdVolumes(r *ready, mounts []bundle.Mount, u *undo.Stack) (names []string, err error) {
	first := map[string]bundle.Mount{}
	for _, m := range mounts {
		if m.Volume == "" {
			continue
		}
		if _, again := first[m.Volume]; !again {
			first[m.Volume] = m
			names = append(names, m.Volume)
		}
	}
	slices.Sort(names) // the same order for everybody: nobody waits for one who waits for him
	for _, name := range names {
		h, err := e.volumes().Hold(name)
		if err != nil {
			return nil, err
		}
		u.Push(h.Close)
		if err := r.fill(h, first[name]); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// fill gives a new volume what the image has at the place it is mounted.
func (r *ready) fill(h *volume.Held, m bundle.Mount) error {
	root, done, err := r.root.open()
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer done()
	user := r.spec.Process.User
	from, err := rootfs.Open(root, m.Dest, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil { // the image has nothing there that a directory could begin with
		return h.Fill(nil, user.UID, user.GID, m.NoFill || m.Sub != "")
	}
	defer from.Close()
	return h.Fill(from, user.UID, user.GID, m.NoFill || m.Sub != "")
}

func hostID(maps []specs.LinuxIDMapping, id uint32) uint32 {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID)
		}
	}
	return id
}

// given opens what the bundle cannot name by a path: the trees of images, and
// volumes of which a part is mounted. Files that are to change their owner do
// so now.
func (r *ready) given(ctx context.Context, e Env, u *undo.Stack) (map[string]launch.Given, error) {
	out := map[string]launch.Given{}
	for _, m := range r.launch.Mounts {
		var g launch.Given
		var err error
		switch {
		case m.Image != "":
			g, err = r.givenImage(ctx, e, m, u)
		case m.Volume != "":
			g, err = givenVolume(e.volumes().Mountpoint(m.Volume), m, u)
		}
		if err == nil && m.Chown {
			err = r.chown(e, m)
		}
		if err != nil {
			return nil, fmt.Errorf("mount at %s: %w", m.Dest, err)
		}
		if g.Mount != nil {
			out[m.Dest] = g
		}
	}
	return out, nil
}

func (r *ready) givenImage(ctx context.Context, e Env, m bundle.Mount, u *undo.Stack) (launch.Given, error) {
	at := slices.IndexFunc(r.launch.Images, func(i mountedImage) bool { return i.Dest == m.Dest })
	if at < 0 {
		return launch.Given{}, fmt.Errorf("image %s: %w", m.Image, ErrSeal)
	}
	root, err := e.mountTree(ctx, r.launch.Images[at].tree.Tree)
	if err != nil {
		return launch.Given{}, err
	}
	if root.mount == nil {
		root.mount, err = detachedClone(root.dir)
	}
	u.Push(root.close)
	return launch.Given{Mount: root.mount, Sub: m.Sub}, err
}

// givenVolume opens the volume itself where only a part of it is mounted: that
// part is looked up by gantry-init, below the volume (CVE-2017-1002101).
func givenVolume(dir string, m bundle.Mount, u *undo.Stack) (launch.Given, error) {
	if m.Sub == "" {
		return launch.Given{}, nil
	}
	f, err := detachedClone(dir)
	if err != nil {
		return launch.Given{}, err
	}
	u.Push(func() { _ = f.Close() })
	return launch.Given{Mount: f, Sub: m.Sub}, nil
}

// detachedClone is a mount of a directory of ours that is attached nowhere.
func detachedClone(dir string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// chown gives the files of a mount to the app's user, as option U asks: to the
// one of the host, unless the mount shows other owners than the disk has.
func (r *ready) chown(e Env, m bundle.Mount) error {
	at := slices.IndexFunc(r.spec.Mounts, func(s specs.Mount) bool { return s.Destination == m.Dest })
	if at < 0 {
		return nil
	}
	user := r.spec.Process.User
	if !slices.Contains(r.spec.Mounts[at].Options, "idmap") {
		user.UID, user.GID = hostID(r.spec.Linux.UIDMappings, user.UID), hostID(r.spec.Linux.GIDMappings, user.GID)
	}
	source := r.spec.Mounts[at].Source
	if m.Volume != "" {
		source = e.volumes().Mountpoint(m.Volume)
	}
	root, err := os.OpenFile(source, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	if m.Volume == "" {
		// Links may lead elsewhere: what is open is judged, and then given,
		// whatever becomes of the path.
		if source, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(root.Fd()))); err == nil {
			err = bundle.NotVital(source)
		}
		if err != nil {
			return err
		}
	}
	return volume.Chown(root, m.Sub, user.UID, user.GID)
}

// podImages are the images beside its own that a pod's record names.
func podImages(images []mountedImage) []pod.Image {
	var out []pod.Image
	for _, i := range images {
		out = append(out, pod.Image{Image: i.Launch.Reference, Manifest: i.Launch.Manifest, Platform: i.Launch.Platform})
	}
	return out
}

// launches are what was proven of images that are mounted.
func launches(images []mountedImage) []Launch {
	var out []Launch
	for _, i := range images {
		out = append(out, i.Launch)
	}
	return out
}

// below is what of each mount is attached, for a plan that nothing is opened
// for.
func below(mounts []bundle.Mount) map[string]string {
	out := map[string]string{}
	for _, m := range mounts {
		if m.Sub != "" {
			out[m.Dest] = m.Sub
		}
	}
	return out
}
