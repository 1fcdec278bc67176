// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/internal/rootfs"
)

// prefetchSize is the part of a program that is read ahead: enough for its
// headers and its start.
const prefetchSize = 512 << 10

// prefetch has the kernel read the app's program while the rest of the launch
// goes on: the first pod of an image finds nothing of it in memory. It is a
// guess, which binds and links may make wrong; then the app reads for itself.
func (r rootTree) prefetch(p *specs.Process) {
	if r.mount == nil || len(p.Args) == 0 {
		return
	}
	// The mount may be closed meanwhile.
	root, err := unix.FcntlInt(r.mount.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	go func() {
		defer unix.Close(root)
		for _, name := range candidates(p) {
			// Of an image we know nothing: a fifo must not hold us.
			fd, err := rootfs.OpenAt(root, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				continue
			}
			_ = unix.Fadvise(fd, 0, prefetchSize, unix.FADV_WILLNEED)
			_ = unix.Close(fd)
			return
		}
	}()
}

// candidates are the paths execvp would try for the program.
func candidates(p *specs.Process) []string {
	name := p.Args[0]
	if strings.HasPrefix(name, "/") {
		return []string{name}
	}
	if strings.Contains(name, "/") {
		return []string{path.Join(p.Cwd, name)}
	}
	var names []string
	for _, v := range p.Env {
		if dirs, ok := strings.CutPrefix(v, "PATH="); ok {
			for dir := range strings.SplitSeq(dirs, ":") {
				names = append(names, path.Join("/", dir, name))
			}
		}
	}
	return names
}
