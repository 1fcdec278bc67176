// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
	"github.com/gantryrun/gantry/tests/built"
)

// accounts make a user in the machine's own /etc.
var accounts = map[string]string{
	"passwd": "gantry-engines:x:54321:54321::/nonexistent:/bin/sh",
	"group":  "gantry-engines:x:54321:",
	"subuid": "gantry-engines:600000:65536",
	"subgid": "gantry-engines:600000:65536",
}

const (
	user = "gantry-engines"

	rootlessWrapper = `#!/bin/sh
exec setpriv --reuid ` + user + ` --regid ` + user + ` --init-groups env USER=` + user + ` HOME="$DIR/home" XDG_RUNTIME_DIR="${XDG}" TMPDIR="$DIR/home" \
	/usr/bin/podman --root "$DIR/graph" --runroot "$DIR/run" --tmpdir "$DIR/tmp" "$@"
`
)

// newRootless makes a machine whose podman is an ordinary user's. It gets copies
// of the executables: those under test may be where only root may look.
func newRootless(t *testing.T, runtime string) *machine {
	t.Helper()
	return newRootlessWith(t, runtime, "MANAGER=cgroupfs")
}

func newRootlessWith(t *testing.T, runtime string, env ...string) *machine {
	t.Helper()
	m := newMachine(t, runtime)
	for file, line := range accounts {
		m.account(file, line)
	}
	path := m.path()
	if runtime == subject {
		path = filepath.Join(m.mkdir("libexec"), runtime)
		m.must("cp " + built.Dir(t) + "/gantry-* libexec/")
	}
	m.env = append(append(m.env, "XDG="+m.dir+"/xdg"), env...)
	m.env = append(m.env,
		"CONTAINERS_CONF="+m.dir+"/containers.conf", "CONTAINERS_STORAGE_CONF="+m.dir+"/storage.conf",
		"CONTAINERS_REGISTRIES_CONF="+m.dir+"/registries.conf", "IMAGE=localhost/busybox:latest")
	for name, text := range podmanFiles {
		m.write(name, text, 0o644)
	}
	m.write("bin/runtime", "#!/bin/sh\nexec "+path+" \"$@\"\n", 0o755)
	m.write("bin/podman", rootlessWrapper, 0o755)
	m.write("bin/remove-pod", removePod, 0o755)
	m.must(built.Path(t, "tests/mkimage") + " -archive busybox.tar busybox oci:$DIR/layout:latest")
	for _, dir := range []string{"home", "xdg", "data"} {
		m.mkdir(dir)
	}
	m.must("test ! -e /dev/net/tun || mknod -m 666 tun c 10 200 && mount --bind tun /dev/net/tun") // where it is root's alone
	m.must("chown " + user + " $DIR home xdg data && chmod 700 xdg")
	t.Cleanup(func() {
		m.command(removeContainers + "; podman unshare rm -rf graph run")
		m.command("kill -9 $(cat xdg/libpod/tmp/pause.pid tmp/pause.pid 2>/dev/null)") // it keeps podman's namespaces
	})
	m.must("podman pull -q --signature-policy policy.json oci-archive:busybox.tar >id && podman tag $(cat id) $IMAGE")
	return m
}

// TestPodmanRootless: what podman prints without root.
func TestPodmanRootless(t *testing.T) {
	ability.Require(t, ability.Root, ability.Userns, ability.Tool("podman"), ability.Tool("newuidmap"), ability.Tool("slirp4netns"))
	engine{
		name: "rootless", start: newRootless, reset: removeContainers, left: "podman ps -aq", groups: everyContainer,
	}.test(t)
}

// newRootlessSystemd is that of a user whose own systemd makes the groups. It is
// of the host's, and so is then the user.
func newRootlessSystemd(t *testing.T, runtime string) *machine {
	t.Helper()
	const uid, bus = "54321", "/run/user/54321"
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	run("useradd", "--uid", uid, "--no-create-home", "--home-dir", "/nonexistent", user)
	t.Cleanup(func() { run("userdel", user) })
	run("systemctl", "start", "user@"+uid+".service")
	t.Cleanup(func() { run("systemctl", "stop", "user@"+uid+".service", "user-"+uid+".slice") })
	return newRootlessWith(t, runtime, "MANAGER=systemd", "XDG="+bus, "DBUS_SESSION_BUS_ADDRESS=unix:path="+bus+"/bus")
}

// TestPodmanRootlessGuest: with cgroup v2, where podman has the user's systemd
// make the groups.
func TestPodmanRootlessGuest(t *testing.T) {
	ability.Require(t, ability.Root, ability.Userns, ability.Cgroup2, ability.Systemd, ability.Tool("podman"), ability.Tool("newuidmap"))
	engine{
		name: "guest-rootless", untold: true, start: newRootlessSystemd,
		reset: removeContainers, left: "podman ps -aq", groups: everyContainer,
	}.test(t)
}

// stateDirs are where a runtime keeps what it knows of containers.
func (m *machine) stateDirs() []string {
	return []string{filepath.Join(m.dir, "state"), filepath.Join(m.dir, "xdg")}
}
