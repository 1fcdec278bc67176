// SPDX-License-Identifier: Apache-2.0

package confine

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// archBase are calls only this architecture has.
func archBase() []uint32 {
	return []uint32{unix.SYS_EPOLL_WAIT, unix.SYS_ARCH_PRCTL, unix.SYS_TIME}
}

// archPrologue kills calls in the x32 numbering, which shares the audit
// architecture with ours.
func archPrologue() []unix.SockFilter {
	const x32Bit = 0x40000000
	return []unix.SockFilter{jump(unix.BPF_JGE, x32Bit, 0, 1), kill}
}
