// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// withoutMknod takes CAP_MKNOD out of a plan. Where no device rules are in
// force, an app that makes a node of a host's disk could open it.
func withoutMknod(plan *stage1.Plan) {
	const keep = ^uint64(1 << unix.CAP_MKNOD)
	for _, s := range plan.Steps {
		if s.Bounding != nil {
			s.Bounding.Set &= keep
		}
		if c := s.Caps; c != nil {
			c.Effective &= keep
			c.Permitted &= keep
			c.Inheritable &= keep
			c.Ambient &= keep
		}
	}
}

// mayMknod tells whether a running app was left CAP_MKNOD.
func mayMknod(pid int) (bool, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false, err
	}
	_, rest, _ := strings.Cut(string(b), "\nCapBnd:\t")
	value, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(value, 16, 64)
	return set&(1<<unix.CAP_MKNOD) != 0, err
}
