// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Userns is the user namespace this process is in.
type Userns struct {
	UIDs, GIDs []specs.LinuxIDMapping
}

// OwnUserns reads it; nil is the first one, the host's.
func OwnUserns() (*Userns, error) {
	uids, err := readMap("/proc/self/uid_map")
	if err != nil {
		return nil, err
	}
	const all = 1<<32 - 1
	if len(uids) == 1 && uids[0] == (specs.LinuxIDMapping{Size: all}) {
		return nil, nil
	}
	gids, err := readMap("/proc/self/gid_map")
	return &Userns{uids, gids}, err
}

func readMap(name string) ([]specs.LinuxIDMapping, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read own user namespace: %w", err)
	}
	var out []specs.LinuxIDMapping
	for line := range strings.Lines(string(b)) {
		var m specs.LinuxIDMapping
		if _, err := fmt.Sscan(line, &m.ContainerID, &m.HostID, &m.Size); err != nil {
			return nil, fmt.Errorf("read own user namespace: %s: %w", name, err)
		}
		out = append(out, m)
	}
	return out, nil
}

// mayLackCgroup tells whether a launch goes on without a group: one of root of
// a user namespace, to whom nobody gave any.
func mayLackCgroup(r *Request, err error) bool {
	if r.Userns == nil || r.PodDir != "" && len(r.CgroupStrict) > 0 {
		return false
	}
	for _, refused := range []error{unix.EACCES, unix.EPERM, unix.EROFS} {
		if errors.Is(err, refused) {
			return true
		}
	}
	return false
}
