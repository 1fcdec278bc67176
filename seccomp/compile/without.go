// SPDX-License-Identifier: Apache-2.0

//go:build !cgo || !libseccomp

package compile

import "github.com/opencontainers/runtime-spec/specs-go"

// Version returns the version of libseccomp, "" where there is none.
func Version() string { return "" }

// Compile returns ErrNoLibseccomp.
func Compile(*specs.LinuxSeccomp) ([]byte, error) { return nil, ErrNoLibseccomp }
