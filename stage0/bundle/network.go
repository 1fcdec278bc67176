// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/netns/network"
)

// network settles what the pod is on, and what it publishes.
func (b *builder) network() error {
	o := b.Options
	choice, err := network.ParseChoice(o.Net, network.Shorthand{IP: o.IP, IP6: o.IP6, MAC: o.MAC, Aliases: o.Aliases})
	if err != nil {
		return err
	}
	if choice.Kind == network.Default && (b.Host.Networks || len(o.Publish) > 0 || o.PublishAll) {
		b.r.Fallback = len(o.Publish) == 0 && !o.PublishAll
		choice = network.Choice{Kind: network.Named, Joins: []network.Join{{Network: network.DefaultName, Interface: "eth0"}}}
	}
	switch choice.Kind {
	case network.Default:
		choice.Kind = network.None
	case network.Host:
		b.host = true
	case network.Named:
		b.networked = true
	case network.Pod, network.Path:
		b.joined = true
	}
	if choice.Kind == network.Pod && len(o.DNS)+len(o.DNSSearch)+len(o.DNSOption)+len(o.AddHosts) > 0 {
		return fmt.Errorf("--dns, --dns-search, --dns-option and --add-host contradict --net=%s: names are the other pod's, too", o.Net[0])
	}
	b.r.Network = choice
	return b.ports(choice)
}

func (b *builder) ports(choice network.Choice) error {
	o := b.Options
	if len(o.Publish) == 0 && !o.PublishAll {
		return nil
	}
	if choice.Kind != network.Named {
		return hint.With(
			fmt.Errorf("--publish contradicts --net=%s: it publishes ports of a pod that is on a network of its own", o.Net[0]),
			"leave out --net for the default network; with --net=host the app's ports are the host's already",
		)
	}
	var exposed []string
	if o.PublishAll {
		exposed = slices.Sorted(maps.Keys(b.Image.ExposedPorts))
	}
	var err error
	if b.r.Ports, err = network.ParsePorts(o.Publish, exposed); err != nil {
		return err
	}
	if o.PublishAll && len(b.r.Ports) == 0 && !b.early {
		return errors.New("--publish-all: the image exposes no port: name them with --publish")
	}
	return nil
}
