// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// resctrl is a mounted resctrl file system (config-linux.md, IntelRdt). The
// kernel makes the files of a directory with it and removes them with it.
type resctrl struct {
	root  string
	mkdir func(name string) error
}

// openResctrl finds where it is mounted.
func openResctrl() (*resctrl, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		left, right, _ := strings.Cut(line, " - ")
		fields := strings.Fields(left)
		if strings.HasPrefix(right, "resctrl ") && len(fields) > 4 {
			return &resctrl{root: fields[4], mkdir: func(name string) error { return os.Mkdir(name, 0o755) }}, nil
		}
	}
	return nil, errors.New("linux.intelRdt: no resctrl file system is mounted: the processor or the kernel has none, or 'mount -t resctrl resctrl /sys/fs/resctrl' is missing")
}

// class is where a container's tasks go, and what is ours to remove then.
type class struct {
	on     *resctrl
	dir    string   // of the class
	group  string   // of its monitoring, or empty
	fresh  bool     // the class may be made
	ours   []string // to remove with the container, in this order
	schema []string // lines of schemata, in the order they are written
}

// dir is that of the class a container is in.
func (r *resctrl) dir(rdt *specs.LinuxIntelRdt, id string) string {
	if rdt.ClosID == "" {
		return filepath.Join(r.root, id)
	}
	return filepath.Join(r.root, rdt.ClosID) // "/" is the root itself
}

// plan refuses what is there already and would go with the container.
func (r *resctrl) plan(rdt *specs.LinuxIntelRdt, id string) (*class, error) {
	c := &class{on: r, dir: r.dir(rdt, id)}
	for _, line := range append([]string{rdt.L3CacheSchema, rdt.MemBwSchema}, rdt.Schemata...) {
		if line != "" {
			c.schema = append(c.schema, line)
		}
	}
	c.fresh = rdt.ClosID == "" || len(c.schema) > 0
	if rdt.EnableMonitoring {
		c.group = filepath.Join(c.dir, "mon_groups", id)
		c.ours = append(c.ours, c.group)
	}
	if rdt.ClosID == "" {
		c.ours = append(c.ours, c.dir)
	}
	for _, dir := range c.ours {
		if _, err := os.Lstat(dir); err == nil {
			return nil, fmt.Errorf("linux.intelRdt: %s exists already, and is not this container's", dir)
		}
	}
	return c, nil
}

// join puts a process, and what it will make, into its class.
func (c *class) join(pid int) error {
	err := fs.ErrExist
	if c.fresh {
		err = c.on.mkdir(c.dir)
	}
	switch {
	case err == nil:
		err = c.fill()
	case errors.Is(err, fs.ErrExist):
		err = c.matches()
	default:
		err = fmt.Errorf("linux.intelRdt: make class of service: %w", err)
	}
	if err == nil {
		err = c.on.enter(c.dir, pid)
	}
	if err != nil || c.group == "" {
		return err
	}
	if err := c.on.mkdir(c.group); err != nil {
		return fmt.Errorf("linux.intelRdt.enableMonitoring: %w", err)
	}
	return c.on.enter(c.group, pid)
}

func (c *class) fill() error {
	for _, line := range c.schema {
		if err := c.on.write(filepath.Join(c.dir, "schemata"), line+"\n"); err != nil {
			return fmt.Errorf("linux.intelRdt: write %q: %w", line, err)
		}
	}
	return nil
}

func (r *resctrl) enter(dir string, pid int) error {
	if err := r.write(filepath.Join(dir, "tasks"), strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("linux.intelRdt: join class of service: %w", err)
	}
	return nil
}

// write adds what the kernel says of a write that failed.
func (r *resctrl) write(name, value string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		said, _ := os.ReadFile(filepath.Join(r.root, "info/last_cmd_status"))
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(said)))
	}
	return nil
}

// matches compares a class that is there with what the bundle says of it.
func (c *class) matches() error {
	b, err := os.ReadFile(filepath.Join(c.dir, "schemata"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("linux.intelRdt.closID: there is no class %s, and no schemata to make one", c.dir)
	}
	if err != nil {
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	there := map[string]string{}
	for line := range strings.Lines(string(b)) {
		for key, value := range domains(line) {
			there[key] = value
		}
	}
	for _, line := range c.schema {
		for key, value := range domains(line) {
			if there[key] != value {
				return fmt.Errorf("linux.intelRdt: class %s has %s=%s, not %s", c.dir, key, there[key], value)
			}
		}
	}
	return nil
}

// domains reads "L3:0=7f0;1=1f" as L3:0 and L3:1. The kernel pads values, and
// writes masks as hexadecimal numbers without a case of their own.
func domains(line string) map[string]string {
	out := map[string]string{}
	resource, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
	for part := range strings.SplitSeq(rest, ";") {
		id, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		out[strings.TrimSpace(resource)+":"+id] = strings.ToLower(strings.TrimLeft(strings.TrimSpace(value), "0"))
	}
	return out
}

// class is the one a bundle asks for, nil if it asks for none.
func (c *Container) class(spec *specs.Spec) (*class, error) {
	if spec.Linux == nil || spec.Linux.IntelRdt == nil {
		return nil, nil
	}
	r, err := openResctrl()
	if err != nil {
		return nil, err
	}
	return r.plan(spec.Linux.IntelRdt, c.ID)
}

// Reclassify changes what the class of a container may use: for all who are in
// it, if the bundle names one.
func (c *Container) Reclassify(schemata ...string) error {
	spec, err := c.Spec()
	if err != nil {
		return err
	}
	if spec.Linux == nil || spec.Linux.IntelRdt == nil {
		return fmt.Errorf("container %q is in no class of Intel RDT: its bundle has no linux.intelRdt", c.ID)
	}
	r, err := openResctrl()
	if err != nil {
		return err
	}
	own := class{on: r, dir: r.dir(spec.Linux.IntelRdt, c.ID), schema: schemata}
	return own.fill()
}

// declassify is for a container whose processes have ended.
func (c *Container) declassify() error {
	for _, dir := range c.Resctrl {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove class of service: %w", err)
		}
	}
	return nil
}
