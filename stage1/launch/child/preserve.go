// SPDX-License-Identifier: Apache-2.0

package child

import (
	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// isPreserved tells whether a descriptor is one that the app gets.
func (w *walk) isPreserved(fd int) bool {
	i := fd - stage1.InitSources
	return i >= 0 && i < len(w.plan.Sources) && w.plan.Sources[i].Kind == stage1.SourcePreserved
}

// place gives preserved descriptors their numbers in the app. It is the last
// thing before the execve: our own have these numbers. They come first in the
// plan and rise as their numbers do, so none is overwritten before it moved.
// The socket to report on goes out of their way, and its number is returned,
// -1 if it stayed.
func (w *walk) place() (sync int, err error) {
	sync = -1
	for i, s := range w.plan.Sources {
		if s.Kind != stage1.SourcePreserved {
			break
		}
		if sync < 0 {
			above := stage1.InitSources + len(w.plan.Sources)
			if sync, err = unix.FcntlInt(stage1.InitSync, unix.F_DUPFD_CLOEXEC, above); err != nil {
				return -1, err
			}
		}
		if err := unix.Dup3(w.source(i), s.Number, 0); err != nil {
			return sync, err
		}
	}
	return sync, nil
}

// displaced puts the socket back when there is something left to report.
func displaced(sync int, serr *stage1.StepError) *stage1.StepError {
	if sync >= 0 {
		_ = unix.Dup3(sync, stage1.InitSync, unix.O_CLOEXEC)
	}
	return serr
}
