// SPDX-License-Identifier: Apache-2.0

//go:build !amd64 && !arm64

package userns

import (
	"errors"
	"os"
)

var errArch = errors.New("make user namespace: nobody has written the six system calls for this architecture")

// New is there for amd64 and arm64.
func New(_, _ []Map) (*os.File, error) { return nil, errArch }

// Enter is there for amd64 and arm64.
func Enter(*os.File, []string) error { return errArch }
