// SPDX-License-Identifier: Apache-2.0

package networks

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
)

// releases are the real plugins: Debian's, and those of the newest release,
// which the suite builds into its cache.
func releases(t *testing.T) map[string]release {
	t.Helper()
	all := map[string]release{}
	if _, err := os.Stat("/usr/lib/cni/bridge"); err == nil {
		all["debian"] = release{"/usr/lib/cni", "1.0.0"}
	}
	if dir := os.Getenv("GANTRY_TEST_CNI"); dir != "" {
		all["newest"] = release{dir, "1.1.0"}
	}
	if len(all) == 0 {
		t.Skip("ability missing: CNI plugins: neither /usr/lib/cni nor GANTRY_TEST_CNI")
	}
	return all
}

type release struct{ dir, version string }

// chain is a list of plugins, and what has to be seen in the pod.
type chain struct {
	name, plugins, sees string
	needs               ability.Ability
}

// leaves tells which plugins take down their rules of ipMasq only while there is
// a namespace: all, up to the newest.
func (c chain) leaves() bool { return strings.Contains(c.plugins, "ipMasq") }

// chains are used together by real people.
var chains = []chain{
	{
		name: "bridge", sees: "10.91.0.",
		plugins: `{"type":"bridge","bridge":"br-test","isGateway":true,"ipMasq":true,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"$DIR/leases","ranges":[[{"subnet":"10.91.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}},
 {"type":"firewall"},
 {"type":"tuning","capabilities":{"mac":true}}`,
		needs: ability.Tool("iptables"),
	},
	{
		name: "two families", sees: "2001:db8:91::",
		plugins: `{"type":"bridge","bridge":"br-test","isGateway":true,"ipam":{"type":"host-local","dataDir":"$DIR/leases",
  "ranges":[[{"subnet":"10.91.0.0/24"}],[{"subnet":"2001:db8:91::/64"}]]}}`,
	},
	{
		name: "ptp", sees: "10.92.0.",
		plugins: `{"type":"ptp","ipMasq":true,"ipam":{"type":"host-local","dataDir":"$DIR/leases","subnet":"10.92.0.0/24","routes":[{"dst":"0.0.0.0/0"}]}}`,
		needs:   ability.Tool("iptables"),
	},
	{
		name: "macvlan", sees: "192.0.2.77/24",
		plugins: `{"type":"macvlan","master":"wan0","ipam":{"type":"static","addresses":[{"address":"192.0.2.77/24","gateway":"192.0.2.1"}]}}`,
		needs:   ability.Macvlan,
	},
	{
		name: "static by capability", sees: "10.93.0.9/24",
		plugins: `{"type":"bridge","bridge":"br-test","capabilities":{"ips":true},"ipam":{"type":"static","capabilities":{"ips":true}}}`,
	},
}

func list(version, plugins string) string {
	return `{"cniVersion":"` + version + `","name":"lan","plugins":[` + plugins + `]}`
}

// TestChains puts a pod on each kind of network of each release's plugins, and
// looks that nothing is left when it ends, by itself and by SIGKILL of its
// supervisor.
func TestChains(t *testing.T) {
	for name, r := range releases(t) {
		for _, c := range chains {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				if c.needs.Name != "" {
					ability.Require(t, c.needs)
				}
				m := newMachine(t)
				m.plugins(r.dir, "20s")
				m.write("etc/net.d/lan.conflist", list(r.version, c.plugins))
				network := "lan"
				if strings.Contains(c.plugins, `"ips"`) {
					network += ":ip=10.93.0.9"
					m.write("etc/net.d/lan.conflist", list(r.version, strings.Replace(c.plugins, `"ipam":{`, `"x":{"subnet":"10.93.0.0/24"},"ipam":{`, 1)))
				}
				before := m.inventory()
				ran := m.must("gantry run --rm --net " + network + " $OCI:box ip address show dev eth0")
				m.has(ran, c.sees)
				t.Log(ran) // what a plugin said, where something is left
				m.says(m.inventory(), before)

				uuid := m.must("gantry run -d --net " + network + " $OCI:box sleep 1000")
				m.has(m.must("gantry inspect "+uuid), c.sees)
				m.has(m.must("gantry network check"), "ok")
				m.kill(uuid)
				m.must("gantry gc --grace-period 0s")
				after := m.inventory()
				if c.leaves() {
					after = m.must("printf '%s\n' '" + after + "' | grep -vE 'CNI-|ip daddr != 224' || true")
				}
				m.says(after, before)
			})
		}
	}
}

// TestSinglePlugin is a network of one plugin in a file of its own, as they were
// before there were lists.
func TestSinglePlugin(t *testing.T) {
	for name, r := range releases(t) {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.plugins(r.dir, "20s")
			m.write("shared/99-lo.conf", `{"cniVersion":"`+r.version+`","name":"only","type":"loopback"}`)
			m.has(m.must("gantry run --rm --net only:interface=lo0 $OCI:box ip address show dev lo 2>&1 || true"), "loopback")
		})
	}
}

// TestPublished reaches a pod of a CNI network from outside, from the host and
// by a limit of its rate.
func TestPublished(t *testing.T) {
	ability.Require(t, ability.Tool("iptables"))
	for name, r := range releases(t) {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.plugins(r.dir, "20s")
			m.write("etc/net.d/lan.conflist", list(r.version, chains[0].plugins+`,{"type":"bandwidth","capabilities":{"bandwidth":true}}`))
			uuid := m.must("gantry run -d --name web --net lan:egressRate=8000000,egressBurst=80000 --mac-address 02:00:5e:00:53:01 -p 8080:80 $OCI:box inspect greet web tcp:80")
			m.has(m.must("gantry exec web ip link show dev eth0"), "02:00:5e:00:53:01")
			if out, err := m.outside("inspect ask tcp 192.0.2.1:8080"); err != nil || out != "web 192.0.2.2" {
				t.Errorf("from outside: %v %s", err, out)
			}
			for _, at := range []string{"192.0.2.1", "127.0.0.1", "[::1]", "[2001:db8::1]"} {
				m.has(m.must("inspect ask tcp "+at+":8080"), "web ")
			}
			m.has(m.must("gantry exec web inspect ask tcp 192.0.2.1:8080"), "web ") // itself
			m.has(m.must("tc qdisc"), "tbf")
			m.must("gantry stop --time 0 " + uuid + " && gantry rm " + uuid)
			m.has(m.fails(1, "inspect ask tcp 192.0.2.1:8080 0"), "refused")
		})
	}
}

// TestRefused is what a network of plugins cannot be asked, by name.
func TestRefused(t *testing.T) {
	m := newMachine(t)
	m.fake("p", ok)
	m.write("etc/net.d/lan.conflist", list("1.0.0", `{"type":"p"}`))
	m.write("etc/net.d/mixed.conflist", `{"cniVersion":"1.0.0","name":"mixed","plugins":[{"type":"gantry-bridge","subnets":[{"subnet":"10.9.0.0/24"}]},{"type":"p"}]}`)
	m.has(m.fails(125, "gantry run --rm --net lan -p 80:80 $OCI:box true"), "network lan", "publish 80:80/tcp: none of its plugins has the capability portMappings", "hint")
	m.has(m.fails(125, "gantry run --rm --net lan:ingressRate=8000 $OCI:box true"), "ingressRate=8000: none of its plugins has the capability bandwidth")
	m.has(m.fails(125, "gantry run --rm --net lan --ip 10.9.0.9 $OCI:box true"), "its plugins gave another address than 10.9.0.9, which was asked for (10.9.0.5)")
	m.has(m.fails(125, "gantry run --rm --net lan --mac-address 02:00:5e:00:53:01 $OCI:box true"), "another MAC address than 02:00:5e:00:53:01")
	m.has(m.fails(125, "gantry run --rm --net mixed $OCI:box true"), "mixed.conflist", "gantry-bridge")
	m.says(m.must("find $DIR/lib/networks -path '*results/*'; gantry list --all --quiet"), "")
}

// ok is a fake plugin that gives an address it does not have.
const ok = `case $CNI_COMMAND in
ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"x","mac":"02:00:00:00:00:02"}],"ips":[{"address":"10.9.0.5/24","interface":0}]}' ;;
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}' ;;
esac`

// fake writes a plugin that logs what it is asked, and answers by a script.
func (m *machine) fake(name, script string) {
	m.t.Helper()
	m.write("plugins/"+name, "#!/bin/sh\ncat >$DIR/"+name+".in\necho $CNI_COMMAND $CNI_IFNAME ${CNI_NETNS:+netns} >>$DIR/"+name+".log\n"+script+"\n")
	if err := os.Chmod(filepath.Join(m.dir, "plugins", name), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) log(name string) string {
	b, _ := os.ReadFile(filepath.Join(m.dir, name+".log"))
	_ = os.Remove(filepath.Join(m.dir, name+".log"))
	return strings.TrimSpace(string(b))
}

// TestFaultyPlugins is what plugins do wrong, word for word what the user hears,
// and that nothing is left.
func TestFaultyPlugins(t *testing.T) {
	m := newMachine(t)
	m.plugins(m.dir+"/plugins", "15s") // a slow machine's good plugin must end in it
	m.fake("good", ok)
	for _, c := range []struct{ name, script, want string }{
		{"says no", `echo '{"code":101,"msg":"no link","details":"br9: not found"}'; exit 1`, "network lan: plugin bad: ADD: no link (code 101): br9: not found"},
		{"says later", `echo '{"code":11,"msg":"busy"}'; exit 1`, "network lan: plugin bad: ADD: busy (code 11)\ngantry: hint: try again later: the plugin says that it is passing"},
		{"is too old", `echo '{"code":1,"msg":"incompatible CNI versions"}'; exit 1`, "network lan: plugin bad: ADD: incompatible CNI versions (code 1)\ngantry: hint: the plugin does not know the list's cniVersion"},
		{"dies", `echo oops >&2; exit 7`, "network lan: plugin bad: ADD: exit status 7 and no error in JSON: oops\ngantry: hint: 'gantry network inspect lan' shows"},
		{"prints garbage", `echo garbage`, "network lan: plugin bad: ADD: it ended with success and printed no result: garbage"},
		{"hangs", `sleep 600`, "network lan: plugin bad: ADD: it did not end within 15s and was killed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := *m
			m.t = t
			m.fake("bad", `[ $CNI_COMMAND = ADD ] || exit 0`+"\n"+c.script)
			m.write("etc/net.d/lan.conflist", list("1.0.0", `{"type":"good"},{"type":"bad"}`))
			m.has(m.fails(125, "gantry run --rm --net lan $OCI:box true"), c.want)
			m.says(m.log("good"), "ADD eth0 netns\nDEL eth0 netns")
			m.says(m.must("gantry list --all --quiet; find $DIR/lib/networks -path '*results/*'"), "")
			m.log("bad")
		})
	}
	m.write("etc/net.d/lan.conflist", list("1.0.0", `{"type":"absent"}`))
	m.has(m.fails(125, "gantry run --rm --net lan $OCI:box true"), "network lan: plugin absent: there is no such executable\ngantry: hint: install it")
	m.write("etc/net.d/lan.conflist", list("1.0.0", `{"type":"../../bin/sh"}`))
	m.has(m.fails(125, "gantry run --rm --net lan $OCI:box true"), `lan.conflist: plugins[0].type: "../../bin/sh" is not the bare name of an executable`)
	m.write("etc/net.d/lan.conflist", `{"name":"lan","plugins":[{"type":"good"`)
	m.has(m.fails(125, "gantry run --rm --net lan $OCI:box true"), "lan.conflist: line 1: unexpected end of JSON input")
}

// TestNameServers: what was asked for of name servers is told to the plugins that
// want it, and to no others.
func TestNameServers(t *testing.T) {
	m := newMachine(t)
	for _, name := range []string{"told", "untold"} {
		m.fake(name, "[ $CNI_COMMAND != ADD ] || cp $DIR/"+name+".in $DIR/"+name+".add\n"+ok)
	}
	m.write("etc/net.d/lan.conflist", list("1.0.0", `{"type":"told","capabilities":{"dns":true}},{"type":"untold"}`))
	m.must("gantry run --rm --net lan --dns 192.0.2.53 --dns-search example.com --dns-option ndots:1 $OCI:box true")
	m.has(m.must("cat $DIR/told.add"), `"dns":{"options":["ndots:1"],"searches":["example.com"],"servers":["192.0.2.53"]}`)
	m.says(m.must("grep -c 192.0.2.53 $DIR/untold.add || true"), "0")
	m.log("told")
	m.log("untold")
}

// TestNameServersOfTheNetwork: what the plugins' result says of names is in the
// pod's resolv.conf in the place of the host's, unless flags say it.
func TestNameServersOfTheNetwork(t *testing.T) {
	m := newMachine(t)
	m.fake("named", strings.Replace(ok, `"cniVersion":`, `"dns":{"nameservers":["10.9.9.9"],"domain":"lan.example","options":["ndots:3"]},"cniVersion":`, 1))
	m.write("etc/net.d/lan.conflist", list("1.0.0", `{"type":"named"}`))
	m.says(m.must("gantry run --rm --net lan $OCI:box grep -E '^(search|nameserver|options)' /etc/resolv.conf"), "search lan.example\nnameserver 10.9.9.9\noptions ndots:3")
	m.says(m.must("gantry run --rm --net lan --dns 192.0.2.53 --dns-search . $OCI:box grep -E '^(search|nameserver|options)' /etc/resolv.conf"), "options ndots:3\nnameserver 192.0.2.53")
	m.fake("named", strings.Replace(ok, `"cniVersion":`, `"dns":{"nameservers":["ns.example"]},"cniVersion":`, 1))
	m.has(m.fails(125, "gantry run --rm --net lan $OCI:box true"), "network lan: ", "its result makes no sense", "ns.example")
}

// TestDelUntilItWorks: a DEL that fails stays recorded, and is asked for again.
func TestDelUntilItWorks(t *testing.T) {
	m := newMachine(t)
	m.fake("p", ok)
	m.write("etc/net.d/lan.conflist", list("1.0.0", `{"type":"p"}`))
	uuid := m.must("gantry run -d --net lan $OCI:box sleep 1000")
	m.log("p")
	m.fake("p", `echo '{"code":11,"msg":"busy"}'; exit 1`)
	m.must("gantry stop --time 0 " + uuid)
	m.says(m.log("p"), "DEL eth0 netns")
	m.has(m.fails(125, "gantry rm "+uuid), "network lan: plugin p: DEL: busy (code 11)")
	m.log("p")
	m.fake("p", ok)
	m.must("gantry rm " + uuid)
	m.says(m.log("p"), "DEL eth0")
	m.says(m.must("gantry list --all --quiet; find $DIR/lib/networks -path '*results/*'"), "")
}

// TestKilled: after SIGKILL of the supervisor the next gantry detaches the pod,
// which has no namespace any more; a plugin that hangs then holds up nobody
// twice.
func TestKilled(t *testing.T) {
	m := newMachine(t)
	m.fake("p", ok)
	m.write("etc/net.d/lan.conflist", list("1.0.0", `{"type":"p"}`))
	uuid := m.must("gantry run -d --rm --net lan $OCI:box sleep 1000")
	m.says(m.log("p"), "ADD eth0 netns")
	m.kill(uuid)
	m.must("gantry gc")
	m.says(m.log("p"), "DEL eth0")
	m.says(m.must("gantry list --all --quiet; find $DIR/lib/networks -path '*results/*'"), "")
}

// TestStatusCheckAndCollect are the commands of version 1.1.0 that keep a network
// in order.
func TestStatusCheckAndCollect(t *testing.T) {
	m := newMachine(t)
	m.fake("p", `[ ! -e $DIR/down -o $CNI_COMMAND != STATUS ] || { echo '{"code":50,"msg":"down"}'; exit 1; }`+"\n"+ok)
	m.write("etc/net.d/lan.conflist", list("1.1.0", `{"type":"p"}`))
	m.must("touch $DIR/down")
	m.has(m.fails(125, "gantry run --rm --net lan $OCI:box true"), "network lan: plugin p: STATUS: down (code 50)\ngantry: hint: the plugin is not ready")
	m.has(m.fails(1, "gantry network check lan"), "WRONG", "down (code 50)")
	m.must("rm $DIR/down")
	uuid := m.must("gantry run -d --net lan $OCI:box sleep 1000")
	m.log("p")
	m.has(m.must("gantry network check"), "ok")
	m.says(m.log("p"), "VERSION dummy netns\nSTATUS\nCHECK eth0 netns")
	m.must("gantry gc")
	m.says(m.log("p"), "GC")
	b, err := os.ReadFile(filepath.Join(m.dir, "p.in"))
	var told struct {
		Valid []struct {
			ContainerID string `json:"containerID"`
		} `json:"cni.dev/valid-attachments"`
	}
	if err != nil || json.Unmarshal(b, &told) != nil || len(told.Valid) != 1 || told.Valid[0].ContainerID != uuid {
		t.Errorf("GC was told %s, %v", b, err)
	}
	m.must("mv etc/net.d/lan.conflist shared/")
	m.must("gantry gc")
	m.says(m.log("p"), "") // a list of others is none of ours to collect
}

// TestCnitool uses one list together with cnitool, at the same time.
func TestCnitool(t *testing.T) {
	tool := filepath.Join(os.Getenv("GANTRY_TEST_CNI"), "cnitool")
	if _, err := os.Stat(tool); err != nil || !filepath.IsAbs(tool) {
		t.Skip("ability missing: cnitool: GANTRY_TEST_CNI")
	}
	for name, r := range releases(t) {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.plugins(r.dir, "20s")
			m.write("shared/10-lan.conflist", list(r.version, chains[1].plugins))
			cnitool := "env CNI_PATH=" + r.dir + " NETCONFPATH=$DIR/shared " + tool
			m.must("ip netns add theirs")
			m.must(cnitool + " add lan /run/netns/theirs")
			uuid := m.must("gantry run -d --net lan $OCI:box sleep 1000")
			theirs := m.must("ip netns exec theirs ip -4 -o address show dev eth0 | grep -o '10[.0-9/]*' | head -1")
			ours := m.must("gantry exec " + uuid + " ip -4 -o address show dev eth0 | grep -o '10[.0-9/]*' | head -1")
			if theirs == ours || theirs == "" || ours == "" {
				t.Errorf("cnitool has %s, gantry %s", theirs, ours)
			}
			greeter := m.must("ip netns exec theirs inspect greet theirs tcp:80 >/dev/null 2>&1 & echo $!")
			m.says(m.must("gantry exec "+uuid+" inspect ask tcp "+strings.TrimSuffix(theirs, "/24")+":80; kill "+greeter), "theirs "+strings.TrimSuffix(ours, "/24"))
			m.must(cnitool + " check lan /run/netns/theirs")
			m.has(m.must("gantry network check lan"), "ok")
			if r.version == "1.1.0" {
				m.must(cnitool + " status lan /run/netns/theirs")
			}
			m.must("gantry gc")
			m.must(cnitool + " check lan /run/netns/theirs") // ours collected nothing of theirs
			m.must("gantry stop --time 0 " + uuid + " && gantry rm " + uuid)
			m.must(cnitool + " check lan /run/netns/theirs")
			m.must(cnitool + " del lan /run/netns/theirs; ip netns del theirs")
			m.says(m.must("find $DIR/leases -type f -name '10.*'"), "")
		})
	}
}

// kill ends a supervisor by SIGKILL, and returns when the pod has ended.
func (m *machine) kill(uuid string) {
	m.t.Helper()
	m.must("kill -9 $(gantry status --format json " + uuid + " | grep -o '\"supervisor\": [0-9]*' | cut -d' ' -f2) && gantry status --wait " + uuid + " || true")
}

// TestTogether is a pod on a network of plugins and one of gantry's own, one in a
// user namespace, and one that was prepared.
func TestTogether(t *testing.T) {
	for name, r := range releases(t) {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.plugins(r.dir, "20s")
			m.write("etc/net.d/lan.conflist", list(r.version, chains[1].plugins))
			before := m.inventory()
			out := m.must("gantry run --rm --net lan,default $OCI:box sh -c 'ip -o address; ip route'")
			m.has(out, "eth0    inet 10.91.0.", "eth1    inet 10.44.", "default via 10.44.0.1 dev eth1")
			m.has(m.must("gantry run --rm --net default,lan $OCI:box sh -c 'ip -o address; ip route'"), "eth1    inet 10.91.0.", "default via 10.44.0.1 dev eth0")
			m.must("gantry run -d --name a --net lan $OCI:box inspect greet a tcp:80")
			m.has(m.must("gantry run --rm --net lan,default --userns auto $OCI:box inspect ask tcp a:80"), "a ")
			// With the way out by the plugins, what came by a published port is
			// answered where it came: a strict host drops anything else.
			m.write("etc/net.d/lan.conflist", list(r.version, strings.ReplaceAll(chains[1].plugins, `}]]}}`, `}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}`)))
			m.must("sysctl -qw net.ipv4.conf.all.rp_filter=1")
			m.must("gantry run -d --name both --net lan,default -p 8090:80 $OCI:box inspect greet both tcp:80")
			m.has(m.must("gantry exec both ip route"), "default via 10.91.0.1 dev eth0")
			for _, at := range []string{"192.0.2.1", "[2001:db8::1]"} {
				if out, err := m.outside("inspect ask tcp " + at + ":8090"); err != nil || !strings.HasPrefix(out, "both ") {
					t.Errorf("from outside to %s: %v %s", at, err, out)
				}
			}
			m.must("gantry rm --force both")
			uuid := m.must("gantry prepare --net lan $OCI:box ip -o address")
			m.has(m.must("gantry run-prepared "+uuid), "10.91.0.")
			m.has(m.must("gantry status a --format json"), "10.91.0.")
			m.must("gantry stop a && gantry gc --grace-period 0s")
			m.says(m.inventory(), before)
		})
	}
}
