// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/tests/agent"
)

// In a user namespace gantry-init is made anew before it loads a filter: the
// listener is that one's.
func TestSeccompAgentAnswersForAUserNamespace(t *testing.T) {
	for _, noNewPrivs := range []bool{true, false} {
		t.Run(fmt.Sprintf("no_new_privs=%v", noNewPrivs), func(t *testing.T) {
			a := agent.Start(t, agent.Errno(unix.ENOTTY))
			b := newBox(t, "sh", "-c", "mkdir /tmp/x; sleep 1000")
			b.spec.Process.NoNewPrivileges = noNewPrivs
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			b.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
			b.spec.Linux.GIDMappings = b.spec.Linux.UIDMappings
			check(t, filepath.WalkDir(b.rootfs, func(name string, _ fs.DirEntry, err error) error {
				return errors.Join(err, os.Lchown(name, 100000, 100000))
			}))
			b.notified(a.Path, "mkdir", "mkdirat")
			b.started("c")
			asked := func() int { return a.Asked(unix.SYS_MKDIR) + a.Asked(unix.SYS_MKDIRAT) }
			eventually(t, "the container makes a directory", func() bool { return asked() == 1 })
			if r := b.oci("exec", "c", "mkdir", "/tmp/y"); r.code != 1 || asked() != 2 {
				t.Errorf("exec: %+v, the agent was asked %d times", r, asked())
			}
		})
	}
}
