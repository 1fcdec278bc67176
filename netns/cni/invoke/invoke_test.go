// SPDX-License-Identifier: Apache-2.0

package invoke

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns/cni"
)

// fixture is a directory of fake plugins, which log what they are told.
type fixture struct {
	t   *testing.T
	dir string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t, t.TempDir()}
	if err := os.MkdirAll(f.pod(), 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) pod() string { return filepath.Join(f.dir, "pods", "run", "p1") }

// plugin writes a shell script that logs its command and configuration first.
func (f *fixture) plugin(name, script string) {
	f.t.Helper()
	text := "#!/bin/sh\nin=$(cat)\necho \"" + name + " $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME [$CNI_NETNS] $CNI_ARGS\" >>" + f.dir + "/log\n" +
		"printf '%s\\n' \"$in\" >" + f.dir + "/" + name + ".$CNI_COMMAND.in\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o755); err != nil {
		f.t.Fatal(err)
	}
}

const result = `echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"x"}],"ips":[{"address":"10.9.0.5/24","gateway":"10.9.0.1","interface":0}]}'`

// good answers every command.
func (f *fixture) good(name string) {
	f.plugin(name, `case $CNI_COMMAND in
ADD) `+result+` ;;
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}' ;;
esac`)
}

func (f *fixture) on(version string, plugins ...string) cni.Attachment {
	f.t.Helper()
	text := `{"cniVersion":"` + version + `","name":"lan","plugins":[` + strings.Join(plugins, ",") + `]}`
	l, err := cni.Parse("lan.conflist", []byte(text), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return cni.Attachment{Network: "lan", List: l.Bytes, Pod: "p1", IfName: "eth0", Path: []string{filepath.Join(f.dir, "none"), f.dir}, Cache: filepath.Join(f.dir, "cache"), Timeout: 10 * time.Second}
}

func (f *fixture) do(operation string, on cni.Attachment, netns string) cni.Answer {
	f.t.Helper()
	on.NetNS = netns
	return Do(context.Background(), cni.Request{Version: cni.ProtocolVersion, Operation: operation, On: on, Pods: filepath.Join(f.dir, "pods")})
}

func (f *fixture) log() []string {
	f.t.Helper()
	b, err := os.ReadFile(filepath.Join(f.dir, "log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		f.t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(f.dir, "log"))
	var lines []string
	for line := range strings.Lines(string(b)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

func (f *fixture) told(what string) map[string]any {
	f.t.Helper()
	b, err := os.ReadFile(filepath.Join(f.dir, what+".in"))
	if err != nil {
		f.t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		f.t.Fatalf("%s was told %q: %v", what, b, err)
	}
	return m
}

func (f *fixture) want(got []string, want ...string) {
	f.t.Helper()
	if !slices.Equal(got, want) {
		f.t.Errorf("plugins ran\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

func TestChain(t *testing.T) {
	f := newFixture(t)
	f.good("first")
	f.plugin("second", `case $CNI_COMMAND in ADD) `+strings.ReplaceAll(result, "10.9.0.5", "10.9.0.6")+` ;; esac`)
	on := f.on("1.0.0", `{"type":"first"}`, `{"type":"second","capabilities":{"portMappings":true}}`)
	on.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "web"}}
	on.Capabilities = cni.Capabilities{MAC: "02:00:00:00:00:01", PortMappings: []cni.PortMapping{{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}}}

	a := f.do(cni.Add, on, "/proc/1/ns/net")
	if a.Error != nil {
		t.Fatal(a.Error)
	}
	if len(a.Result.IPs) != 1 || a.Result.IPs[0].Address.String() != "10.9.0.6/24" || a.Result.IPs[0].Gateway.String() != "10.9.0.1" {
		t.Errorf("the last plugin's result is the list's: %+v", a.Result)
	}
	f.want(f.log(),
		"first ADD p1 eth0 [/proc/1/ns/net] IgnoreUnknown=1;K8S_POD_NAME=web",
		"second ADD p1 eth0 [/proc/1/ns/net] IgnoreUnknown=1;K8S_POD_NAME=web")
	if told := f.told("first.ADD"); told["prevResult"] != nil || told["runtimeConfig"] != nil || told["name"] != "lan" || told["cniVersion"] != "1.0.0" {
		t.Errorf("first was told %v", told)
	}
	told := f.told("second.ADD")
	if ips, ok := told["prevResult"].(map[string]any)["ips"].([]any); !ok || ips[0].(map[string]any)["address"] != "10.9.0.5/24" {
		t.Errorf("second was told of %v", told["prevResult"])
	}
	runtime := told["runtimeConfig"].(map[string]any)
	if runtime["mac"] != nil || runtime["portMappings"].([]any)[0].(map[string]any)["hostPort"] != 80.0 {
		t.Errorf("a plugin is told what it has the capability for: %v", runtime)
	}

	if a := f.do(cni.Check, on, "/proc/1/ns/net"); a.Error != nil {
		t.Error(a.Error)
	}
	f.want(f.log(), "first CHECK p1 eth0 [/proc/1/ns/net] IgnoreUnknown=1;K8S_POD_NAME=web", "second CHECK p1 eth0 [/proc/1/ns/net] IgnoreUnknown=1;K8S_POD_NAME=web")

	if a := f.do(cni.Del, on, ""); a.Error != nil {
		t.Error(a.Error)
	}
	f.want(f.log(), "second DEL p1 eth0 [] IgnoreUnknown=1;K8S_POD_NAME=web", "first DEL p1 eth0 [] IgnoreUnknown=1;K8S_POD_NAME=web")
	if f.told("first.DEL")["prevResult"] == nil {
		t.Error("DEL was not told the result of ADD")
	}
	if a := f.do(cni.Del, on, ""); a.Error != nil {
		t.Errorf("DEL again: %v", a.Error)
	}
	if left, _ := filepath.Glob(on.Cache + "/results/*"); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
}

func TestDisableCheck(t *testing.T) {
	f := newFixture(t)
	f.good("p")
	on := f.on("1.0.0", `{"type":"p"}`)
	on.List = json.RawMessage(strings.Replace(string(on.List), "{", `{"disableCheck":true,`, 1))
	if a := f.do(cni.Check, on, ""); a.Error != nil {
		t.Error(a.Error)
	}
	f.want(f.log())
}

func TestStatusBeforeTheFirstAdd(t *testing.T) {
	f := newFixture(t)
	f.good("p")
	f.plugin("later", `[ "$CNI_COMMAND" != STATUS ] || { echo '{"cniVersion":"1.1.0","code":50,"msg":"not up","details":"no daemon"}'; exit 1; }
cat >/dev/null </dev/null; [ "$CNI_COMMAND" != ADD ] || `+result)
	on := f.on("1.1.0", `{"type":"p"}`, `{"type":"later"}`)
	a := f.do(cni.Add, on, "/n")
	if a.Error == nil || a.Error.Error() != "plugin later: STATUS: not up (code 50): no daemon" || !strings.Contains(a.Error.Hint(), "not ready") {
		t.Fatalf("%+v", a.Error)
	}
	f.want(f.log(), "p STATUS   []", "later STATUS   []")
	f.good("later")
	if a := f.do(cni.Add, on, "/n"); a.Error != nil {
		t.Fatal(a.Error)
	}
	second := on
	second.Pod = "p2"
	f.log()
	if a := f.do(cni.Add, second, "/n"); a.Error != nil {
		t.Fatal(a.Error)
	}
	f.want(f.log(), "p ADD p2 eth0 [/n]", "later ADD p2 eth0 [/n]")
}

func TestVersion(t *testing.T) {
	f := newFixture(t)
	f.good("p")
	a := f.do(cni.Version, f.on("1.0.0", `{"type":"p"}`), "")
	if a.Error != nil || !slices.Equal(a.Versions["p"], []string{"0.4.0", "1.0.0", "1.1.0"}) {
		t.Errorf("%+v", a)
	}
}

// TestFailures is what plugins do wrong, and that what they left can be taken back.
func TestFailures(t *testing.T) {
	for _, c := range []struct{ name, script, kind, want string }{
		{"its own error", `echo '{"cniVersion":"1.0.0","code":101,"msg":"no bridge","details":"br9: not found"}'; exit 1`, "", "plugin bad: ADD: no bridge (code 101): br9: not found"},
		{"another version", `echo '{"code":1,"msg":"incompatible CNI versions","details":"config is \"1.0.0\", plugin supports [\"0.4.0\"]"}'; exit 1`, "", `plugin bad: ADD: incompatible CNI versions (code 1): config is "1.0.0", plugin supports ["0.4.0"]`},
		{"no word in JSON", `echo oops >&2; exit 3`, cni.Died, "plugin bad: ADD: exit status 3 and no error in JSON: oops"},
		{"killed", `kill -SEGV $$`, cni.Died, "plugin bad: ADD: signal: segmentation fault and no error in JSON"},
		{"success and garbage", `echo ok`, cni.Garbage, "plugin bad: ADD: it ended with success and printed no result: ok"},
		{"success and silence", `:`, cni.Garbage, "plugin bad: ADD: it ended with success and printed no result"},
		{"success and a list", `echo '[]'`, cni.Garbage, "plugin bad: ADD: it ended with success and printed no result: []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			f.good("good")
			f.plugin("bad", `[ "$CNI_COMMAND" = ADD ] || exit 0`+"\n"+c.script)
			on := f.on("1.0.0", `{"type":"good"}`, `{"type":"bad"}`)
			a := f.do(cni.Add, on, "/n")
			if a.Error == nil || a.Error.Error() != c.want || a.Error.Kind != c.kind {
				t.Errorf("%+v\nwant %s", a.Error, c.want)
			}
			f.want(f.log(), "good ADD p1 eth0 [/n]", "bad ADD p1 eth0 [/n]")
			if a := f.do(cni.Del, on, "/n"); a.Error != nil {
				t.Errorf("DEL of what was left: %v", a.Error)
			}
			f.want(f.log(), "bad DEL p1 eth0 [/n]", "good DEL p1 eth0 [/n]")
		})
	}
}

func TestResultOfUnknownVersion(t *testing.T) {
	f := newFixture(t)
	f.plugin("p", `[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"9.0.0"}'`)
	a := f.do(cni.Add, f.on("1.0.0", `{"type":"p"}`), "/n")
	if a.Error == nil || a.Error.Plugin != "p" || a.Error.Kind != cni.Garbage || !strings.Contains(a.Error.Msg, "9.0.0") {
		t.Errorf("%+v", a.Error)
	}
}

func TestMissingPlugin(t *testing.T) {
	f := newFixture(t)
	f.good("good")
	a := f.do(cni.Add, f.on("1.0.0", `{"type":"good"}`, `{"type":"absent"}`), "/n")
	if a.Error == nil || a.Error.Error() != "plugin absent: there is no such executable" || !strings.Contains(a.Error.Hint(), f.dir) {
		t.Errorf("%+v", a.Error)
	}
}

// A plugin that hangs is killed with its children, which would keep its output
// open.
func TestHangingPlugin(t *testing.T) {
	f := newFixture(t)
	f.plugin("p", `[ "$CNI_COMMAND" = ADD ] || exit 0
sleep 3600 & echo $! >`+f.dir+`/child; wait`)
	on := f.on("1.0.0", `{"type":"p"}`)
	on.Timeout = 2 * time.Second // the child must have been born
	began := time.Now()
	a := f.do(cni.Add, on, "/n")
	if a.Error == nil || a.Error.Kind != cni.TimedOut || a.Error.Error() != "plugin p: ADD: it did not end within 2s and was killed" {
		t.Errorf("%+v", a.Error)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	child, err := os.ReadFile(f.dir + "/child")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(child)))
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	// It is killed; that it dies is the kernel's.
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 10_000); n != 1 {
		t.Errorf("its child lives: %v", err)
	}
}

func TestMuchOutputIsBounded(t *testing.T) {
	f := newFixture(t)
	f.plugin("p", `[ "$CNI_COMMAND" = ADD ] || exit 0
head -c 5000000 /dev/zero | tr '\0' x`)
	a := f.do(cni.Add, f.on("1.0.0", `{"type":"p"}`), "/n")
	if a.Error == nil || len(a.Error.Details) > 500 {
		t.Errorf("%+v", a.Error)
	}
}

// DelPod does what the record says, keeps what failed, and ends when nothing is
// left.
func TestDelPod(t *testing.T) {
	f := newFixture(t)
	f.good("p")
	first, second := f.on("1.0.0", `{"type":"p"}`), f.on("1.0.0", `{"type":"p"}`)
	second.IfName = "eth1"
	if err := cni.WriteRecord(f.pod(), []cni.Attachment{first, second}); err != nil {
		t.Fatal(err)
	}
	f.plugin("p", `echo '{"code":11,"msg":"later"}'; exit 1`)
	err := DelPod(context.Background(), f.pod(), "")
	if err == nil || err.Error() != "network lan: plugin p: DEL: later (code 11)\nnetwork lan: plugin p: DEL: later (code 11)" {
		t.Errorf("%v", err)
	}
	if _, err := cni.ReadRecord(f.pod()); err != nil {
		t.Errorf("the record went although DEL failed: %v", err)
	}
	f.good("p")
	f.log()
	if err := DelPod(context.Background(), f.pod(), ""); err != nil {
		t.Error(err)
	}
	f.want(f.log(), "p DEL p1 eth1 []", "p DEL p1 eth0 []")
	if err := DelPod(context.Background(), f.pod(), ""); err != nil {
		t.Errorf("again: %v", err)
	}
	f.want(f.log())
}

// GC detaches what no pod records, tells the plugins what is left, and leaves a
// list alone that others use.
func TestGC(t *testing.T) {
	f := newFixture(t)
	f.good("p")
	live, stale := f.on("1.1.0", `{"type":"p"}`), f.on("1.1.0", `{"type":"p"}`)
	stale.Pod = "gone"
	for _, on := range []cni.Attachment{live, stale} {
		if a := f.do(cni.Add, on, "/n"); a.Error != nil {
			t.Fatal(a.Error)
		}
	}
	if err := cni.WriteRecord(f.pod(), []cni.Attachment{live}); err != nil {
		t.Fatal(err)
	}
	f.log()
	shared := live
	shared.Shared = true
	if a := f.do(cni.GC, shared, ""); a.Error != nil {
		t.Error(a.Error)
	}
	f.want(f.log(), "p DEL gone eth0 []")
	if a := f.do(cni.GC, live, ""); a.Error != nil {
		t.Error(a.Error)
	}
	f.want(f.log(), "p GC   []")
	left, _ := json.Marshal(f.told("p.GC")["cni.dev/valid-attachments"])
	if string(left) != `[{"containerID":"p1","ifname":"eth0"}]` {
		t.Errorf("it was told that %s live", left)
	}
	disabled := live
	disabled.List = json.RawMessage(strings.Replace(string(live.List), "{", `{"disableGC":true,`, 1))
	if a := f.do(cni.GC, disabled, ""); a.Error != nil {
		t.Error(a.Error)
	}
	f.want(f.log())
}

func TestAnotherProtocol(t *testing.T) {
	a := Do(context.Background(), cni.Request{Version: 99, Operation: cni.Add})
	if a.Error == nil || !strings.Contains(a.Error.Msg, "version 99") {
		t.Errorf("%+v", a.Error)
	}
}
