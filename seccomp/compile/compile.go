// SPDX-License-Identifier: Apache-2.0

// Package compile turns a seccomp section into a BPF program with libseccomp.
// It is linked into gantry-seccomp and nothing else, since it is C.
//
// Built without cgo or without the tag "libseccomp", Compile only says so.
package compile

import "errors"

// ErrNoLibseccomp says that this build has no compiler in it.
var ErrNoLibseccomp = errors.New("built without libseccomp (go build -tags libseccomp, CGO_ENABLED=1)")
