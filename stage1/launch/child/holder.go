// SPDX-License-Identifier: Apache-2.0

package child

import "golang.org/x/sys/unix"

// Hold is the whole life of a holder: it keeps a group from being empty, and
// ends with whoever has the other end of its standard input.
func Hold() {
	for b := make([]byte, 1); ; {
		if _, err := unix.Read(0, b); err != unix.EINTR {
			return
		}
	}
}
