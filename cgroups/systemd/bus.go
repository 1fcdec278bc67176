// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names on the bus.
const (
	service     = "org.freedesktop.systemd1"
	object      = path("/org/freedesktop/systemd1")
	manager     = "org.freedesktop.systemd1.Manager"
	busService  = "org.freedesktop.DBus"
	busObject   = path("/org/freedesktop/DBus")
	properties  = "org.freedesktop.DBus.Properties"
	unitExists  = "org.freedesktop.systemd1.UnitExists"
	noSuchUnit  = "org.freedesktop.systemd1.NoSuchUnit"
	maxLine     = 4096 // of the authentication
	maxWaiting  = 64   // signals that came while a reply was waited for
	defaultWait = 30 * time.Second
)

// BusError is what systemd answered instead of doing it.
type BusError struct{ Name, Text string }

func (e *BusError) Error() string {
	if e.Text == "" {
		return e.Name
	}
	return e.Text
}

func isError(err error, name string) bool {
	var e *BusError
	return errors.As(err, &e) && e.Name == name
}

// bus is a connection to systemd: to itself, or by a message bus. It is a
// file and a counter: a client library would start goroutines and bring a
// resolver, for five kinds of calls.
type bus struct {
	f       *os.File
	serial  uint32
	name    string // of the service, where there is a bus between us
	waiting []*message
	until   time.Time
}

// sockets are to be tried in this order. Systemd itself listens too: that needs
// no bus, but the same user.
type sockets struct{ private, bus string }

var hostSockets = sockets{"/run/systemd/private", "/run/dbus/system_bus_socket"}

// userSockets are those of a user's own systemd (user@.service(5)). The
// environment names the directory where it is not the usual one.
func userSockets(uid uint32, runtimeDir string) sockets {
	if !filepath.IsAbs(runtimeDir) {
		runtimeDir = fmt.Sprintf("/run/user/%d", uid)
	}
	return sockets{filepath.Join(runtimeDir, "systemd/private"), filepath.Join(runtimeDir, "bus")}
}

// dial connects to the first that answers.
func (s sockets) dial() (*bus, error) {
	b, err := open(s.private, false)
	if err == nil {
		return b, nil
	}
	b, other := open(s.bus, true)
	if other != nil {
		return nil, fmt.Errorf("%w; %w", err, other)
	}
	return b, nil
}

// open connects to one socket.
func open(socket string, shared bool) (_ *bus, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	b := &bus{f: os.NewFile(uintptr(fd), socket), until: time.Now().Add(defaultWait)}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	// Deadlines of the kernel: the file blocks, and so does connecting to who accepts nobody.
	limit := unix.NsecToTimeval(int64(defaultWait))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			return nil, err
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return nil, fmt.Errorf("%s: %w", socket, err)
	}
	if err := b.authenticate(); err != nil {
		return nil, fmt.Errorf("authenticate: %w", err)
	}
	if !shared {
		return b, nil
	}
	b.name = service
	if _, err := b.send(busService, busObject, busService, "Hello"); err != nil {
		return nil, err
	}
	rule := "type='signal',sender='" + service + "',interface='" + manager + "',member='JobRemoved'"
	_, err = b.send(busService, busObject, busService, "AddMatch", rule)
	return b, err
}

func (b *bus) close() { _ = b.f.Close() }

// authenticate proves nothing: the kernel tells the other side who we are. It
// must not be told a uid, which in a user namespace would be another one. All
// of it is said at once, as systemd's own clients do: a systemd that reads the
// last word together with the first message does not look at that message
// before more comes, and nothing does.
func (b *bus) authenticate() error {
	if _, err := b.f.WriteString("\x00AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"); err != nil {
		return err
	}
	for _, want := range []string{"DATA", "OK"} {
		line, err := b.line()
		if err == nil && !strings.HasPrefix(line, want) {
			err = fmt.Errorf("it says %q", line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// line reads byte by byte, so that nothing behind it is lost.
func (b *bus) line() (string, error) {
	var line []byte
	for one := make([]byte, 1); !bytes.HasSuffix(line, []byte("\r\n")); {
		if _, err := b.f.Read(one); err != nil {
			return "", timely(err)
		}
		if line = append(line, one[0]); len(line) > maxLine {
			return "", errMessage
		}
	}
	return string(line[:len(line)-2]), nil
}

func timely(err error) error {
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("no answer in %v", defaultWait)
	}
	return err
}

// call calls a method of systemd's manager.
func (b *bus) call(member string, args ...value) (*message, error) {
	return b.send(b.name, object, manager, member, args...)
}

// send calls a method and waits for what it returns. Signals that come
// meanwhile are kept.
func (b *bus) send(destination string, o path, iface, member string, args ...value) (*message, error) {
	b.serial++
	b.until = time.Now().Add(defaultWait)
	if _, err := b.f.Write(callMessage(b.serial, destination, o, iface, member, args)); err != nil {
		return nil, fmt.Errorf("%s: %w", member, timely(err))
	}
	for {
		m, err := b.receive()
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", member, err)
		case m.kind == kindSignal && len(b.waiting) < maxWaiting:
			b.waiting = append(b.waiting, m)
		case m.reply != b.serial:
		case m.kind == kindReturn:
			return m, nil
		case m.kind == kindError:
			e := &BusError{Name: m.errorName}
			if strings.HasPrefix(m.signature, "s") {
				e.Text = m.body.string()
			}
			return nil, fmt.Errorf("%s: %w", member, e)
		}
	}
}

func (b *bus) receive() (*message, error) {
	if time.Now().After(b.until) {
		return nil, fmt.Errorf("no answer in %v", defaultWait)
	}
	whole := make([]byte, 16)
	if err := b.fill(whole); err != nil {
		return nil, err
	}
	rest, err := headerSize(whole)
	if err != nil {
		return nil, err
	}
	whole = append(whole, make([]byte, rest)...)
	if err := b.fill(whole[16:]); err != nil {
		return nil, err
	}
	return parse(whole)
}

func (b *bus) fill(p []byte) error {
	for len(p) > 0 {
		n, err := b.f.Read(p)
		if err != nil {
			return timely(err)
		}
		p = p[n:]
	}
	return nil
}

// property reads one of the manager's, which is a string.
func (b *bus) property(name string) (string, error) {
	m, err := b.send(b.name, object, properties, "Get", manager, name)
	if err != nil {
		return "", err
	}
	if sig := m.body.signature(); sig != "s" {
		return "", fmt.Errorf("property %s is of type %q", name, sig)
	}
	s := m.body.string()
	return s, m.body.err
}

// job starts one and waits until systemd is done with it.
func (b *bus) job(member string, args ...value) error {
	b.waiting = nil
	m, err := b.call(member, args...)
	if err != nil {
		return err
	}
	id := m.body.string()
	if m.body.err != nil {
		return fmt.Errorf("%s: %w", member, m.body.err)
	}
	b.until = time.Now().Add(defaultWait)
	for {
		if len(b.waiting) > 0 {
			m, b.waiting = b.waiting[0], b.waiting[1:]
		} else if m, err = b.receive(); err != nil {
			return fmt.Errorf("%s: wait for the job: %w", member, err)
		}
		if m.kind != kindSignal || m.member != "JobRemoved" || m.iface != manager {
			continue
		}
		m.body.uint32()
		job, _, result := m.body.string(), m.body.string(), m.body.string()
		switch {
		case m.body.err != nil:
			return fmt.Errorf("%s: wait for the job: %w", member, m.body.err)
		case job != id:
		case result == "done":
			return nil
		default:
			return fmt.Errorf("%s: the job ended as %q", member, result)
		}
	}
}
