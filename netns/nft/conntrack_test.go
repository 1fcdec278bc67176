// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/tests/ability"
)

// Both directions and families; what others have is left alone.
func TestForgetDropsWhatIsTrackedOfAnAddress(t *testing.T) {
	ability.Require(t, ability.Tool("conntrack"))
	inNamespace(t, func() {
		for _, entry := range []string{
			"-p udp -s 192.0.2.9 --sport 1000 -d 192.0.2.1 --dport 53 -r 10.44.0.2 --reply-port-src 53 -q 192.0.2.9 --reply-port-dst 1000",                     // published, to the pod
			"-p tcp --state ESTABLISHED -s 10.44.0.2 --sport 1001 -d 192.0.2.9 --dport 80 -r 192.0.2.9 --reply-port-src 80 -q 192.0.2.1 --reply-port-dst 1001", // from it
			"-p udp -s 10.44.0.3 --sport 1002 -d 192.0.2.9 --dport 80 -r 192.0.2.9 --reply-port-src 80 -q 10.44.0.3 --reply-port-dst 1002",                     // of a neighbour
			"-p udp -s 2001:db8::9 --sport 1003 -d 2001:db8::1 --dport 53 -r fd00::2 --reply-port-src 53 -q 2001:db8::9 --reply-port-dst 1003",
			"-p udp -s 2001:db8::9 --sport 1004 -d 2001:db8::1 --dport 53 -r fd00::3 --reply-port-src 53 -q 2001:db8::9 --reply-port-dst 1004",
		} {
			if out, err := exec.Command("conntrack", append([]string{"-I", "-t", "600"}, strings.Fields(entry)...)...).CombinedOutput(); err != nil {
				t.Errorf("conntrack -I %s: %v: %s", entry, err, out)
				return
			}
		}
		if err := Forget(netip.MustParseAddr("10.44.0.2"), netip.MustParseAddr("fd00::2")); err != nil {
			t.Error(err)
		}
		var left string
		for _, family := range []string{"ipv4", "ipv6"} {
			out, _ := exec.Command("conntrack", "-L", "-f", family).Output()
			left += string(out)
		}
		for port, want := range map[string]bool{"1000": false, "1001": false, "1002": true, "1003": false, "1004": true} {
			if got := strings.Contains(left, "sport="+port+" "); got != want {
				t.Errorf("of the connection from port %s is left: %v\n%s", port, got, left)
			}
		}
	})
}

func TestForgetWhereNothingIsTracked(t *testing.T) {
	inNamespace(t, func() {
		if err := Forget(netip.MustParseAddr("10.44.0.2")); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkForget(b *testing.B) {
	for b.Loop() {
		if err := Forget(netip.MustParseAddr("10.44.0.2")); err != nil {
			b.Skip("ability missing: root: " + err.Error())
		}
	}
}

// What the kernel says is trusted not to be hostile, but not to be whole.
func FuzzMessages(f *testing.F) {
	f.Add(reply(0, 1))
	f.Add(ctMessage(ctMessageGet, 0, netip.MustParseAddr("10.0.0.1"), attributes{}.nested(ctTupleOrig, attributes{}.nested(ctTupleIP, attributes{}.bytes(ctIP4Source, []byte{10, 0, 0, 1})))))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = eachMessage(b, func(family byte, data []byte) {
			connection(data, netip.MustParseAddr("10.0.0.1"), ctTupleReply)
			podTable("53:53/udp").elsewhere(data, family == unix.AF_INET6)
			parseChain(family, data)
		})
		_ = answer(b, b)
	})
}
