// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantryrun/gantry/netns/cni"
)

// Finding is one thing Check looked at.
type Finding struct {
	Network string `json:"network"`
	Pod     string `json:"pod,omitempty"` // its UUID; empty: the network itself
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"`
}

// Check looks whether networks can be joined, and whether the pods on them are
// still attached as they were: it asks the plugins of others, and looks for the
// bridge of a network that has one.
func (e Env) Check(ctx context.Context, all []Network) ([]Finding, error) {
	plugins, err := ReadPlugins(e.Config)
	if err != nil {
		return nil, err
	}
	pods, err := e.running()
	if err != nil {
		return nil, err
	}
	out := []Finding{}
	for _, n := range all {
		if n.List != nil {
			out = append(out, finding(n.Name, "", plugins.ready(ctx, e, *n.List)))
		}
		for _, dir := range pods {
			if found, err := e.attached(ctx, n, dir); found {
				out = append(out, finding(n.Name, filepath.Base(dir), err))
			}
		}
		if n.List == nil && !slices.ContainsFunc(out, func(f Finding) bool { return f.Network == n.Name }) {
			out = append(out, finding(n.Name, "", nil))
		}
	}
	return out, nil
}

func finding(network, pod string, err error) Finding {
	f := Finding{Network: network, Pod: pod, OK: err == nil}
	if err != nil {
		f.Problem = strings.TrimPrefix(err.Error(), "network "+network+": ")
	}
	return f
}

// running are the directories of the pods that run.
func (e Env) running() ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(e.Pods, "run", "*"))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(dirs, func(dir string) bool { return !e.Alive(filepath.Base(dir)) }), nil
}

// ready asks the plugins of a list for their versions and their status.
func (p Plugins) ready(ctx context.Context, e Env, l cni.List) error {
	on := cni.Attachment{Network: l.Name, List: l.Bytes, Path: p.Path, Cache: e.cache(), Timeout: p.Timeout}
	a, err := cni.Call(ctx, e.Libexec, cni.Request{Operation: cni.Version, On: on})
	if err != nil {
		return err
	}
	for _, plugin := range l.Types() {
		version := l.Version
		if version == "" {
			version = "0.1.0"
		}
		if know := a.Versions[plugin]; !slices.Contains(know, version) {
			return fmt.Errorf("plugin %s knows the versions %s, the list has cniVersion %s", plugin, strings.Join(know, " "), version)
		}
	}
	_, err = cni.Call(ctx, e.Libexec, cni.Request{Operation: cni.Status, On: on})
	return err
}

// attached says whether a pod is on the network, and what is wrong with that.
func (e Env) attached(ctx context.Context, n Network, dir string) (bool, error) {
	if n.Bridge != nil {
		r, err := ReadRecord(dir)
		on := err == nil && slices.ContainsFunc(r.Attachments, func(a Attachment) bool { return a.Network == n.Name })
		if !on {
			return false, nil
		}
		if _, err := net.InterfaceByName(n.Bridge.Bridge); err != nil {
			return true, fmt.Errorf("the bridge %s is gone", n.Bridge.Bridge)
		}
		return true, nil
	}
	record, err := cni.ReadRecord(dir)
	if err != nil {
		return false, nil //nolint:nilerr // it is on none, or has gone meanwhile
	}
	for _, on := range record {
		if on.Network == n.Name {
			_, err := cni.Call(ctx, e.Libexec, cni.Request{Operation: cni.Check, On: on})
			return true, err
		}
	}
	return false, nil
}
