// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"net/netip"
	"os"
	"path/filepath"
)

// Used tells whether an address may have been another pod's since the network
// was first used, and notes that it is one's: its lessee asks, once. What the
// kernel knows of it has to be dropped then, which takes longer than a launch
// may. A byte stands for each address with the same last 24 bits.
func (d Dir) Used(a netip.Addr) bool {
	b := a.As16()
	at := int64(b[13])<<16 | int64(b[14])<<8 | int64(b[15])
	f, err := os.OpenFile(filepath.Join(d.Path, ".used"+last(a)[len(".last"):]), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return true
	}
	defer f.Close()
	var was [1]byte
	_, _ = f.ReadAt(was[:], at) // beyond its end it is 0
	if was[0] != 0 {
		return true
	}
	_, err = f.WriteAt([]byte{1}, at)
	return err != nil
}
