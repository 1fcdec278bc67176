// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage0/cdi"
	"github.com/gantryrun/gantry/stage1/launch"
)

// moreFacts gathers what only some options depend on.
func moreFacts(h *bundle.Host, o bundle.Options, note func(string)) error {
	if len(o.SecurityOpt) > 0 {
		h.Labels = labelFacts(h.SELinux)
	}
	if o.UTS == "host" {
		h.Hostname, _ = os.Hostname()
	}
	for _, name := range o.LabelFiles {
		b, err := readHostFile(name)
		if err != nil {
			return fmt.Errorf("--label-file: %w", err)
		}
		h.LabelFiles = append(h.LabelFiles, b)
	}
	if slices.Contains(o.GroupAdd, "keep-groups") {
		groups, err := os.Getgroups()
		if err != nil {
			return fmt.Errorf("--group-add keep-groups: %w", err)
		}
		for _, g := range groups {
			h.Groups = append(h.Groups, uint32(g))
		}
	}
	if o.Timezone != "" {
		name, err := bundle.ZoneFile(o.Timezone)
		if err != nil {
			return err
		}
		if h.Zone, err = readHostFile(name); err != nil {
			return fmt.Errorf("--tz %q: %w", o.Timezone, err)
		}
	}
	if o.IPC == "host" {
		_, err := os.Stat("/dev/mqueue")
		h.Queues = err == nil
	}
	for _, name := range o.BlockDevices() {
		if err := addDevice(h, name); err != nil {
			return err
		}
	}
	return deviceFacts(h, o.Hardware, note)
}

// deviceFacts are what --device names: nodes, directories of nodes, and
// devices of CDI with the nodes that those name in turn.
func deviceFacts(h *bundle.Host, o bundle.Hardware, note func(string)) error {
	for _, name := range o.Sources(cdi.IsName) {
		if err := addDevice(h, name); err != nil {
			return fmt.Errorf("--device: %w", err)
		}
	}
	for _, name := range o.Devices {
		if cdi.IsName(name) {
			h.CDI = append(h.CDI, name)
		}
	}
	if len(h.CDI) == 0 {
		return nil
	}
	dirs := o.CDIDirs
	if len(dirs) == 0 {
		dirs = cdi.Dirs()
	}
	var err error
	if h.Edits, err = cdi.Resolve(dirs, h.CDI, note); err != nil {
		return err
	}
	for _, e := range h.Edits {
		for _, d := range e.Devices {
			if err := addDevice(h, d.Host); err != nil {
				return fmt.Errorf("--device: %w", err)
			}
		}
	}
	return nil
}

// addDevice notes what is at a path of the host, if it is a device.
func addDevice(h *bundle.Host, name string) error {
	fi, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the option says so, with its name
	}
	if err != nil {
		return err
	}
	if h.Devices == nil {
		h.Devices = map[string][]bundle.Node{}
	}
	if fi.IsDir() {
		h.Devices[name], err = nodesBelow(name)
		return err
	}
	if n, ok := nodeOf(fi); ok {
		h.Devices[name] = []bundle.Node{n}
	}
	return nil
}

// maxNodes bounds a directory of devices.
const maxNodes = 1000

// nodesBelow are the devices in a directory and below. Links are left out:
// what they lead to is named by its own path.
func nodesBelow(dir string) ([]bundle.Node, error) {
	var out []bundle.Node
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeDevice == 0 {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if n, ok := nodeOf(fi); ok {
			n.Path = strings.TrimPrefix(name, strings.TrimSuffix(dir, "/")+"/")
			out = append(out, n)
		}
		if len(out) > maxNodes {
			return fmt.Errorf("%s has more than %d devices", dir, maxNodes)
		}
		return nil
	})
	return out, err
}

// nodeOf is a device node as a bundle wants it.
func nodeOf(fi fs.FileInfo) (bundle.Node, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || fi.Mode()&fs.ModeDevice == 0 {
		return bundle.Node{}, false
	}
	n := bundle.Node{
		Type: "b", Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		Mode: uint32(fi.Mode().Perm()), UID: st.Uid, GID: st.Gid,
	}
	if fi.Mode()&fs.ModeCharDevice != 0 {
		n.Type = "c"
	}
	return n, true
}

// throttles are those of all processors. A machine has the first one's or none,
// so that one look is all it costs where there is none, as on virtual ones.
func throttles(first string) []string {
	if _, err := os.Stat(first); err != nil {
		return nil
	}
	cpu, name := filepath.Split(first)
	all, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Clean(cpu)), "cpu[0-9]*", name))
	return all
}

// maxPreserved is more than anybody passes, and few enough to count.
const maxPreserved = 1000

// checkPreserve wants descriptors that are there and were meant to be passed.
func (o RunOptions) checkPreserve() error {
	if o.Preserve < 0 || o.Preserve > maxPreserved {
		return fmt.Errorf("--preserve-fds %d: use 0 to %d", o.Preserve, maxPreserved)
	}
	for fd := launch.FirstPreserved; fd < launch.FirstPreserved+o.Preserve; fd++ {
		if !launch.Inherited(fd) {
			return fmt.Errorf("--preserve-fds %d: descriptor %d was not passed to gantry", o.Preserve, fd)
		}
	}
	return nil
}
