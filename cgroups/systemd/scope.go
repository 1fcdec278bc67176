// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Manager is the host's systemd, or that of a user.
type Manager struct {
	bus     *bus
	version int
	top     string // the group all its slices are in
}

// Open connects to it.
func Open() (*Manager, error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil, errors.New("systemd does not run on this host; have the engine use cgroupfs")
	}
	m, err := connect(hostSockets)
	if err != nil {
		return nil, fmt.Errorf("reach systemd: %w", err)
	}
	return m, nil
}

// OpenUser connects to the systemd of a user of the host, who we are, perhaps
// in a user namespace.
func OpenUser(uid uint32) (*Manager, error) {
	m, err := connect(userSockets(uid, os.Getenv("XDG_RUNTIME_DIR")))
	if err != nil {
		return nil, fmt.Errorf("reach the systemd of user %d, which runs while they are logged in or linger (loginctl enable-linger); else have the engine use cgroupfs: %w", uid, err)
	}
	return m, nil
}

func connect(s sockets) (*Manager, error) {
	b, err := s.dial()
	if err != nil {
		return nil, err
	}
	m, err := newManager(b)
	if err != nil {
		b.close()
		return nil, err
	}
	return m, nil
}

func newManager(b *bus) (*Manager, error) {
	m := &Manager{bus: b}
	// On a bus signals come to who subscribed; systemd itself sends them anyway.
	if _, err := b.call("Subscribe"); err != nil && b.name != "" {
		return nil, err
	}
	text, err := b.property("Version")
	if err != nil {
		return nil, err
	}
	if m.version, err = parseVersion(text); err != nil {
		return nil, err
	}
	m.top, err = b.property("ControlGroup")
	return m, err
}

// parseVersion reads "257.7-1~deb13u1", or "v245".
func parseVersion(s string) (int, error) {
	digits := strings.TrimLeft(s, "v")
	if end := strings.IndexFunc(digits, func(c rune) bool { return c < '0' || c > '9' }); end >= 0 {
		digits = digits[:end]
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("systemd calls its version %q", s)
	}
	return n, nil
}

// Close ends the connection.
func (m *Manager) Close() { m.bus.close() }

// Path is where systemd puts the group of a unit, from the top of the hierarchy.
func (m *Manager) Path(n Name) (string, error) {
	slice, err := expand(n.Slice)
	if err != nil {
		return "", err
	}
	return filepath.Join("/", m.top, slice, n.Unit), nil
}

// Scope says what StartScope makes.
type Scope struct {
	Name
	Description string
	Pid         int    // its first process
	Files       []File // its limits
	More        []Property
	V1          bool
}

// StartScope makes a scope and returns when systemd has put the process there.
// One of that name that failed before and was never cleared is no obstacle.
func (m *Manager) StartScope(s Scope) error {
	props, err := s.properties(m.version)
	if err != nil {
		return err
	}
	start := func() error { return m.bus.job("StartTransientUnit", s.Unit, "fail", props, []unit{}) }
	err = start()
	if isError(err, unitExists) {
		if m.ResetFailed(s.Unit) == nil {
			err = start()
		}
	}
	if err != nil {
		return fmt.Errorf("make unit %s: %w", s.Unit, err)
	}
	return nil
}

// properties are those of the scope. Its own come last: systemd takes the last
// of two, and the bundle's must not undo them.
func (s *Scope) properties(version int) ([]Property, error) {
	props := []Property{
		{"Description", s.Description},
		{"DefaultDependencies", false},
	}
	if version >= 236 {
		props = append(props, Property{"CollectMode", "inactive-or-failed"})
	}
	props = append(props, s.More...)
	io := "IOAccounting"
	if s.V1 {
		io = "BlockIOAccounting"
	}
	for _, name := range []string{"CPUAccounting", "MemoryAccounting", "TasksAccounting", io} {
		if name == "CPUAccounting" && version >= 258 {
			continue // always on, and deprecated
		}
		props = append(props, Property{name, true})
	}
	limits, err := Resources(s.Files, version)
	if err != nil {
		return nil, err
	}
	props = append(props, limits...)
	return append(props,
		Property{"Slice", s.Slice}, Property{"Delegate", true}, Property{"PIDs", []uint32{uint32(s.Pid)}}), nil
}

// Attach has systemd put a process into a scope, where we may not: into its
// group from one that is not the user's.
func (m *Manager) Attach(name string, pid int) error {
	if _, err := m.bus.call("AttachProcessesToUnit", name, "", []uint32{uint32(pid)}); err != nil {
		return fmt.Errorf("put process %d into unit %s: %w", pid, name, err)
	}
	return nil
}

// SetLimits has systemd know limits that were changed, so that it writes these
// when it writes them again. It forgets them with the unit.
func (m *Manager) SetLimits(name string, files []File) error {
	props, err := Resources(files, m.version)
	if err != nil || len(props) == 0 {
		return err
	}
	if _, err := m.bus.call("SetUnitProperties", name, true, props); err != nil {
		return fmt.Errorf("set limits of unit %s: %w", name, err)
	}
	return nil
}

// Stop stops a unit, if there is one, and clears what is left of it.
func (m *Manager) Stop(name string) error {
	err := m.bus.job("StopUnit", name, "replace")
	_ = m.ResetFailed(name)
	if err != nil && !isError(err, noSuchUnit) {
		return fmt.Errorf("stop unit %s: %w", name, err)
	}
	return nil
}

// ResetFailed forgets a unit that failed.
func (m *Manager) ResetFailed(name string) error {
	_, err := m.bus.call("ResetFailedUnit", name)
	return err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
