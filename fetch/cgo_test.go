// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package fetch

// withCgo: go test -race. Threads of C libraries make a process that cannot
// confine itself; the product has none.
const withCgo = true
