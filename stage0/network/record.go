// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/gantryrun/gantry/internal/neighbours"
	"github.com/gantryrun/gantry/netns/bridge"
	"github.com/gantryrun/gantry/netns/cni"
	"github.com/gantryrun/gantry/netns/network"
)

// RecordFile is what a pod's directory has of its networks: written before any
// of it is made, and all that giving it back needs.
const RecordFile = "net.json"

// RecordVersion is the format written; older ones are read.
const RecordVersion = 1

// Record is the content of RecordFile.
type Record struct {
	Version     int            `json:"version"`
	Attachments []Attachment   `json:"attachments"`
	Ports       []network.Port `json:"ports,omitempty"`
}

// Attachment is a pod's place on one network.
type Attachment struct {
	Network   string         `json:"network"`
	Interface string         `json:"interface"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Gateways  []netip.Addr   `json:"gateways,omitempty"`
	MAC       string         `json:"mac,omitempty"`
	Names     []string       `json:"names,omitempty"`   // by which others on the network reach it
	Bridge    string         `json:"bridge,omitempty"`  // of the host
	Plugins   []string       `json:"plugins,omitempty"` // of a network others describe
}

// ReadRecord reads that of a pod's directory. fs.ErrNotExist means that the pod
// is on no network.
func ReadRecord(podDir string) (Record, error) {
	name := filepath.Join(podDir, RecordFile)
	b, err := os.ReadFile(name)
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("read %s: %w", name, err)
	}
	if r.Version > RecordVersion {
		return Record{}, fmt.Errorf("read %s: a newer gantry wrote it", name)
	}
	return r, nil
}

// Links are messages of rtnetlink that delete the host's ends of the interfaces
// a pod has on bridges, by its directory; none if it is on no network.
func Links(podDir, uuid string) ([]byte, error) {
	r, err := ReadRecord(podDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r.links(uuid), err
}

func (r Record) links(uuid string) []byte {
	var names []string
	for i, a := range r.Attachments {
		if a.Bridge != "" {
			names = append(names, hostEnd(uuid, i))
		}
	}
	return bridge.Unlink(names)
}

func (r Record) write(podDir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	name := filepath.Join(podDir, RecordFile)
	if err = os.WriteFile(name+".new", append(b, '\n'), 0o600); err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		return fmt.Errorf("record the pod's networks: %w", err)
	}
	return nil
}

// Release gives back what a pod had that ended without a supervisor. What the
// kernel held for it is gone already.
func (e Env) Release(podDir, uuid string) error {
	r, err := ReadRecord(podDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, a := range r.Attachments {
		err = errors.Join(err, e.leave(a, uuid))
	}
	if perr := Unplug(context.Background(), e.Libexec, podDir, nil); perr != nil {
		err = errors.Join(err, &Stuck{perr})
	}
	return err
}

// Stuck is returned when everything was given back but what plugins of others
// hold: they can be asked again, by the pod's record.
type Stuck struct{ Err error }

func (s *Stuck) Error() string { return s.Err.Error() }

// Hint says how it goes on.
func (s *Stuck) Hint() string {
	return "what the pod's plugins need is kept: mend it and try again, or 'gantry rm --force' forgets the pod, and what they hold"
}

// Forget gives up what plugins of others hold for a pod.
func Forget(podDir string) error { return os.Remove(filepath.Join(podDir, cni.RecordFile)) }

// leave takes a pod off a network.
func (e Env) leave(a Attachment, uuid string) error {
	var err error
	for _, p := range a.Addresses {
		if a.Bridge != "" {
			err = errors.Join(err, e.leases(a.Network).Free(p.Addr(), uuid))
		}
	}
	member := filepath.Join(e.members(a.Network), uuid)
	if rerr := os.Remove(member); rerr != nil {
		if !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return err
	}
	return errors.Join(err, e.sync(a.Network))
}

// sync tells the pods of a network of each other.
func (e Env) sync(name string) error {
	runs, err := os.Open(filepath.Join(e.Pods, "run"))
	if err != nil {
		return err
	}
	defer runs.Close()
	return neighbours.Sync(name, e.members(name), int(runs.Fd()))
}

// Collect gives back what pods left that ended without a supervisor, and
// deletes the bridges that nobody is on.
func (e Env) Collect() error {
	dirs, err := os.ReadDir(e.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var all error
	for _, d := range dirs {
		err := e.leases(d.Name()).Sweep()
		if err == nil {
			err = e.collectBridge(d.Name())
		}
		if err != nil {
			all = errors.Join(all, fmt.Errorf("network %s: %w", d.Name(), err))
		}
	}
	return all
}

// collectBridge deletes the bridge of a network that no pod has an address of.
// A pod has an address before it looks for its bridge, and makes it anew.
func (e Env) collectBridge(name string) error {
	_, err := e.leases(name).WhileFree(func() error {
		_, err := bridge.Remove(e.place(name))
		return err
	})
	return err
}
