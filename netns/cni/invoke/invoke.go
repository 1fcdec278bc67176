// SPDX-License-Identifier: Apache-2.0

package invoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns/cni"
)

// Do does what a request asks for.
func Do(ctx context.Context, q cni.Request) cni.Answer {
	if q.Version != cni.ProtocolVersion {
		return failure(&cni.PluginError{Kind: cni.Internal, Msg: fmt.Sprintf("gantry speaks version %d of its protocol and %s version %d: install both anew", q.Version, cni.Executable, cni.ProtocolVersion)})
	}
	c, err := open(q.On)
	if err != nil {
		return failure(err)
	}
	var a cni.Answer
	switch q.Operation {
	case cni.Add:
		a, err = c.add(ctx, q)
	case cni.Check:
		err = c.lib.CheckNetworkList(ctx, c.list, c.runtime(q.On.NetNS))
	case cni.Del:
		err = c.del(ctx, q.On.NetNS)
	case cni.Status:
		err = c.lib.GetStatusNetworkList(ctx, c.list)
	case cni.Version:
		a, err = c.versions(ctx)
	case cni.GC:
		err = c.gc(ctx, q.Pods)
	default:
		err = &cni.PluginError{Kind: cni.Unsound, Msg: fmt.Sprintf("operation %q is unknown", q.Operation)}
	}
	if err != nil {
		a.Error = c.explain(err)
	}
	return a
}

func failure(err error) cni.Answer {
	var p *cni.PluginError
	if !errors.As(err, &p) {
		p = &cni.PluginError{Kind: cni.Internal, Msg: err.Error()}
	}
	return cni.Answer{Error: p}
}

// call is one attachment in libcni's words.
type call struct {
	on   cni.Attachment
	exec *execution
	lib  *libcni.CNIConfig
	list *libcni.NetworkConfigList
}

func open(on cni.Attachment) (*call, error) {
	list, err := libcni.NetworkConfFromBytes(on.List)
	if err != nil {
		return nil, &cni.PluginError{Kind: cni.Unsound, Msg: err.Error()}
	}
	timeout := on.Timeout
	if timeout <= 0 {
		timeout = cni.DefaultTimeout
	}
	e := &execution{timeout: timeout}
	return &call{on: on, exec: e, lib: libcni.NewCNIConfigWithCacheDir(on.Path, on.Cache, e), list: list}, nil
}

func (c *call) runtime(netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: c.on.Pod, NetNS: netns, IfName: c.on.IfName, Args: c.on.Args,
		CapabilityArgs: arguments(c.on.Capabilities),
	}
}

// arguments are the capability arguments by name: libcni gives each plugin
// those it declares.
func arguments(c cni.Capabilities) map[string]any {
	m := map[string]any{}
	b, _ := json.Marshal(c) // strings and numbers
	_ = json.Unmarshal(b, &m)
	return m
}

// add attaches a pod. The first of a network asks the plugins whether they are
// ready. What a failed ADD left is the caller's to take back, by DEL.
func (c *call) add(ctx context.Context, q cni.Request) (cni.Answer, error) {
	unlock, err := c.lock(unix.LOCK_SH)
	if err != nil {
		return cni.Answer{}, err
	}
	defer unlock()
	if q.Record != "" { // DEL of this pod waits, when its launch was killed
		f, err := locked(q.Record, os.O_RDONLY, unix.LOCK_EX)
		if err != nil {
			return cni.Answer{}, err
		}
		defer f.Close()
	}
	if !c.inUse() {
		if err := c.lib.GetStatusNetworkList(ctx, c.list); err != nil {
			return cni.Answer{}, err
		}
	}
	if err := c.used(); err != nil {
		return cni.Answer{}, err
	}
	rt := c.runtime(q.On.NetNS)
	got, err := c.lib.AddNetworkList(ctx, c.list, rt)
	var result *cni.Result
	if err == nil {
		result, err = current(got)
	}
	if err == nil {
		return cni.Answer{Result: result}, nil
	}
	return cni.Answer{}, err
}

// current translates a result of whatever version to the newest.
func current(r types.Result) (*cni.Result, error) {
	if r == nil {
		return &cni.Result{}, nil
	}
	newest, err := r.GetAsVersion("1.1.0")
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(newest)
	if err != nil {
		return nil, err
	}
	out := &cni.Result{}
	if err := json.Unmarshal(b, out); err != nil {
		return nil, &cni.PluginError{Kind: cni.Garbage, Msg: "its result makes no sense", Details: err.Error()}
	}
	return out, nil
}

// del detaches. The specification has a plugin answer with success when there
// is nothing left to do, so the whole list may be asked again after a failure.
func (c *call) del(ctx context.Context, netns string) error {
	return c.lib.DelNetworkList(ctx, c.list, c.runtime(netns))
}

func (c *call) versions(ctx context.Context) (cni.Answer, error) {
	a := cni.Answer{Versions: map[string][]string{}}
	for _, p := range c.list.Plugins {
		info, err := c.lib.GetVersionInfo(ctx, p.Network.Type)
		if err != nil {
			return a, err
		}
		a.Versions[p.Network.Type] = info.SupportedVersions()
	}
	return a, nil
}

// gc takes back what no pod has any more: first, by the configuration it was
// attached with, what the cache knows of, then by the plugins' own records.
func (c *call) gc(ctx context.Context, pods string) error {
	unlock, err := c.lock(unix.LOCK_EX) // nobody attaches between the list and its use
	if err != nil {
		return err
	}
	defer unlock()
	recorded, err := cni.Recorded(pods)
	if err != nil {
		return err
	}
	live := map[types.GCAttachment]bool{}
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for _, a := range recorded {
		if a.Network != c.list.Name {
			continue
		}
		g := types.GCAttachment{ContainerID: a.Pod, IfName: a.IfName}
		live[g] = true
		args.ValidAttachments = append(args.ValidAttachments, g)
	}
	err = c.stale(ctx, live)
	if c.on.Shared {
		return err // others' attachments are in no list of ours
	}
	return errors.Join(err, c.lib.GCNetworkList(ctx, c.list, args))
}

// stale detaches what the cache says is attached and no pod has.
func (c *call) stale(ctx context.Context, live map[types.GCAttachment]bool) error {
	cached, err := c.lib.GetCachedAttachments("")
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range cached {
		if a.Network != c.list.Name || live[types.GCAttachment{ContainerID: a.ContainerID, IfName: a.IfName}] {
			continue
		}
		list, err := libcni.NetworkConfFromBytes(a.Config)
		if err == nil {
			err = c.lib.DelNetworkList(ctx, list, &libcni.RuntimeConf{
				ContainerID: a.ContainerID, IfName: a.IfName, Args: a.CniArgs, CapabilityArgs: a.CapabilityArgs,
			})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// inUse says whether a pod of ours is on the network.
func (c *call) inUse() bool {
	cached, err := c.lib.GetCachedAttachments("")
	if err != nil {
		return false
	}
	for _, a := range cached {
		if a.Network == c.list.Name {
			return true
		}
	}
	return false
}

// used leaves word for who collects that a pod was on the network.
func (c *call) used() error {
	dir := filepath.Join(c.on.Cache, "used")
	err := os.Mkdir(dir, 0o700)
	if err == nil || errors.Is(err, os.ErrExist) {
		err = os.WriteFile(filepath.Join(dir, c.list.Name), nil, 0o600)
	}
	return err
}

// lock keeps attaching and collecting apart.
func (c *call) lock(how int) (func(), error) {
	if err := os.MkdirAll(c.on.Cache, 0o700); err != nil {
		return nil, err
	}
	f, err := locked(filepath.Join(c.on.Cache, "lock"), os.O_RDWR|os.O_CREATE, how)
	if err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

func locked(name string, flag, how int) (*os.File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), how); err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
	}
}

// explain finds the plugin's own words in what libcni wrapped.
func (c *call) explain(err error) *cni.PluginError {
	var p *cni.PluginError
	if errors.As(err, &p) {
		return p
	}
	var t *types.Error
	if errors.As(err, &t) {
		return &cni.PluginError{Plugin: c.exec.last, Code: t.Code, Msg: t.Msg, Details: t.Details}
	}
	if errors.Is(err, libcni.ErrorCheckNotSupp) {
		return &cni.PluginError{Kind: cni.Unsound, Msg: err.Error()}
	}
	return &cni.PluginError{Plugin: c.exec.last, Kind: cni.Garbage, Msg: err.Error()}
}

// DelPod detaches a pod from everything its record says, last first, and then
// removes the record. What fails stays recorded, to be asked for again.
func DelPod(ctx context.Context, dir, netns string) error {
	f, err := locked(filepath.Join(dir, cni.RecordFile), os.O_RDONLY, unix.LOCK_EX)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	on, err := cni.ReadRecord(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil // somebody else was faster
	}
	if err != nil {
		return err
	}
	var errs []error
	for i := len(on) - 1; i >= 0; i-- {
		on[i].NetNS = netns
		a := Do(ctx, cni.Request{Version: cni.ProtocolVersion, Operation: cni.Del, On: on[i]})
		if a.Error != nil {
			a.Error.Network = on[i].Network
			errs = append(errs, a.Error)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
