// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/undo"
	"github.com/gantryrun/gantry/netns/cni"
	netspec "github.com/gantryrun/gantry/netns/network"
	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/network"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage1"
	"github.com/gantryrun/gantry/stage1/launch"
)

// networks is what the package of networks needs of this installation.
func (e Env) networks() network.Env {
	pods := e.pods()
	n := network.Env{
		Config: e.ConfigPath, Dir: filepath.Join(e.RunDir, "networks"), Pods: pods.Dir(),
		State: filepath.Join(e.Dir, "networks"), Libexec: e.Libexec, Alive: pods.Active,
	}
	if e.RunDir != DefaultRunDir {
		n.Tag = e.RunDir
	}
	return n
}

// mayNetwork tells whether we may make interfaces and rules on this host.
func mayNetwork() bool {
	return haveCapability(unix.CAP_NET_ADMIN) && haveCapability(unix.CAP_SYS_ADMIN)
}

// checkNetworks finds the networks that are asked for, before anything is
// fetched.
func (e Env) checkNetworks(c netspec.Choice, ports []netspec.Port, fallback bool) error {
	if fallback {
		return nil
	}
	if e.Rootless && c.Kind == netspec.Named {
		return checkPasta(c, ports)
	}
	for _, j := range c.Joins {
		if _, err := e.networks().Find(j.Network); err != nil {
			return fmt.Errorf("--net: %w", err)
		}
	}
	return nil
}

// resolvers is the host's resolv.conf, or where that names only the resolver on
// the loopback of systemd, the one with the servers behind it.
func resolvers() []byte {
	text := readOptional("/etc/resolv.conf")
	servers, elsewhere := 0, 0
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			servers++
			if a, err := netip.ParseAddr(f[1]); err == nil && !a.IsLoopback() {
				elsewhere++
			}
		}
	}
	if servers > 0 && elsewhere == 0 {
		if real := readOptional("/run/systemd/resolve/resolv.conf"); real != nil {
			return real
		}
	}
	return text
}

// attach gives a launch the pod's networks. What they need is chosen here, what
// takes the kernel's time is done during the launch.
func (e Env) attach(r *ready, q *launch.Request, u *undo.Stack, notes func(string)) error {
	c := r.launch.Network
	switch c.Kind {
	case netspec.Named:
	case netspec.Pod, netspec.Path:
		return e.join(c, q, u)
	default:
		return nil
	}
	if e.Rootless {
		q.Network, q.NetworkHere = e.pasta(r.launch.Ports), true
		return nil
	}
	placed, err := e.networks().Place(network.Pod{
		UUID: r.pod.UUID, Dir: r.pod.Path(), Names: []string{r.manifest.Name, r.spec.Hostname},
		Joins: c.Joins, Ports: r.launch.Ports, DNS: asked(r.launch.Options),
	}, u)
	if err != nil {
		return err
	}
	q.Network = placed.Attach
	if r.launch.Fallback {
		q.Network = placed.AttachIfPossible(func(err error) {
			if notes != nil {
				notes(fmt.Sprintf("the pod has no network but its loopback: %v (--net=none says that this is meant)", err))
			}
		})
	}
	return nil
}

// asked is what a pod's options say of name servers, for plugins that declare
// the capability.
func asked(o bundle.Options) cni.DNS {
	return cni.DNS{Servers: o.DNS, Searches: o.DNSSearch, Options: o.DNSOption}
}

// networkName is what a pod is on, in a word.
func networkName(c netspec.Choice) string {
	switch c.Kind {
	case netspec.Host:
		return "host"
	case netspec.Pod:
		return "pod:" + c.Name
	case netspec.Path:
		return "ns:" + c.Name
	case netspec.Named:
		names := make([]string, len(c.Joins))
		for i, j := range c.Joins {
			names[i] = j.Network
		}
		return strings.Join(names, ",")
	}
	return "none"
}

// networked adds where a pod is on its networks.
func (r *Record) networked(p *pod.Pod) {
	n, err := network.ReadRecord(p.Path())
	if errors.Is(err, fs.ErrNotExist) {
		r.forwarded(p)
		return
	}
	if err != nil {
		r.Problem = err.Error()
		return
	}
	r.Networks, r.Ports = n.Attachments, n.Ports
}

// forwarded adds the ports that pasta carries to a pod: it keeps no record, the
// ports are those that were asked for.
func (r *Record) forwarded(p *pod.Pod) {
	if r.State != string(pod.Running) || r.Network != netspec.DefaultName && r.Network != pastaName {
		return
	}
	var l launchFile
	if err := readJSON(p, filepath.Join(stage1.AppsDir, appName, launchName), maxConfig, launchVersion, &l); err == nil {
		r.Ports = l.Ports
	}
}
