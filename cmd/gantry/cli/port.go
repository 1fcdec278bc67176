// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantryrun/gantry/netns/network"
	"github.com/gantryrun/gantry/stage0"
)

func (a *app) portCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "port POD [CONTAINERPORT[/PROTOCOL]]",
		Short: "Show where a pod's ports are published",
		Long: `Show where a pod's ports are published: those of one port of the pod, or all,
with the numbers the kernel chose.`,
		Example: `  gantry port web
  gantry port web 53/udp`,
		Args: rangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			r, err := stage0.Status(e, args[0])
			if err != nil {
				return err
			}
			ports, all := eachPort(r.Ports), len(args) == 1
			if !all {
				if ports, err = portsOf(ports, args[0], args[1]); err != nil {
					return err
				}
			}
			var rows [][]string
			for _, p := range ports {
				for _, at := range boundTo(p) {
					if !all {
						rows = append(rows, []string{at})
						continue
					}
					rows = append(rows, []string{portName(p) + " -> " + at})
				}
			}
			return a.table(format, ports, nil, rows)
		},
	}
	formatFlag(c, &format)
	return c
}

// eachPort is every port by itself.
func eachPort(ports []network.Port) []network.Port {
	out := []network.Port{}
	for _, p := range ports {
		for i := range p.Len() {
			out = append(out, p.At(i))
		}
	}
	return out
}

func portName(p network.Port) string { return strconv.Itoa(int(p.Container)) + "/" + p.Protocol }

// portsOf are those of one port of the pod.
func portsOf(ports []network.Port, pod, name string) (out []network.Port, err error) {
	if !strings.Contains(name, "/") {
		name += "/" + network.TCP
	}
	for _, p := range ports {
		if portName(p) == strings.ToLower(name) {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, withHint(fmt.Errorf("pod %s publishes no port %s", pod, name), "'gantry port %s' shows what it publishes", pod)
	}
	return out, nil
}

// boundTo are the host's addresses of a single port.
func boundTo(p network.Port) []string {
	hosts := []netip.Addr{p.Host}
	if !p.Host.IsValid() {
		hosts = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	out := make([]string, len(hosts))
	for i, h := range hosts {
		out[i] = netip.AddrPortFrom(h, p.HostPort).String()
	}
	return out
}

// portList is a pod's published ports in a line.
func portList(ports []network.Port) string {
	out := make([]string, len(ports))
	for i, p := range ports {
		to := p.String()
		out[i] = p.Bound() + "->" + to[strings.LastIndexByte(to, ':')+1:]
	}
	return strings.Join(out, ", ")
}
