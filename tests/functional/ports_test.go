// SPDX-License-Identifier: Apache-2.0

package functional

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/tests/ability"
)

// Whoever finds a pod ended finds its ports free: also when its supervisor was
// killed, and the kernel took both back.
func TestPortsAreFreeWhenTheLockIs(t *testing.T) {
	h, ref := box(t)
	ability.Require(t, ability.Networks)
	h.Networked()
	uuid := strings.TrimSpace(h.Must("run", "-d", "--name", "web", "-p", "127.0.0.1:20000-20999:20000-20999", ref, "inspect", "wait"))
	var st status
	if err := json.Unmarshal([]byte(h.Must("inspect", "web")), &st); err != nil {
		t.Fatal(err)
	}
	pod, err := os.Open(filepath.Join(h.Dir, "lib/pods/run", uuid))
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	if err := syscall.Kill(st.Supervisor, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(pod.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	// The kernel works through a thousand sockets: those it comes to last are asked first.
	for port := 20000; port < 21000; port++ {
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Errorf("the pod's lock is free, its port is not: %v", err)
			continue
		}
		_ = l.Close()
	}
	_ = pod.Close()
	h.Must("rm", "web")
}

// The sockets that own the tables of pods are left to the kernel to close: it
// does, and the tables are gone before the launch is over.
func TestTablesAreClosed(t *testing.T) {
	h, ref := box(t)
	ability.Require(t, ability.Networks)
	h.Networked()
	sockets := func() (n int) {
		b, err := os.ReadFile("/proc/net/netlink")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && f[1] == strconv.Itoa(unix.NETLINK_NETFILTER) {
				n++
			}
		}
		return n
	}
	h.Must("fetch", "--quiet", ref)
	before := sockets()
	for range 10 {
		uuid := filepath.Join(h.Dir, "uuid")
		h.Must("run", "--rm", "--uuid-file", uuid, "-p", "127.0.0.1:20999:80", ref, "true")
		b, err := os.ReadFile(uuid)
		if err != nil {
			t.Fatal(err)
		}
		tables, err := exec.Command("nft", "list", "tables").CombinedOutput()
		if err != nil || strings.Contains(string(tables), strings.TrimSpace(string(b))[:8]) {
			t.Errorf("after the end of %s: %v\n%s", b, err, tables)
		}
	}
	eventually(t, "the tables' sockets are closed", func() bool { return sockets() <= before })
}
