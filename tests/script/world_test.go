// SPDX-License-Identifier: Apache-2.0

package script

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gantryrun/gantry/netns"
)

// world makes $HOST, a network namespace that stands for the machine's, and
// $OUTSIDE, from where one comes to it by 192.0.2.1 and 2001:db8::1. They go
// with this process and the pods in them.
func world(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: world")
	}
	// There the built-in network is nobody else's.
	_ = os.Remove(ts.MkAbs("etc/net.d/default.conflist"))
	places := map[string]string{}
	for _, place := range []string{"HOST", "OUTSIDE"} {
		ns, err := netns.New()
		ts.Check(err)
		ts.Defer(func() { _ = ns.Close() })
		places[place] = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
		ts.Setenv(place, places[place])
		// Addresses are there at once, and not after a second.
		in(ts, places[place], "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")
	}
	in(ts, places["HOST"], `ip link add lan type veth peer name lan netns `+places["OUTSIDE"]+`
		ip addr add 192.0.2.1/24 dev lan; ip addr add 2001:db8::1/64 dev lan nodad; ip link set lan up`)
	in(ts, places["OUTSIDE"], `ip addr add 192.0.2.9/24 dev lan; ip addr add 2001:db8::9/64 dev lan nodad; ip link set lan up
		ip route add default via 192.0.2.1; ip route add default via 2001:db8::1`)
}

func in(ts *testscript.TestScript, place, script string) {
	if out, err := exec.Command("nsenter", "--net="+place, "sh", "-ec", script).CombinedOutput(); err != nil {
		ts.Fatalf("%s: %v: %s", script, err, out)
	}
}
