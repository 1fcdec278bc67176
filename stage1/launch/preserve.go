// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// FirstPreserved is the first descriptor after the standard streams.
const FirstPreserved = 3

// preserve comes before all other sources: what gantry-init then puts into
// the numbers from FirstPreserved on replaces its own three descriptors and
// preserved ones, and nothing else.
func (p *planner) preserve() {
	p.plan.KeepKeyring = p.o.Keyring
	for n := FirstPreserved; n < FirstPreserved+p.o.Preserve; n++ {
		p.source(stage1.Source{Kind: stage1.SourcePreserved, Number: n, For: fmt.Sprintf("descriptor %d", n)})
	}
}

// Inherited tells whether a descriptor came from the caller of this program.
// Nothing that this program opens lives through an execve.
func Inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// preserved duplicates a descriptor of the caller.
func preserved(fd int) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), fmt.Sprintf("descriptor %d", fd)), nil
}
