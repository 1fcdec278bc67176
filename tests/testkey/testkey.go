// SPDX-License-Identifier: Apache-2.0

// Package testkey is a key pair that signs images of tests. A fresh one for
// each test would cost most of its time: keys are encrypted by a function made
// to be slow, with this one at its least.
package testkey

import (
	_ "embed"
	"os"
)

var (
	//go:embed test.key
	private []byte
	//go:embed test.pub
	public []byte
)

// Write makes the files name.key, whose password is empty, and name.pub.
func Write(name string) error {
	if err := os.WriteFile(name+".key", private, 0o600); err != nil {
		return err
	}
	return os.WriteFile(name+".pub", public, 0o644)
}
