// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxMountinfo bounds what is read of this host's mounts.
const maxMountinfo = 64 << 20

// notShared is a mount that is to hear of the host's, where it cannot.
type notShared struct{ source, at, word string }

func (n *notShared) Error() string {
	return fmt.Sprintf("mount %s with %s: %s, the mount it lies on, is not a shared one", n.source, n.word, n.at)
}

// Hint says how to make it one.
func (n *notShared) Hint() string {
	return fmt.Sprintf("'mount --make-rshared %s' makes it one, for everything below it", n.at)
}

// checkPropagation refuses shared and slave mounts of what has no peers: the
// kernel would take them and nothing would ever arrive. Slaves may lie on a
// slave.
func checkPropagation(mounts []specs.Mount) error {
	var info []string
	for _, m := range mounts {
		at := slices.IndexFunc(m.Options, func(o string) bool {
			return slices.Contains([]string{"shared", "rshared", "slave", "rslave"}, o)
		})
		if at < 0 || m.Type != "bind" {
			continue
		}
		if info == nil {
			b, err := mountinfo()
			if err != nil {
				return err
			}
			info = strings.Split(b, "\n")
		}
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, m.Source, 0, unix.STATX_MNT_ID, &st); err != nil {
			continue // a volume that is not made yet, or what checkBinds tells of
		}
		place, shared, slave := peers(info, st.Mnt_id)
		if place != "" && !shared && !(slave && strings.HasSuffix(m.Options[at], "slave")) {
			return &notShared{m.Source, place, m.Options[at]}
		}
	}
	return nil
}

func mountinfo() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMountinfo))
	return string(b), err
}

// peers finds a mount of proc_pid_mountinfo(5): where it is, and whether others
// hear of what is mounted there.
func peers(info []string, id uint64) (place string, shared, slave bool) {
	want := strconv.FormatUint(id, 10)
	for _, line := range info {
		f := strings.Fields(line)
		if len(f) < 7 || f[0] != want {
			continue
		}
		for _, option := range f[6:] {
			if option == "-" {
				break
			}
			shared = shared || strings.HasPrefix(option, "shared:")
			slave = slave || strings.HasPrefix(option, "master:")
		}
		return f[4], shared, slave
	}
	return "", false, false
}
