// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/stage0/bundle"
)

// registerNetworks adds the flags of networks and published ports, in podman's
// spelling.
func registerNetworks(s *pflag.FlagSet, o *bundle.Options) {
	const usage = "`NETWORK` none, host, pod:POD, ns:PATH, or NAME[:ip=ADDRESS,mac=MAC,alias=NAME,interface=NAME], several separated by commas"
	s.StringArrayVar(&o.Net, "net", nil, usage+" (default: the network default)")
	s.AddFlag(&pflag.Flag{Name: "network", Usage: "same as --net", Value: s.Lookup("net").Value, DefValue: "[]"})
	s.StringVar(&o.IP, "ip", "", "have the IPv4 `ADDRESS` on the pod's network")
	s.StringVar(&o.IP6, "ip6", "", "have the IPv6 `ADDRESS` on the pod's network")
	s.StringVar(&o.MAC, "mac-address", "", "have the `MAC` on the pod's network")
	s.StringArrayVar(&o.Aliases, "network-alias", nil, "be found as `NAME` by the pods of the network, too")
	s.StringArrayVarP(&o.Publish, "publish", "p", nil, "lead a port of the host to the pod: `[[HOSTIP:][HOSTPORT]:]PORT[/PROTOCOL]`, ranges too; without HOSTPORT a free one is chosen")
	s.BoolVarP(&o.PublishAll, "publish-all", "P", false, "publish every port the image exposes on a free one of the host")
}
