// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// ProtocolVersion is raised whenever an older gantry-net would misread a
// request.
const ProtocolVersion = 1

// The operations of the specification.
const (
	Add     = "add"
	Check   = "check"
	Del     = "del"
	GC      = "gc"
	Status  = "status"
	Version = "version"
)

// Attachment is a pod on a network: all that ADD is told, and all that DEL has
// to be told again. It is written into the pod's directory before ADD runs.
type Attachment struct {
	Network string          `json:"network"`
	List    json.RawMessage `json:"list"` // List.Bytes
	Pod     string          `json:"pod"`  // its UUID, the specification's container ID
	IfName  string          `json:"ifName"`
	// NetNS is a path of the namespace: for CHECK the one ADD was told, because
	// plugins compare; for DEL "" when it is gone.
	NetNS string      `json:"netns,omitempty"`
	Args  [][2]string `json:"args,omitempty"` // CNI_ARGS
	// Capabilities are what is passed to the plugins that declare them.
	Capabilities Capabilities  `json:"capabilities,omitzero"`
	Path         []string      `json:"path"`            // directories of plugins
	Cache        string        `json:"cache"`           // directory of results
	Timeout      time.Duration `json:"timeout"`         // of one plugin
	Shared       bool          `json:"shared,omitzero"` // List.Shared
}

// Capabilities are the well-known capability arguments of CONVENTIONS.md.
type Capabilities struct {
	PortMappings []PortMapping `json:"portMappings,omitempty"`
	Bandwidth    *Bandwidth    `json:"bandwidth,omitempty"`
	DNS          *DNS          `json:"dns,omitempty"`
	Aliases      []string      `json:"aliases,omitempty"`
	MAC          string        `json:"mac,omitempty"`
	IPs          []string      `json:"ips,omitempty"` // addresses with prefix length
}

// PortMapping is a published port.
type PortMapping struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// Bandwidth is in bits and bits a second.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// DNS is how names are resolved on a network.
type DNS struct {
	Servers  []string `json:"servers,omitempty"`
	Searches []string `json:"searches,omitempty"`
	Options  []string `json:"options,omitempty"`
}

// Asked are the capabilities that somebody asked for by name.
func (c Capabilities) Asked() []string {
	var names []string
	for name, asked := range map[string]bool{
		"portMappings": len(c.PortMappings) > 0, "bandwidth": c.Bandwidth != nil, "dns": c.DNS != nil,
		"aliases": len(c.Aliases) > 0, "mac": c.MAC != "", "ips": len(c.IPs) > 0,
	} {
		if asked {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Request is what gantry-net reads from its standard input.
type Request struct {
	Version   int        `json:"version"`
	Operation string     `json:"operation"`
	On        Attachment `json:"attachment"`
	NetNS     string     `json:"netns,omitempty"`  // a path plugins can open; "" when it is gone
	Record    string     `json:"record,omitempty"` // of ADD: the file WriteRecord wrote
	// Pods is the directory of all pods, below whose phases are the records of
	// what is attached; for GC.
	Pods string `json:"pods,omitempty"`
}

// Answer is what gantry-net writes to its standard output.
type Answer struct {
	Result   *Result             `json:"result,omitempty"`   // of ADD
	Versions map[string][]string `json:"versions,omitempty"` // of VERSION, by plugin
	Error    *PluginError        `json:"error,omitempty"`
}

// Result is a result of version 1.1.0 of the specification.
type Result struct {
	CNIVersion string      `json:"cniVersion,omitempty"`
	Interfaces []Interface `json:"interfaces,omitempty"`
	IPs        []IP        `json:"ips,omitempty"`
	Routes     []Route     `json:"routes,omitempty"`
	DNS        ResultDNS   `json:"dns,omitzero"`
}

// Interface is a link some plugin made or changed.
type Interface struct {
	Name    string `json:"name"`
	MAC     string `json:"mac,omitempty"`
	MTU     int    `json:"mtu,omitempty"`
	Sandbox string `json:"sandbox,omitempty"` // "" on the host
}

// IP is an address of the pod.
type IP struct {
	Address   netip.Prefix `json:"address"`
	Gateway   netip.Addr   `json:"gateway,omitzero"`
	Interface *int         `json:"interface,omitempty"` // index in Interfaces
}

// Route is one the pod has.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	GW  netip.Addr   `json:"gw,omitzero"`
}

// ResultDNS is what the network's plugins say of names.
type ResultDNS struct {
	Nameservers []netip.Addr `json:"nameservers,omitempty"`
	Domain      string       `json:"domain,omitempty"`
	Search      []string     `json:"search,omitempty"`
	Options     []string     `json:"options,omitempty"`
}

// Kinds of failure that are not a plugin's own answer.
const (
	Missing  = "missing"  // its executable is in no directory
	TimedOut = "timeout"  // it was killed
	Garbage  = "garbage"  // what it printed is no answer
	Died     = "died"     // it ended without a word of the specification
	Unsound  = "unsound"  // the request is
	Internal = "internal" // gantry-net itself
)

// PluginError is how an operation failed.
type PluginError struct {
	Network string `json:"network,omitempty"`
	Plugin  string `json:"plugin,omitempty"`
	Command string `json:"command,omitempty"` // ADD, DEL…
	Kind    string `json:"kind,omitempty"`    // "" is the plugin's own answer
	Code    uint   `json:"code,omitempty"`    // of the specification, or the plugin's
	Msg     string `json:"msg"`
	Details string `json:"details,omitempty"`
	Path    string `json:"path,omitempty"` // directories that were searched
}

func (e *PluginError) Error() string {
	var b strings.Builder
	if e.Network != "" {
		fmt.Fprintf(&b, "network %s: ", e.Network)
	}
	if e.Plugin != "" {
		fmt.Fprintf(&b, "plugin %s: ", e.Plugin)
	}
	if e.Command != "" {
		fmt.Fprintf(&b, "%s: ", e.Command)
	}
	b.WriteString(e.Msg)
	if e.Kind == "" && e.Code != 0 {
		fmt.Fprintf(&b, " (code %d)", e.Code)
	}
	if e.Details != "" {
		fmt.Fprintf(&b, ": %s", e.Details)
	}
	return b.String()
}

// Hint says what can be done about it.
func (e *PluginError) Hint() string {
	switch e.Kind {
	case Missing:
		return fmt.Sprintf("install it (Debian: containernetworking-plugins), or name its directory in cni.d; looked in %s", e.Path)
	case TimedOut:
		return "it was killed; Timeout= in cni.d gives it longer"
	case Garbage, Died:
		return fmt.Sprintf("'gantry network inspect %s' shows the configuration it was given", e.Network)
	case Unsound, Internal:
		return ""
	}
	// Codes 1 to 99 are the specification's.
	switch e.Code {
	case 1:
		return "the plugin does not know the list's cniVersion: lower it, or install newer plugins"
	case 2, 7:
		return fmt.Sprintf("its configuration is wrong: 'gantry network inspect %s' shows it and its file", e.Network)
	case 11:
		return "try again later: the plugin says that it is passing"
	case 50, 51:
		return "the plugin is not ready: what it depends on (its daemon, its link) has to be brought up first"
	}
	return ""
}
