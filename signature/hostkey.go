// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const hostKeySize = 32

// HostKey reads the key that seals receipts, making it first when it is not
// there. Whoever can read it can forge receipts, so a key that others can read
// or write, or that belongs to someone else, is refused, not repaired.
func HostKey(file string) ([]byte, error) {
	key, err := readHostKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := makeHostKey(file); err != nil {
		return nil, fmt.Errorf("make host key %s: %w", file, err)
	}
	return readHostKey(file)
}

func readHostKey(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("host key %s is a symbolic link", file)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("host key %s is not a regular file", file)
	case !ok || int(sys.Uid) != os.Geteuid():
		return nil, fmt.Errorf("host key %s does not belong to the user gantry runs as", file)
	case st.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("host key %s is open to others, mode %04o: receipts may have been forged; remove it and fetch the images again", file, st.Mode().Perm())
	case st.Size() != hostKeySize:
		return nil, fmt.Errorf("host key %s has %d bytes, not %d; remove it and fetch the images again", file, st.Size(), hostKeySize)
	}
	key := make([]byte, hostKeySize)
	if _, err := io.ReadFull(f, key); err != nil {
		return nil, fmt.Errorf("read host key %s: %w", file, err)
	}
	return key, nil
}

// makeHostKey creates the key whole or not at all. link, unlike rename, fails
// when another process was first, whose key then is everybody's.
func makeHostKey(file string) error {
	var key [hostKeySize]byte
	var tag [8]byte
	rand.Read(key[:])
	rand.Read(tag[:])
	dir := filepath.Dir(file)
	tmp := filepath.Join(dir, ".host.key-"+hex.EncodeToString(tag[:]))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	_, err = f.Write(key[:])
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp, file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
