// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns/network"
	"github.com/gantryrun/gantry/netns/publish"
)

// Occupied is a port of the host that somebody has, and which pod of ours that
// is, if it is one.
type Occupied struct {
	*publish.Occupied
	UUID string
}

func (o *Occupied) Error() string {
	if o.UUID == "" {
		return o.Occupied.Error()
	}
	return fmt.Sprintf("%v, by pod %.8s", o.Occupied, o.UUID)
}

// Hint says what to do.
func (o *Occupied) Hint() string {
	switch {
	case o.UUID != "":
		return fmt.Sprintf("'gantry stop %.8s' frees it; or publish another port", o.UUID)
	case errors.Is(o.Err, unix.EADDRINUSE):
		return fmt.Sprintf("'ss -lnp sport = :%d' shows who has it; publish another port, or none before the ':' to have a free one chosen", o.Port.HostPort)
	case errors.Is(o.Err, unix.EADDRNOTAVAIL):
		return "the address is none of this host's: 'ip address' shows those there are"
	}
	return ""
}

// occupied looks for the port among those of running pods.
func (e Env) occupied(o *publish.Occupied) error {
	dirs, _ := filepath.Glob(filepath.Join(e.Pods, "run", "*"))
	for _, dir := range dirs {
		uuid := filepath.Base(dir)
		r, err := ReadRecord(dir)
		if err != nil || !e.Alive(uuid) {
			continue
		}
		for _, p := range r.Ports {
			for i := range p.Len() {
				if one := p.At(i); one.Protocol == o.Port.Protocol && one.HostPort == o.Port.HostPort && network.Meet(one.Host, o.Port.Host) {
					return &Occupied{o, uuid}
				}
			}
		}
	}
	return &Occupied{o, ""}
}

// internal is returned for a port of a pod that nobody outside can reach.
type internal struct{ network string }

func (i *internal) Error() string {
	return fmt.Sprintf("--publish: the network %s is internal: nothing comes in from outside", i.network)
}

// Hint says what to do.
func (i *internal) Hint() string {
	return "put the pod on another network too: --net " + i.network + ",default"
}
