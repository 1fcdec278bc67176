// SPDX-License-Identifier: Apache-2.0

// Package networks tests pods on networks of real plugins, beside cnitool and
// podman, in network namespaces of the tests' own.
package networks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/built"
	"github.com/gantryrun/gantry/tests/testkey"
)

// machine is a host of the test's own: a network namespace, with another behind
// it for who comes from outside, and /run and /var/lib that end with it. Its
// gantry keeps everything below dir.
type machine struct {
	t      *testing.T
	dir    string
	env    []string
	holder *exec.Cmd
}

// world is how it looks: "wan0" is the host's way out, to 192.0.2.2, behind which
// is the outside.
const world = `mount -t tmpfs none /run; mount -t tmpfs none /var/lib
ip link set lo up
ip link add wan0 type veth peer name wan1
ip addr add 192.0.2.1/24 dev wan0; ip -6 addr add 2001:db8::1/64 dev wan0 nodad; ip link set wan0 up
unshare --net sleep infinity & outside=$!
until [ "$(readlink /proc/$outside/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
ip link set wan1 netns $outside
nsenter -t $outside --net sh -c 'ip link set lo up; ip addr add 192.0.2.2/24 dev wan1; ip -6 addr add 2001:db8::2/64 dev wan1 nodad; ip link set wan1 up; ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1'
ip route add default via 192.0.2.2
echo $outside >$DIR/outside; echo; exec sleep infinity`

func newMachine(t *testing.T) *machine {
	t.Helper()
	ability.Require(t, ability.Networks, ability.Tool("busybox"))
	dir, err := os.MkdirTemp("/var/tmp", "net")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	bin := built.Dir(t)
	m.env = append(os.Environ(),
		"PATH="+bin+":"+bin+"/tests:"+os.Getenv("PATH")+":/usr/sbin:/sbin", "DIR="+dir, "HOME="+dir, "OCI=oci:"+dir+"/oci",
		"GANTRY_DIR="+dir+"/lib", "GANTRY_RUN_DIR="+dir+"/boot", "GANTRY_CONFIG_PATH="+dir+"/etc", "COSIGN_PASSWORD=")
	for _, d := range []string{"etc/trust.d", "etc/trust/keys", "etc/net.d", "etc/cni.d", "shared", "plugins"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.plugins(filepath.Join(dir, "plugins"), "20s")
	m.hold()
	if err := testkey.Write(filepath.Join(dir, "key")); err != nil {
		t.Fatal(err)
	}
	m.must("mkimage busybox $OCI:box && gantry trust add --prefix $OCI $DIR/key.pub && gantry sign --key $DIR/key.key $OCI:box && gantry fetch -q $OCI:box")
	t.Cleanup(m.clean)
	return m
}

// plugins says where plugins are.
func (m *machine) plugins(path, timeout string) {
	m.write("etc/cni.d/test.conf", "[Plugins]\nPath="+path+"\nLists="+m.dir+"/shared\nTimeout="+timeout+"\n")
}

func (m *machine) hold() {
	m.t.Helper()
	m.holder = exec.Command("unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", world)
	m.holder.Env = m.env
	m.holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := m.holder.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.holder.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		_ = syscall.Kill(-m.holder.Process.Pid, syscall.SIGKILL)
		_ = m.holder.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		m.t.Fatalf("make a host: %v", err)
	}
}

// clean removes pods that a failed test left.
func (m *machine) clean() {
	out, _ := m.run("gantry list --all --quiet --no-trunc")
	for pod := range strings.FieldsSeq(out) {
		if out, err := m.run("gantry stop --time 0 " + pod + "; gantry rm --force " + pod); err != nil && m.t.Failed() {
			m.t.Logf("clean up pod %s: %v: %s", pod, err, out)
		}
	}
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(strings.ReplaceAll(text, "$DIR", m.dir)), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// run runs a line of shell on the host and returns all it prints.
func (m *machine) run(line string) (string, error) { return m.patiently(2*time.Minute, line) }

// patiently is run with another bound; what does not end then is killed.
func (m *machine) patiently(bound time.Duration, line string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", fmt.Sprint(m.holder.Process.Pid), "--net", "--mount", "--wd="+m.dir, "sh", "-c", line)
	cmd.Env = slices.Clone(m.env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// must runs a line that has to succeed.
func (m *machine) must(line string) string {
	m.t.Helper()
	out, err := m.run(line)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

// fails runs a line that has to end with a status, and returns what it says.
func (m *machine) fails(status int, line string) string {
	m.t.Helper()
	out, err := m.run(line)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != status {
		m.t.Fatalf("%s: %v, want status %d\n%s", line, err, status, out)
	}
	return out
}

// outside runs a line where those are who come from outside.
func (m *machine) outside(line string) (string, error) {
	return m.run("nsenter -t $(cat $DIR/outside) --net sh -c '" + line + "'")
}

func (m *machine) says(got, want string) {
	m.t.Helper()
	if got != want {
		m.t.Errorf("printed\n %s\nwant\n %s", strings.ReplaceAll(got, "\n", "\n "), strings.ReplaceAll(want, "\n", "\n "))
	}
}

func (m *machine) has(got string, want ...string) {
	m.t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			m.t.Errorf("%q is not in\n %s", w, strings.ReplaceAll(got, "\n", "\n "))
		}
	}
}

// inventory is what networks leave on a host: interfaces but bridges, rules, and
// the files of leases and results.
func (m *machine) inventory() string {
	m.t.Helper()
	return m.must(`ip -o link | sed 's/^[0-9]*: //; s/[@:].*//' | grep -vxE 'lo|wan0|gantry0|gb.*|br-.*' | sort
nft list ruleset 2>/dev/null | sed 's/packets [0-9]* bytes [0-9]*//' | grep -E 'comment|dnat|masquerade|CNI-[0-9a-f]' | sort
find $DIR/leases -type f ! -name lock ! -name 'last_reserved*' 2>/dev/null | sort
find $DIR/lib/networks -path '*results/*' 2>/dev/null | sort`)
}
