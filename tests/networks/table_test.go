// SPDX-License-Identifier: Apache-2.0

package networks

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/built"
)

var writeTable = flag.Bool("table", false, "compare with podman and write the table of docs/networks.md")

// bridges are what is compared. RUN and its flags are the same for all: gantry's
// options are podman's.
var bridges = []struct{ name, run, network, other string }{
	{"gantry, its own", "gantry", "one", "two"},
	{"gantry, Debian's CNI plugins", "gantry", "lan", "lan2"},
	{"podman, its bridge", "podman", "one", "two"},
}

// row is one question, and the shell that answers it: with $RUN, $NET and $OTHER,
// networks that are bridges, and $IMAGE. What it prints is the answer.
type row struct{ what, script string }

var rows = []row{
	{"address in the pod", `$RUN run --rm --net $NET $IMAGE ip -4 -o address show dev eth0 | grep -o '10[0-9.]*/[0-9]*' | head -1 | sed 's/.*/yes/'`},
	{"another host", `nsenter -t $(cat outside) --net inspect greet outside tcp:81 >/dev/null 2>&1 & at=$!
$RUN run --rm --net $NET $IMAGE inspect ask tcp 192.0.2.2:81 2 | sed 's/outside 192.0.2.1/yes/'; kill $at`},
	{"published port: another host", serve + `nsenter -t $(cat outside) --net inspect ask tcp 192.0.2.1:8080 2 | sed 's/web 192.0.2.2/yes, sees the client/'`},
	{"published port: the host by its address", serve + `inspect ask tcp 192.0.2.1:8080 2 | sed 's/web .*/yes/'`},
	{"published port: 127.0.0.1", serve + `inspect ask tcp 127.0.0.1:8080 2 | sed 's/web .*/yes/'`},
	{"published port: [::1]", serve + `inspect ask tcp '[::1]:8080' 2 | sed 's/web .*/yes/'`},
	{"published port: the pod itself", serve + `$RUN exec web inspect ask tcp 192.0.2.1:8080 2 | sed 's/web .*/yes/'`},
	{"published port: UDP, another host", serve + `nsenter -t $(cat outside) --net inspect ask udp 192.0.2.1:8080 2 | sed 's/web 192.0.2.2/yes, sees the client/'`},
	{"published port after nft flush ruleset", serve + `nft flush ruleset; nsenter -t $(cat outside) --net inspect ask tcp 192.0.2.1:8080 1 | sed 's/web .*/yes/'`},
	{"by name, on the same network", serve + `$RUN run --rm --net $NET $IMAGE inspect ask tcp web:80 2 | sed 's/web .*/yes/'`},
	{"kept from pods of another network", serve + `to=$($RUN exec web ip -4 -o address show dev eth0 | grep -o '10[0-9.]*' | head -1)
$RUN run --rm --net $OTHER $IMAGE inspect ask tcp $to:80 1 >/dev/null 2>&1 || echo yes`},
	{"processes of its own beside the app", serve + `exec 2>/dev/null; ls -d /proc/[0-9]* | while read p; do
  [ "$(readlink $p/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ] && tr '\0' ' ' <$p/cmdline 2>/dev/null | grep -oE '^[^ ]*(gantry-stage1|conmon|aardvark-dns)' | sed 's|.*/||'; done | sort | uniq -c | sed 's/^ *//' | paste -sd, | sed 's/,/, /g'`},
	{"left after kill -9 of its processes and one more command", serve + `if [ $RUN = gantry ]
then p=$(gantry status --format json web | grep -o '"supervisor": [0-9]*' | cut -d' ' -f2); kill -9 $p; gantry status --wait web >/dev/null; gantry list >/dev/null
else p=$(podman inspect -f '{{.State.ConmonPid}} {{.State.Pid}}' web 2>/dev/null); kill -9 $p; for q in $p; do while grep -qs '^State:.[^ZX]' /proc/$q/status; do :; done; done; podman ps >/dev/null 2>&1
fi
left=
ip -o link | grep -q veth && left="$left, interfaces"
nft list ruleset 2>/dev/null | grep -qE '8080' && left="$left, rules of the port"
nft list ruleset 2>/dev/null | grep -qE 'CNI-[0-9a-f]{24}' && left="$left, a chain of ipMasq"
[ -n "$(find leases -name '10.*' 2>/dev/null)" ] && left="$left, addresses"
echo "${left#, }" | sed 's/^$/nothing/'`},
}

// serve starts a server, and waits for it where nothing of the network matters.
const serve = `$RUN run -d --name web --net $NET -p 8080:80 -p 8080:80/udp $IMAGE inspect greet web tcp:80 udp:80 >/dev/null
until $RUN exec web inspect ask tcp 127.0.0.1:80 >/dev/null 2>&1; do :; done
`

// TestTable asks the questions of each, in one run, and writes the answers to the
// documentation.
func TestTable(t *testing.T) {
	if !*writeTable {
		t.Skip("ability missing: time: go test ./tests/networks -table")
	}
	ability.Require(t, ability.Tool("podman"), ability.Tool("iptables"), ability.Tool("pkill"))
	m := newMachine(t)
	m.podman()
	for _, name := range []string{"lan", "lan2"} {
		m.write("etc/net.d/"+name+".conflist", strings.NewReplacer(`"name":"lan"`, `"name":"`+name+`"`, "br-test", "br-"+name, "10.91.0", "10.9"+fmt.Sprint(len(name))+".0", `{"type":"firewall"}`, `{"type":"firewall","ingressPolicy":"same-bridge"}`).
			Replace(list("1.0.0", chains[0].plugins)))
	}
	m.plugins("/usr/lib/cni", "20s")
	m.must("for n in one two; do gantry network create $n && podman network create $n; done")
	cells := [][]string{}
	for _, r := range rows {
		line := []string{r.what}
		for _, b := range bridges {
			out, err := m.patiently(15*time.Second, "RUN="+b.run+" NET="+b.network+" OTHER="+b.other+"; [ $RUN = podman ] && IMAGE=box || IMAGE=$OCI:box\n"+r.script)
			out = strings.TrimSpace(strings.ReplaceAll(out, "failed to connect to syslog: Initialization", "")) // podman's
			if err != nil || out == "" || strings.Contains(out, "\n") || strings.Contains(out, "nobody answers") {
				fmt.Fprintf(os.Stderr, "%s, %s: %v\n%s\n", r.what, b.name, err, out)
				out = "no"
			}
			line = append(line, out)
			m.reset(b.run)
		}
		cells = append(cells, line)
	}
	cells = append(cells, m.launches(21)...)
	m.document(cells)
}

// reset removes every pod or container, however it is, and what rules are left:
// they are not the next one's.
func (m *machine) reset(run string) {
	m.t.Helper()
	if run == "podman" {
		m.must("ids=$(podman ps -aq --no-trunc 2>/dev/null); podman rm -f -t 0 -a >/dev/null 2>&1; for id in $ids; do rmdir /sys/fs/cgroup/*/libpod_parent/libpod-$id 2>/dev/null; done; true")
		m.must("nft flush ruleset")
		return
	}
	m.must("for p in $(gantry list -a -q --no-trunc); do gantry stop --time 0 $p >/dev/null 2>&1; gantry rm -f $p >/dev/null; done; nft flush ruleset")
}

// podman gives the machine one that knows nothing of the host's.
func (m *machine) podman() {
	m.t.Helper()
	for name, text := range map[string]string{
		"containers.conf": "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=4096:4096\"]\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n[network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"$DIR/podman-networks\"\n",
		"storage.conf":    "[storage]\ndriver = \"overlay\"\ngraphroot = \"$DIR/graph\"\nrunroot = \"$DIR/podman-run\"\n",
		"policy.json":     `{"default": [{"type": "insecureAcceptAnything"}]}`,
		"registries.conf": "",
		"plugins/podman":  "#!/bin/sh\nexec /usr/bin/podman --root $DIR/graph --runroot $DIR/podman-run --tmpdir $DIR/podman-tmp \"$@\"\n",
	} {
		m.write(name, text)
	}
	if err := os.Chmod(filepath.Join(m.dir, "plugins/podman"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	m.env = append(m.env, "CONTAINERS_CONF="+m.dir+"/containers.conf", "CONTAINERS_STORAGE_CONF="+m.dir+"/storage.conf", "CONTAINERS_REGISTRIES_CONF="+m.dir+"/registries.conf")
	path := m.dir + "/plugins"
	for i, v := range m.env {
		if strings.HasPrefix(v, "PATH=") && !strings.Contains(v, m.dir) {
			m.env[i] = "PATH=" + path + ":" + strings.TrimPrefix(v, "PATH=")
		}
	}
	// crun does not work with the cgroup v2 that a hybrid host has beside version 1.
	m.must("! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified")
	m.must("mkimage -archive box.tar busybox oci:$DIR/layout:latest && podman pull -q --signature-policy policy.json oci-archive:box.tar >id && podman tag $(cat id) box")
	m.t.Cleanup(func() { _, _ = m.run("podman rm -f -t 0 -a; podman rmi -f -a; umount $DIR/graph/overlay") })
}

// launches are the times of a whole run of true: with each network, and with
// none, in turn.
func (m *machine) launches(n int) [][]string {
	m.t.Helper()
	whole, part := []string{fmt.Sprintf("`run --rm … true`, the fastest of %d", n)}, []string{"of it the network (less the same with `--net=none`)"}
	for _, b := range bridges {
		image := "box"
		if b.run == "gantry" {
			image = "oci:" + m.dir + "/oci:box"
		}
		var with, without []time.Duration
		for range n {
			with = append(with, m.time(b.run, "run", "--rm", "--net", b.network, image, "true"))
			without = append(without, m.time(b.run, "run", "--rm", "--net", "none", image, "true"))
		}
		slices.Sort(with)
		slices.Sort(without)
		whole = append(whole, milliseconds(with[0]))
		part = append(part, milliseconds(with[0]-without[0]))
	}
	return [][]string{whole, part}
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// time is how long a command takes on the host, without the time nsenter takes.
func (m *machine) time(argv ...string) time.Duration {
	m.t.Helper()
	script := `s=$(date +%s%N); "$@" >/dev/null 2>&1 || exit 1; e=$(date +%s%N); echo $((e-s))`
	cmd := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(m.holder.Process.Pid), "--net", "--mount", "--wd=" + m.dir, "sh", "-c", script, "time"}, argv...)...)
	cmd.Env = m.env
	out, err := cmd.Output()
	var ns int64
	if _, scan := fmt.Sscan(string(out), &ns); err != nil || scan != nil {
		m.t.Fatalf("%v: %v %s", argv, err, out)
	}
	return time.Duration(ns)
}

// document replaces the table between its marks.
func (m *machine) document(cells [][]string) {
	m.t.Helper()
	version := func(line string) string {
		out, err := exec.Command("sh", "-c", line).Output()
		if err != nil {
			m.t.Fatalf("%s: %v", line, err)
		}
		return strings.TrimSpace(string(out))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| |")
	for _, c := range bridges {
		fmt.Fprintf(&b, " %s |", c.name)
	}
	fmt.Fprintf(&b, "\n|---|%s\n", strings.Repeat("---|", len(bridges)))
	for _, line := range cells {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
	}
	fmt.Fprintf(&b, "\npodman %s with netavark %s, containernetworking-plugins %s, Linux %s, two processors shared with other work.\n",
		version("/usr/bin/podman --version | cut -d' ' -f3"), version("/usr/lib/podman/netavark --version | cut -d' ' -f2"),
		version("dpkg-query -W -f '${Version}' containernetworking-plugins"), version("uname -r | cut -d. -f1,2"))
	root, err := built.Root()
	if err != nil {
		m.t.Fatal(err)
	}
	file := filepath.Join(root, "docs/networks.md")
	old, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	const begin, end = "<!-- go test ./tests/networks -table -->\n", "<!-- end -->\n"
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		m.t.Fatalf("%s has no marks for the table", file)
	}
	if err := os.WriteFile(file, []byte(before+begin+"\n"+b.String()+"\n"+end+after), 0o644); err != nil {
		m.t.Fatal(err)
	}
}
