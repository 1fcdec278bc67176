// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

// fakeBus is a systemd that reads and writes with somebody else's D-Bus: what
// we say must make sense to it, and we must understand its answers.
type fakeBus struct {
	t       *testing.T
	calls   []*dbus.Message
	fail    map[string]string // member to name of the error, once
	result  string            // of jobs
	early   bool              // the end of a job comes before the job's number
	reading *bufio.Reader
	conn    net.Conn
	serial  uint32

	lock sync.Mutex // of calls
}

// serve answers one connection on a socket and gives the socket's name.
func (f *fakeBus) serve() string {
	f.t.Helper()
	socket := filepath.Join(f.t.TempDir(), "private")
	l, err := net.Listen("unix", socket)
	if err != nil {
		f.t.Fatal(err)
	}
	done := make(chan struct{})
	f.t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		if f.conn, err = l.Accept(); err != nil {
			return
		}
		defer f.conn.Close()
		f.reading = bufio.NewReader(f.conn)
		for _, step := range [][2]string{{"\x00AUTH EXTERNAL\r\n", "DATA\r\n"}, {"DATA\r\n", "OK 0123456789abcdef\r\n"}, {"BEGIN\r\n", ""}} {
			if got, err := f.reading.ReadString('\n'); err != nil || got != step[0] {
				f.t.Errorf("authentication says %q, %v; want %q", got, err, step[0])
				return
			}
			_, _ = f.conn.Write([]byte(step[1]))
		}
		for {
			m, err := dbus.DecodeMessage(f.reading)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					f.t.Errorf("cannot be decoded: %v", err)
				}
				return
			}
			f.lock.Lock()
			f.calls = append(f.calls, m)
			f.lock.Unlock()
			f.answer(m)
		}
	}()
	return socket
}

func (f *fakeBus) answer(m *dbus.Message) {
	member := m.Headers[dbus.FieldMember].Value().(string)
	if name := f.fail[member]; name != "" {
		delete(f.fail, member)
		f.send(dbus.TypeError, map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(m.Serial()), dbus.FieldErrorName: dbus.MakeVariant(name),
		}, "no: "+member)
		return
	}
	reply := func(body ...any) {
		f.send(dbus.TypeMethodReply, map[dbus.HeaderField]dbus.Variant{dbus.FieldReplySerial: dbus.MakeVariant(m.Serial())}, body...)
	}
	switch member {
	case "Get":
		reply(dbus.MakeVariant(map[string]string{"Version": "257.7-1", "ControlGroup": "/"}[m.Body[1].(string)]))
	case "StartTransientUnit", "StopUnit":
		const job = dbus.ObjectPath("/org/freedesktop/systemd1/job/7")
		end := func() { f.removed(job, m.Body[0].(string), f.result) }
		f.removed("/org/freedesktop/systemd1/job/6", "other.scope", "failed")
		if f.early {
			end()
		}
		reply(job)
		if !f.early {
			end()
		}
	default:
		reply()
	}
}

func (f *fakeBus) removed(job dbus.ObjectPath, unit, result string) {
	f.send(dbus.TypeSignal, map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath(object)), dbus.FieldInterface: dbus.MakeVariant(manager), dbus.FieldMember: dbus.MakeVariant("JobRemoved"),
	}, uint32(7), job, unit, result)
}

func (f *fakeBus) send(kind dbus.Type, headers map[dbus.HeaderField]dbus.Variant, body ...any) {
	f.serial++
	m := &dbus.Message{Type: kind, Headers: headers, Body: body}
	if len(body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	var b bytes.Buffer
	if err := m.EncodeTo(&b, binary.BigEndian); err != nil { // the order is the sender's choice
		f.t.Error(err)
		return
	}
	raw := b.Bytes()
	binary.BigEndian.PutUint32(raw[8:], f.serial)
	_, _ = f.conn.Write(raw)
}

func (f *fakeBus) manager(shared bool) *Manager {
	f.t.Helper()
	if f.result == "" {
		f.result = "done"
	}
	b, err := open(f.serve(), shared)
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := newManager(b)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(m.Close)
	return m
}

func (f *fakeBus) members() string {
	var out []string
	f.lock.Lock()
	defer f.lock.Unlock()
	for _, m := range f.calls {
		out = append(out, m.Headers[dbus.FieldMember].Value().(string))
	}
	return strings.Join(out, " ")
}

var exampleScope = Scope{
	Name: Name{"machine.slice", "libpod-a.scope"}, Description: "container a", Pid: 4711,
	Files: []File{{"memory.max", "4096"}, {"cpuset.cpus", "0-8"}},
	More:  []Property{{"KillSignal", int32(15)}, {"After", []string{"a.service", "b.service"}}, {"Slice", "evil.slice"}},
}

func TestStartScope(t *testing.T) {
	for _, early := range []bool{false, true} {
		f := &fakeBus{t: t, early: early}
		m := f.manager(false)
		if err := m.StartScope(exampleScope); err != nil {
			t.Fatal(err)
		}
		if f.members() != "Subscribe Get Get StartTransientUnit" {
			t.Errorf("calls: %s", f.members())
		}
		call := f.calls[3]
		if got := call.Headers[dbus.FieldSignature].String(); got != `"ssa(sv)a(sa(sv))"` && !strings.Contains(got, "ssa(sv)a(sa(sv))") {
			t.Errorf("signature %s", got)
		}
		if call.Body[0] != "libpod-a.scope" || call.Body[1] != "fail" || !reflect.DeepEqual(call.Body[3], [][]any{}) {
			t.Errorf("arguments %v", call.Body)
		}
		var props []string
		for _, p := range call.Body[2].([][]any) {
			v := p[1].(dbus.Variant)
			props = append(props, fmt.Sprintf("%s=%s %v", p[0], v.Signature(), v.Value()))
		}
		want := []string{
			"Description=s container a", "DefaultDependencies=b false", "CollectMode=s inactive-or-failed",
			"KillSignal=i 15", "After=as [a.service b.service]", "Slice=s evil.slice",
			"CPUAccounting=b true", "MemoryAccounting=b true", "TasksAccounting=b true", "IOAccounting=b true",
			"MemoryMax=t 4096", "AllowedCPUs=ay [255 1]",
			"Slice=s machine.slice", "Delegate=b true", "PIDs=au [4711]",
		}
		if !slices.Equal(props, want) {
			t.Errorf("properties:\n%s\nwant:\n%s", strings.Join(props, "\n"), strings.Join(want, "\n"))
		}
	}
}

// A bus between us and systemd wants a greeting, and addresses.
func TestSharedBus(t *testing.T) {
	f := &fakeBus{t: t}
	m := f.manager(true)
	if err := m.SetLimits("a.scope", []File{{"pids.max", "7"}, {"hugetlb.2MB.max", "1"}}); err != nil {
		t.Fatal(err)
	}
	if err := m.SetLimits("a.scope", []File{{"hugetlb.2MB.max", "1"}}); err != nil {
		t.Fatal(err)
	}
	if f.members() != "Hello AddMatch Subscribe Get Get SetUnitProperties" {
		t.Errorf("calls: %s", f.members())
	}
	last := f.calls[len(f.calls)-1]
	if got := last.Headers[dbus.FieldDestination].Value(); got != service {
		t.Errorf("the call goes to %v", got)
	}
	if last.Body[0] != "a.scope" || last.Body[1] != true || len(last.Body[2].([][]any)) != 1 {
		t.Errorf("arguments %v", last.Body)
	}
}

// A scope that failed and was not cleared is cleared; one that lives is not
// taken from its owner.
func TestUnitExists(t *testing.T) {
	f := &fakeBus{t: t, fail: map[string]string{"StartTransientUnit": unitExists}}
	if err := f.manager(false).StartScope(exampleScope); err != nil {
		t.Error(err)
	}
	f = &fakeBus{t: t, fail: map[string]string{"StartTransientUnit": unitExists, "ResetFailedUnit": noSuchUnit}}
	err := f.manager(false).StartScope(exampleScope)
	if err == nil || err.Error() != "make unit libpod-a.scope: StartTransientUnit: no: StartTransientUnit" {
		t.Errorf("%v", err)
	}
	if strings.Contains(f.members(), "StopUnit") {
		t.Errorf("somebody else's unit was stopped: %s", f.members())
	}
}

func TestJobFails(t *testing.T) {
	f := &fakeBus{t: t, result: "failed"}
	err := f.manager(false).StartScope(exampleScope)
	if err == nil || !strings.Contains(err.Error(), `ended as "failed"`) {
		t.Errorf("%v", err)
	}
}

func TestStop(t *testing.T) {
	f := &fakeBus{t: t, fail: map[string]string{"StopUnit": noSuchUnit, "ResetFailedUnit": noSuchUnit}}
	m := f.manager(false)
	if err := m.Stop("a.scope"); err != nil {
		t.Errorf("a unit that is gone: %v", err)
	}
	if err := m.Stop("a.scope"); err != nil {
		t.Errorf("a unit that is there: %v", err)
	}
	f.fail["StopUnit"] = "org.freedesktop.DBus.Error.AccessDenied"
	if err := m.Stop("a.scope"); err == nil || !strings.Contains(err.Error(), "stop unit a.scope: StopUnit: no: StopUnit") {
		t.Errorf("denied: %v", err)
	}
}

// What comes from a socket is not trusted to be D-Bus.
func FuzzParse(f *testing.F) {
	f.Add(callMessage(1, service, object, manager, "Get", []value{"a", []uint32{1}, []Property{{"x", true}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 16 {
			return
		}
		if n, err := headerSize(b); err == nil && (n < 0 || n > 3*maxMessage) {
			t.Fatalf("%d bytes to come", n)
		}
		m, err := parse(b)
		if err != nil {
			return
		}
		m.body.signature()
		_ = m.body.string()
		m.body.uint32()
	})
}
