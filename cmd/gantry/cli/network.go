// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gantryrun/gantry/stage0"
)

func (a *app) networkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "network COMMAND",
		Short: "Look after networks",
		Long: `Look after the networks pods can be on. 'default' is built in; others are
described by files: those 'gantry network create' writes, and the configuration
lists of CNI plugins in net.d of gantry's configuration and in /etc/cni/net.d,
which other programs use too.`,
		DisableFlagsInUseLine: true,
		Args:                  cobra.NoArgs,
		RunE:                  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.networkListCommand(), a.networkInspectCommand(), a.networkCreateCommand(),
		a.networkRemoveCommand(), a.networkPruneCommand(), a.networkExistsCommand(), a.networkCheckCommand())
	return c
}

func (a *app) networkListCommand() *cobra.Command {
	var format string
	var quiet bool
	var filter []string
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List networks, and how many pods are on them",
		Aliases: []string{"list"},
		Example: "  gantry network ls --filter driver=bridge",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			all, err := stage0.ListNetworks(e, filter)
			if err != nil {
				return err
			}
			rows := make([][]string, 0, len(all))
			for _, n := range all {
				switch {
				case n.Problem != "":
					a.warn("%s", n.Problem)
				case quiet:
					fmt.Fprintln(a.out, n.Name)
				default:
					rows = append(rows, []string{n.Name, driver(n), dash(subnets(n)), strconv.Itoa(len(n.Pods)), fileOf(n)})
				}
			}
			if quiet {
				return nil
			}
			return a.table(format, all, []string{"NETWORK", "DRIVER", "SUBNETS", "PODS", "FILE"}, rows)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	networkFilterFlag(c, &filter, "f")
	formatFlag(c, &format)
	return c
}

func networkFilterFlag(c *cobra.Command, filter *[]string, short string) {
	c.Flags().StringArrayVarP(filter, "filter", short, nil, "only networks with `KEY=VALUE`: name, driver, label or dangling=true (no pod is on it); several values of one KEY are as with list")
}

func subnets(n stage0.Network) string {
	text := make([]string, len(n.Subnets))
	for i, s := range n.Subnets {
		text[i] = s.Subnet.String()
	}
	return strings.Join(text, " ")
}

// driver tells a network of plugins, which may begin with one called bridge,
// from one of gantry's own.
func driver(n stage0.Network) string {
	if len(n.Plugins) > 0 {
		return strings.Join(n.Plugins, ",")
	}
	return n.Driver
}

func fileOf(n stage0.Network) string {
	if n.File == "" {
		return "built in"
	}
	return n.File
}

func (a *app) networkInspectCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "inspect NETWORK...",
		Short:   "Print everything known of networks, as JSON",
		Example: "  gantry network inspect default",
		Args:    rangeArgs(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			all, err := stage0.InspectNetworks(e, args)
			if err != nil {
				return err
			}
			return a.inspection(format, all)
		},
	}
	inspectFlag(c, &format)
	return c
}

const networkCreateLong = `Describe a network, and print its name: a bridge of this host that pods join by
'gantry run --net NAME'. Its file is written to the last directory of the
configuration path (/etc/gantry/net.d); nothing else of the host changes until a
pod is on it.

Without --subnet a free one is chosen. One that this host has a route into, or
that another network has, is refused.`

// networkFlags are those of podman's network create.
type networkFlags struct {
	stage0.NetworkSettings
	ignore, disableDNS bool
	driver, ipamDriver string
	dns, route         []string
}

func (a *app) networkCreateCommand() *cobra.Command {
	var f networkFlags
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Describe a network",
		Long:  networkCreateLong,
		Example: `  gantry network create shop
  gantry network create --subnet 10.60.0.0/24 --ipv6 --label app=shop shop
  gantry network create --internal --opt mtu=1400 backend`,
		Args: exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.refuse(); err != nil {
				return err
			}
			e, err := a.env()
			if err != nil {
				return err
			}
			if err := stage0.CreateNetwork(e, args[0], f.NetworkSettings, f.ignore); err != nil {
				return err
			}
			fmt.Fprintln(a.out, args[0])
			return nil
		},
	}
	s := c.Flags()
	s.StringArrayVar(&f.Subnets, "subnet", nil, "give it the addresses `ADDRESS/LENGTH`; one of IPv4, one of IPv6")
	s.StringArrayVar(&f.Gateways, "gateway", nil, "give the bridge the `ADDRESS` (default the first of the subnet)")
	s.StringArrayVar(&f.Ranges, "ip-range", nil, "give pods only addresses of `RANGE`: ADDRESS/LENGTH or FIRST-LAST")
	s.BoolVar(&f.IPv6, "ipv6", false, "give it a unique local IPv6 subnet too")
	s.BoolVar(&f.Internal, "internal", false, "let nothing in or out")
	s.StringVarP(&f.driver, "driver", "d", "bridge", "`NAME` bridge, the only one; a list of CNI plugins has others")
	s.StringArrayVarP(&f.Options, "opt", "o", nil, "set `OPTION` mtu=BYTES, or isolate=false: reachable for pods of other networks")
	s.StringVar(&f.Interface, "interface-name", "", "call the bridge `NAME`")
	s.StringArrayVar(&f.Labels, "label", nil, "label the network `NAME=VALUE`")
	s.BoolVar(&f.ignore, "ignore", false, "leave one alone that exists already")
	s.BoolVar(&f.disableDNS, "disable-dns", false, "refused: there is no name server, pods find each other by /etc/hosts")
	s.StringArrayVar(&f.dns, "dns", nil, "refused: name servers are given to pods, by 'gantry run --dns'")
	s.StringArrayVar(&f.route, "route", nil, "refused: a list of CNI plugins can have routes")
	s.StringVar(&f.ipamDriver, "ipam-driver", "host-local", "`NAME` host-local: addresses of the subnet, by gantry itself")
	return c
}

func (f *networkFlags) refuse() error {
	switch {
	case f.driver != "bridge":
		return withHint(fmt.Errorf("--driver %q is not supported: bridge is all there is", f.driver),
			"write a configuration list with the plugin %s to net.d; see docs/networks.md", f.driver)
	case f.ipamDriver != "host-local":
		return withHint(fmt.Errorf("--ipam-driver %q is not supported: host-local is all there is", f.ipamDriver),
			"write a configuration list with that plugin to net.d; see docs/networks.md")
	case f.disableDNS:
		return errors.New("--disable-dns is not supported: there is no name server, pods find each other by /etc/hosts ('gantry run --no-hosts' leaves it alone)")
	case len(f.dns) > 0:
		return errors.New("--dns is not supported: name servers are given to pods, by 'gantry run --dns'")
	case len(f.route) > 0:
		return errors.New("--route is not supported: a configuration list of CNI plugins can have routes")
	}
	return nil
}

func (a *app) networkRemoveCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "rm NETWORK...",
		Short: "Delete networks that 'gantry network create' made",
		Long: `Delete networks that 'gantry network create' made: their files, and their
bridges. One that pods are on is refused, and the pods are named.`,
		Example: "  gantry network rm shop",
		Args:    rangeArgs(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			removed, err := stage0.RemoveNetworks(a.ctx, e, args, force)
			for _, n := range removed {
				fmt.Fprintln(a.out, n)
			}
			return err
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "stop and remove the pods on it first; one that does not exist is no error")
	return c
}

func (a *app) networkPruneCommand() *cobra.Command {
	var force bool
	var filter []string
	c := &cobra.Command{
		Use:   "prune",
		Short: "Delete all networks that 'gantry network create' made and no running pod is on",
		Long: `Delete all networks that 'gantry network create' made and no running pod is on.
Files that people or other programs wrote stay. Without --force the question is
asked on the terminal.`,
		Example: "  gantry network prune --filter label=app=shop",
		Args:    exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			if !force {
				unused, err := stage0.UnusedNetworks(e, filter)
				if err != nil || len(unused) == 0 {
					return err
				}
				if err := a.confirm(fmt.Sprintf("delete the networks %s", strings.Join(unused, ", ")), "'gantry network prune --force' deletes them"); err != nil {
					return err
				}
			}
			removed, err := stage0.PruneNetworks(a.ctx, e, filter)
			for _, n := range removed {
				fmt.Fprintln(a.out, n)
			}
			return err
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	networkFilterFlag(c, &filter, "")
	return c
}

// confirm asks on the terminal whether something is to be done; without one it
// is not.
func (a *app) confirm(what, hint string) error {
	no := withHint(fmt.Errorf("%s: nobody said yes", what), "%s", hint)
	if !term.IsTerminal(int(a.in.Fd())) {
		return no
	}
	fmt.Fprintf(a.err, "%s? [y/N] ", what)
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err != nil || answer != "y" && answer != "yes" {
		return no
	}
	return nil
}

func (a *app) networkExistsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "exists NETWORK",
		Short:   "Say by the exit status whether there is a network: 0 or 1",
		Example: "  gantry network exists shop || gantry network create shop",
		Args:    exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			all, err := stage0.ListNetworks(e, nil)
			if err != nil {
				return err
			}
			for _, n := range all {
				if n.Name == args[0] {
					return nil
				}
			}
			return exitError(1)
		},
	}
}

func (a *app) networkCheckCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "check [NETWORK...]",
		Short: "Ask whether networks can be joined and pods are still attached",
		Long: `Ask whether networks (all, if none is named) can be joined, and whether the
pods on them are still attached as they were. CNI plugins are asked for their
versions, their status, and by CHECK; of a bridge of gantry's it is looked
whether it is there. The exit status is 1 when something is wrong.`,
		Example: "  gantry network check lan",
		Args:    rangeArgs(0, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.env()
			if err != nil {
				return err
			}
			all, err := stage0.CheckNetworks(a.ctx, e, args)
			if err != nil {
				return err
			}
			rows := make([][]string, 0, len(all))
			bad := false
			for _, f := range all {
				state := "ok"
				if !f.OK {
					state, bad = "WRONG", true
				}
				rows = append(rows, []string{state, f.Network, dash(f.Pod[:min(8, len(f.Pod))]), f.Problem})
			}
			if err := a.table(format, all, nil, rows); err != nil {
				return err
			}
			if bad {
				return exitError(1)
			}
			return nil
		},
	}
	formatFlag(c, &format)
	return c
}
