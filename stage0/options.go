// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	netspec "github.com/gantryrun/gantry/netns/network"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/hooks"
	"github.com/gantryrun/gantry/stage0/pod"
	"github.com/gantryrun/gantry/stage0/podlog"
)

// sound is what was read to find a launch's options in order. It is read once
// and kept for the bundle: a file that the user named may be a pipe.
type sound struct {
	host    bundle.Host
	seccomp *specs.LinuxSeccomp

	network  netspec.Choice
	fallback bool
	ports    []netspec.Port
}

// check refuses, before anything is fetched, what no image can make right.
func (o *RunOptions) check(e Env) (*sound, error) {
	if o.Name != "" {
		if err := pod.CheckName(o.Name); err != nil {
			return nil, fmt.Errorf("--name: %w", err)
		}
	} else if o.Replace {
		return nil, errors.New("--replace: give the name of the pod to be replaced: --name NAME")
	}
	if _, err := platformOf(o.Platform); err != nil {
		return nil, err
	}
	log, err := podlog.Parse(o.LogDriver, o.LogOpts)
	if err != nil {
		return nil, err
	}
	o.LogDriver, o.log = log.Driver, log
	if o.PidFile != "" {
		if _, err := os.Stat(filepath.Dir(o.PidFile)); err != nil {
			return nil, fmt.Errorf("--pidfile: %w", err)
		}
	}
	if err := o.checkPreserve(); err != nil {
		return nil, err
	}
	if _, err := hooks.Load(o.HooksDirs); err != nil {
		return nil, fmt.Errorf("--hooks-dir: %w", err)
	}
	host, err := hostFacts(o.Options, o.Notes)
	if err != nil {
		return nil, err
	}
	host.Volumes = e.volumesDir()
	if host.From, err = e.sharedMounts(o.VolumesFrom); err != nil {
		return nil, err
	}
	able, masked := host.Networks, e.networks().Masked()
	host.Networks = able && !masked
	if e.user != nil {
		_, err := findPasta()
		host.Networks = err == nil
		if err != nil && len(o.Net)+len(o.Publish) == 0 && !o.PublishAll {
			o.Notes(fmt.Sprintf("the pod has no network but its loopback: %v (--net=none says that this is meant)", err))
		}
		host.Own = &bundle.Users{UIDs: e.user.UIDs, GIDs: e.user.GIDs}
		host.CanRaise = false // what we have of CAP_SYS_RESOURCE is the user namespace's
	}
	res, err := bundle.Check(o.Options, host)
	if err != nil {
		return nil, err
	}
	if err := checkBinds(res.Binds); err != nil {
		return nil, err
	}
	if err := checkPropagation(res.Spec.Mounts); err != nil {
		return nil, err
	}
	if len(o.Net) == 0 && res.Network.Kind == netspec.None && !able && !masked {
		o.Notes("the pod has no network but its loopback: networks need CAP_NET_ADMIN and CAP_SYS_ADMIN here (--net=none says that this is meant)")
	}
	s := &sound{host: host, network: res.Network, fallback: res.Fallback, ports: res.Ports}
	s.seccomp, err = profile(res) // by the bounding set, which no image changes
	return s, err
}
