// SPDX-License-Identifier: Apache-2.0

package tree_test

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func mincore(t testing.TB, m []byte) int {
	t.Helper()
	page := unix.Getpagesize()
	vec := make([]byte, (len(m)+page-1)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&vec[0]))); errno != 0 {
		t.Fatal(errno)
	}
	n := 0
	for _, v := range vec {
		n += int(v&1) * page
	}
	return n
}
