// SPDX-License-Identifier: Apache-2.0

// Command flipbyte inverts one byte of a file: flipbyte FILE [OFFSET], by
// default in the middle. It writes in place where the kernel lets it, so that
// the inode stays; a file sealed by fs-verity is replaced by a changed copy,
// which is what someone with root would do.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: flipbyte FILE [OFFSET]")
		os.Exit(2)
	}
	if err := flip(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "flipbyte: %v\n", err)
		os.Exit(1)
	}
}

func flip(name string, rest []string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if len(b) == 0 {
		return fmt.Errorf("%s is empty", name)
	}
	at := len(b) / 2
	if len(rest) > 0 {
		if at, err = strconv.Atoi(rest[0]); err != nil {
			return err
		}
	}
	if at < 0 || at >= len(b) {
		return fmt.Errorf("%s has %d bytes, none at %d", name, len(b), at)
	}
	b[at] ^= 0xff
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return replace(name, b)
	}
	_, err = f.WriteAt(b[at:at+1], int64(at))
	return errors.Join(err, f.Close())
}

func replace(name string, b []byte) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".flipped", b, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Rename(name+".flipped", name)
}
