// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/internal/undo"
	netspec "github.com/gantryrun/gantry/netns/network"
	"github.com/gantryrun/gantry/stage0/network"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// join puts a launch into a network namespace that is there: another pod's, or
// one somebody made. Which one a name means is known only now, so it is no part
// of the bundle that was sealed.
func (e Env) join(c netspec.Choice, q *launch.Request, u *undo.Stack) error {
	spec, linux := *q.Spec, *q.Spec.Linux
	spec.Linux = &linux
	ns, err := e.openNetwork(c, &spec, q, u)
	if err != nil {
		return fmt.Errorf("--net=%s: %w", networkName(c), err)
	}
	u.Push(func() { _ = ns.Close() })
	linux.Namespaces = slices.Clone(linux.Namespaces)
	for i, n := range linux.Namespaces {
		if n.Type == specs.NetworkNamespace {
			linux.Namespaces[i].Path = fmt.Sprintf("/proc/self/fd/%d", ns.Fd())
		}
	}
	q.Spec = &spec
	return nil
}

func (e Env) openNetwork(c netspec.Choice, spec *specs.Spec, q *launch.Request, u *undo.Stack) (*os.File, error) {
	if c.Kind == netspec.Path {
		return network.OpenPath(c.Name)
	}
	p, err := e.find(c.Name)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if e.Rootless {
		return nil, hint.With(
			errors.New("it takes the host's root: each pod of an ordinary user is in a user namespace of its own, which has no rights in another's"),
			"publish the ports that the other is to reach (-p), or run both as root",
		)
	}
	proc, err := running(p)
	if err != nil {
		if errors.Is(err, ErrNotRunning) {
			err = hint.With(err, "start it first: only a running pod has a network")
		}
		return nil, err
	}
	defer proc.close()
	if q.Lender, err = e.borrow(p, q.PodDir, u); err != nil {
		return nil, err
	}
	ns, err := network.OpenOf(proc.pid, func() bool { return unix.PidfdSendSignal(proc.pidfd, 0, nil, 0) == nil })
	if err != nil {
		return nil, err
	}
	if ours, err := network.Ours(ns); err != nil || ours {
		_ = ns.Close()
		if err == nil {
			err = hint.With(fmt.Errorf("pod %s is on the host's network", pod.Short(p.UUID)), "use --net=host")
		}
		return nil, err
	}
	share(p, spec, q.PodDir)
	return ns, nil
}

// lenderFile, in the directory of a pod, is the UUID of the one whose network it
// has joined.
const lenderFile = "lender"

// borrow tells a pod that another, whose directory is dir, lives in its network,
// and returns what is to be done when it ends: its addresses are given back
// then, and its rules go, while the namespace stays. nil: there is nothing to do.
func (e Env) borrow(p *pod.Pod, dir string, u *undo.Stack) (*launch.Lender, error) {
	owner, err := e.lenderOf(p)
	if owner == nil || err != nil {
		return nil, err
	}
	defer owner.Close()
	links, err := network.Links(owner.Path(), owner.UUID)
	if err != nil || len(links) == 0 {
		return nil, err
	}
	proc, err := running(owner)
	if err != nil {
		return nil, err
	}
	app := os.NewFile(uintptr(proc.pidfd), "pidfd")
	u.Push(func() { _ = app.Close() })
	err = os.WriteFile(filepath.Join(dir, lenderFile), []byte(owner.UUID), 0o600)
	if err == nil {
		err = os.WriteFile(filepath.Join(owner.Path(), stage1.JoinedFile), nil, 0o600)
	}
	// Whose app runs now looks for that file when it has ended.
	if err == nil {
		err = unix.PidfdSendSignal(proc.pidfd, 0, nil, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("join the network of pod %s: %w", pod.Short(owner.UUID), err)
	}
	return &launch.Lender{App: app, Links: links}, nil
}

// lenderOf is the pod whose network a pod has: itself, or one it has joined; nil
// if that has ended.
func (e Env) lenderOf(p *pod.Pod) (*pod.Pod, error) {
	uuid, err := p.ReadFile(lenderFile, 64)
	if errors.Is(err, fs.ErrNotExist) {
		uuid, err = []byte(p.UUID), nil
	}
	if err != nil {
		return nil, err
	}
	owner, err := e.find(string(uuid))
	if errors.Is(err, pod.ErrNotFound) {
		return nil, nil
	}
	if err == nil && owner.Phase() != pod.Run {
		return nil, owner.Close()
	}
	return owner, err
}

// share gives a pod, whose files are in dir, the names of the other whose
// network it has: the files that are kept up to date there.
func share(p *pod.Pod, spec *specs.Spec, dir string) {
	spec.Mounts = slices.Clone(spec.Mounts)
	for i, m := range spec.Mounts {
		for _, name := range []string{"hosts", "resolv.conf"} {
			if m.Source != filepath.Join(dir, name) {
				continue
			}
			if f, err := p.OpenFile(name); err == nil { // --no-hosts: it has none
				_ = f.Close()
				spec.Mounts[i].Source = filepath.Join(p.Path(), name)
			}
		}
	}
}
