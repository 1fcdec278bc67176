// SPDX-License-Identifier: Apache-2.0

package badinput

import (
	"net"
	"path/filepath"

	"github.com/gantryrun/gantry/tests/ability"
)

// onNetwork is a row of an image that is fine, with such options; before makes
// the situation.
func onNetwork(name string, before func(f *fixture, ref string), options ...string) row {
	return row{group: "Networks", name: name, needs: []ability.Ability{ability.Networks}, do: func(f *fixture) []string {
		f.Networked()
		f.write("etc/cni.d/here.conf", "[Plugins]\nPath="+filepath.Join(f.Dir, "plugins")+"\nLists="+filepath.Join(f.Dir, "lists")+"\n")
		ref := f.fetched(f.program())
		if before != nil {
			before(f, ref)
		}
		return append(append([]string{"run", "--rm"}, options...), ref, "exit", "0")
	}}
}

// described is onNetwork with a configuration list of others, and a plugin of
// such a text.
func described(name, list, plugin string) row {
	return onNetwork(name, func(f *fixture, _ string) {
		f.write("etc/net.d/back.conflist", list)
		if plugin != "" {
			f.must("chmod", "0755", f.write("plugins/wire", "#!/bin/sh\n"+plugin+"\n"))
		}
	}, "--net=back")
}

func networkRows() []row {
	small := func(f *fixture, ref string) {
		f.Must("network", "create", "--subnet=10.9.0.0/30", "back")
	}
	const wire = `{"cniVersion":"1.0.0","name":"back","plugins":[{"type":"wire"}]}`
	return []row{
		onNetwork("a port that a program has", func(f *fixture, _ string) {
			l, err := net.Listen("tcp", ":8080")
			if err != nil {
				f.t.Fatal(err)
			}
			f.t.Cleanup(func() { _ = l.Close() })
		}, "--publish=8080:80"),
		onNetwork("a port that another pod has", func(f *fixture, ref string) {
			f.Must("run", "-d", "--name=web", "--publish=8080:80", ref, "wait")
		}, "--publish=8080:80"),
		onNetwork("a port that is none", nil, "--publish=80800"),
		onNetwork("two pods' worth of one port", nil, "--publish=8080:80", "--publish=8080:81"),
		onNetwork("an address that is not this host's", nil, "--publish=192.0.2.77:8080:80"),
		onNetwork("a port without a network", nil, "--net=none", "--publish=8080:80"),
		onNetwork("no address left", func(f *fixture, ref string) {
			small(f, ref)
			f.Must("run", "-d", "--net=back", ref, "wait")
		}, "--net=back"),
		onNetwork("an address that another pod has", func(f *fixture, ref string) {
			small(f, ref)
			f.Must("run", "-d", "--net=back", ref, "wait")
		}, "--net=back", "--ip=10.9.0.2"),
		onNetwork("an address of another network", small, "--net=back", "--ip=10.10.0.2"),
		onNetwork("an address that is none", nil, "--ip=10.9.0.300"),
		onNetwork("a hardware address that is none", nil, "--mac-address=web"),
		onNetwork("no such network", nil, "--net=back"),
		onNetwork("the host's network and another", nil, "--net=host,default"),
		onNetwork("a network twice", nil, "--net=default", "--net=default"),
		onNetwork("the network of no pod", nil, "--net=pod:nobody"),
		onNetwork("a port of a network that is internal", func(f *fixture, _ string) {
			f.Must("network", "create", "--internal", "--subnet=10.9.0.0/24", "back")
		}, "--net=back", "--publish=8080:80"),
		{group: "Networks", name: "a subnet that another network has", needs: []ability.Ability{ability.Networks}, do: func(f *fixture) []string {
			f.Must("network", "create", "--subnet=10.9.0.0/24", "back")
			return []string{"network", "create", "--subnet=10.9.0.0/16", "front"}
		}},
		{group: "Networks", name: "a network that is used", needs: []ability.Ability{ability.Networks}, do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			small(f, ref)
			f.Must("run", "-d", "--net=back", ref, "wait")
			return []string{"network", "rm", "back"}
		}},
		described("a list with another type in it", `{"cniVersion":"1.0.0","name":"back","plugins":"wire"}`, ""),
		described("a version that is a number", `{"cniVersion":1,"name":"back","plugins":[{"type":"wire"}]}`, ""),
		described("a field that a network has not", `{"cniVersion":"1.0.0","name":"back","plugins":[{"type":"gantry-bridge","intenal":true,"subnets":[{"subnet":"10.9.0.0/24"}]}]}`, ""),
		onNetwork("a network that two files describe", func(f *fixture, _ string) {
			f.write("etc/net.d/back.conflist", wire)
			f.write("etc/net.d/other.conflist", wire)
		}, "--net=back"),
		described("a configuration that is not JSON", "{name: back}", ""),
		described("a configuration without plugins", `{"cniVersion":"1.0.0","name":"back","plugins":[]}`, ""),
		described("a configuration of another name", `{"cniVersion":"1.0.0","name":"front","plugins":[{"type":"wire"}]}`, ""),
		described("a version nobody knows", `{"cniVersion":"7.0.0","name":"back","plugins":[{"type":"wire"}]}`, "exit 0"),
		described("a plugin that is missing", wire, ""),
		described("a plugin that is a path", `{"cniVersion":"1.0.0","name":"back","plugins":[{"type":"../wire"}]}`, "exit 0"),
		described("a plugin that fails", wire, `[ $CNI_COMMAND = ADD ] || exit 0
echo '{"cniVersion":"1.0.0","code":101,"msg":"no carrier","details":"the cable is out"}'; exit 1`),
		described("a plugin that prints rubbish", wire, `[ $CNI_COMMAND = ADD ] || exit 0
echo 'all is well'`),
		described("a plugin that dies", wire, `[ $CNI_COMMAND = ADD ] || exit 0
kill -9 $$`),
	}
}

// somebodyElse is a row of an ordinary user.
func somebodyElse(name string, args func(f *fixture) []string) row {
	return row{group: "Permissions", name: name, do: func(f *fixture) []string {
		f.user = 12347
		// Where such a user may execute it.
		f.must("chmod", "0755", filepath.Dir(f.Dir), f.Dir)
		f.must("sh", "-c", "mkdir "+filepath.Join(f.Dir, "bin")+" && cp "+filepath.Join(filepath.Dir(filepath.Dir(f.Program("inspect"))), "gantry")+"* "+filepath.Join(f.Dir, "bin"))
		return args(f)
	}}
}

func permissionRows() []row {
	return []row{
		somebodyElse("the store of somebody else", func(f *fixture) []string {
			f.fetched(f.program())
			return []string{"image", "ls"}
		}),
		somebodyElse("a rule for all as an ordinary user", func(f *fixture) []string {
			return []string{"trust", "add", "--prefix", "registry.example.com/acme", f.Key() + ".pub"}
		}),
		somebodyElse("a file of one's own that cannot be read", func(f *fixture) []string {
			f.write("own.pub", "")
			f.must("chown", "12347", filepath.Join(f.Dir, "own.pub"))
			f.must("chmod", "0", filepath.Join(f.Dir, "own.pub"))
			return []string{"trust", "add", "--prefix", "registry.example.com/acme", filepath.Join(f.Dir, "own.pub")}
		}),
		{group: "Permissions", name: "a directory that others may write to", do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			f.must("chmod", "0777", filepath.Join(f.Dir, "lib"))
			return []string{"run", ref}
		}},
		{group: "Permissions", name: "a key that others may read", do: func(f *fixture) []string {
			ref := f.fetched(f.program())
			f.must("chmod", "0644", filepath.Join(f.Dir, "lib", "host.key"))
			return []string{"run", "--pull=never", ref}
		}},
	}
}
