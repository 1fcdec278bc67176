// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/netns/network"
	"github.com/gantryrun/gantry/tests/ability"
)

var update = flag.Bool("update", false, "rewrite goldens")

// hold makes the test binary a process that has a table until it is killed.
const hold = "GANTRY_NFT_TEST_HOLD"

func TestMain(m *testing.M) {
	if os.Getenv(hold) != "" {
		f, err := Open(whole())
		fmt.Println(err)
		_, _ = os.Stdin.Read(make([]byte, 1))
		_ = f.Close()
		return
	}
	os.Exit(m.Run())
}

// inNamespace runs f on a thread of its own in a new network namespace.
// Programs it starts are there too.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	ability.Require(t, ability.Root, ability.Tool("nft"))
	done := make(chan error, 1)
	thrownAway(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		f()
		done <- nil
	})
	if err := <-done; err != nil {
		t.Skip("ability missing: network namespace: " + err.Error())
	}
}

// thrownAway runs f on a thread that ends with it; the main thread cannot.
func thrownAway(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			thrownAway(f)
			select {}
		}
		f()
	}()
}

func nft(t *testing.T, args ...string) string {
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		return string(out) + err.Error()
	}
	return string(out)
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func ports(t *testing.T, list ...string) []network.Port {
	all, err := network.ParsePorts(list, nil)
	if err != nil {
		panic(err)
	}
	return all
}

// whole has every kind of rule.
func whole() Table {
	return Table{
		Name: "gantry-0123456789ab",
		Attachments: []Attachment{
			{Bridge: "gantry0", Addresses: prefixes("10.44.0.2/16", "fd00:44::2/64"), Masquerade: true},
			{Bridge: "gantry1", Addresses: prefixes("10.45.3.2/20"), Internal: true},
			{Bridge: "a-long-bridge15", Addresses: prefixes("fd00:45::2/61"), Open: true},
		},
		Ports: ports(nil, "8080:80", "127.0.0.1:9:9", "192.0.2.1:53:53/udp", "[2001:db8::1]:53:53/udp",
			"0.0.0.0:81:81", "7000-7009:7000-7009/udp", "6000-6001:5000-5001"),
	}
}

func TestWhatTheKernelHasIsWhatWasMeant(t *testing.T) {
	for name, table := range map[string]Table{
		"whole":  whole(),
		"closed": {Name: "gantry-ffffffffffff", Attachments: []Attachment{{Bridge: "gantry0", Addresses: prefixes("10.44.0.3/16")}}},
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func() {
				f, err := Open(table)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				golden(t, name, nft(t, "-n", "list", "ruleset"))
			})
		})
	}
}

func golden(t *testing.T, name, got string) {
	// Who holds it, and how nft writes the flag, differ.
	var lines []string
	for line := range strings.Lines(got) {
		if !strings.HasPrefix(strings.TrimSpace(line), "flags ") {
			line, _, _ = strings.Cut(strings.TrimRight(line, "\n"), " # progname")
			lines = append(lines, line)
		}
	}
	got = strings.Join(lines, "\n") + "\n"
	file := filepath.Join("testdata", name+".nft")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Error(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != got {
		t.Errorf("%s: the kernel has\n%s, want\n%s (%v)", name, got, want, err)
	}
}

// A firewall that reloads, and any other process, leaves it alone.
func TestNobodyElseChangesATable(t *testing.T) {
	inNamespace(t, func() {
		table := whole()
		f, err := Open(table)
		if err != nil {
			t.Error(err)
			return
		}
		for _, args := range [][]string{
			{"delete", "table", "inet", table.Name},
			{"flush", "chain", "inet", table.Name, "publish"},
			{"add", "rule", "inet", table.Name, "forward", "accept"},
		} {
			if got := nft(t, args...); !strings.Contains(got, "Operation not permitted") && !strings.Contains(got, "No such file") {
				t.Errorf("nft %v: %q", args, got)
			}
		}
		before := nft(t, "list", "ruleset")
		nft(t, "add", "table", "inet", "other")
		if got := nft(t, "flush", "ruleset"); got != "" {
			t.Errorf("flush ruleset: %q", got)
		}
		if got := nft(t, "list", "ruleset"); got != before || !strings.Contains(got, table.Name) {
			t.Errorf("after flush ruleset there is %q, before there was %q", got, before)
		}
		if _, err := Open(table); !errors.Is(err, ErrExists) {
			t.Errorf("a second one of the same name: %v", err)
		}
		_ = f.Close()
		if got := nft(t, "list", "ruleset"); got != "" {
			t.Errorf("after closing there is %q", got)
		}
	})
}

func TestATableGoesWithItsHolder(t *testing.T) {
	inNamespace(t, func() {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), hold+"=1")
		in, _ := cmd.StdinPipe()
		defer in.Close()
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Error(err)
			return
		}
		line := make([]byte, 200)
		n, _ := out.Read(line)
		if got := nft(t, "list", "tables"); !strings.Contains(got, whole().Name) {
			t.Errorf("it said %q, and there are %q", line[:n], got)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if got := nft(t, "list", "ruleset"); got != "" {
			t.Errorf("after kill -9 there is %q", got)
		}
	})
}

// Its owner can delete it before it closes.
func TestDropDeletesTheTable(t *testing.T) {
	inNamespace(t, func() {
		table := whole()
		f, err := Open(table)
		if err == nil {
			defer f.Close()
			err = transact(int(f.Fd()), table.Drop())
		}
		if got := nft(t, "list", "ruleset"); err != nil || got != "" {
			t.Errorf("%v: there is %q", err, got)
		}
	})
}

// A thousand ports with other numbers inside are two thousand rules, in one
// transaction.
func TestATableOfManyRules(t *testing.T) {
	inNamespace(t, func() {
		table := whole()
		table.Ports = ports(t, "20000-20999:30000-30999")
		f, err := Open(table)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if got := strings.Count(nft(t, "list", "ruleset"), "dnat ip"); got != 2000 {
			t.Errorf("%d rules, want 2000", got)
		}
	})
}

func TestNamesTheKernelWouldRefuse(t *testing.T) {
	for _, table := range []Table{{}, {Name: strings.Repeat("x", 256)}, {Name: "x", Attachments: []Attachment{{Bridge: "0123456789abcdef"}}}} {
		if _, err := table.Messages(); err == nil {
			t.Errorf("%+v is taken", table)
		}
	}
}

func TestWhatTheKernelRefusesIsNamed(t *testing.T) {
	table := whole()
	batch, err := table.Messages()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		errno    unix.Errno
		sequence uint32
		want     string
		is       error
	}{
		{unix.EINVAL, 1, "add the table: invalid argument", ErrUnsupported}, // before 5.12
		{unix.EOPNOTSUPP, 1, "operation not supported", ErrUnsupported},
		{unix.EOPNOTSUPP, 0, "operation not supported", ErrUnsupported}, // no nf_tables
		{unix.ENOENT, 5, "add a rule: no such file", ErrUnsupported},
		{unix.EEXIST, 1, "exists", ErrExists},
		{unix.EPERM, 1, "exists", ErrExists},
		{unix.EPERM, 0, "CAP_NET_ADMIN", unix.EPERM},
		{unix.EBUSY, 0, "commit: device or resource busy", unix.EBUSY},
	} {
		err := answer(reply(c.errno, c.sequence), batch)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v of message %d: %v, want %q", c.errno, c.sequence, err, c.want)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 19), make([]byte, 40)} {
		if answer(b, batch) == nil {
			t.Errorf("an answer of %d bytes is taken", len(b))
		}
	}
}

// reply is an answer as the kernel writes it.
func reply(errno unix.Errno, sequence uint32) []byte {
	b := &batch{sequence: sequence}
	b.header(unix.NLMSG_ERROR, 0, 0, 0, nil)
	binary.NativeEndian.PutUint32(b.buf[unix.SizeofNlMsghdr:], uint32(-int32(errno)))
	return b.buf
}

func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		f, err := Open(whole())
		if err != nil {
			b.Skip("ability missing: nftables owner tables: " + err.Error())
		}
		b.StopTimer()
		_ = f.Close()
		b.StartTimer()
	}
}

func BenchmarkMessages(b *testing.B) {
	for b.Loop() {
		_, _ = whole().Messages()
	}
}
