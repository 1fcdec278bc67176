// SPDX-License-Identifier: Apache-2.0

package confine

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

func archBase() []uint32 { return nil }

func archPrologue() []unix.SockFilter { return nil }
