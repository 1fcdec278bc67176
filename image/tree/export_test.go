// SPDX-License-Identifier: Apache-2.0

package tree

import "os"

// MountByFile mounts without loop devices, as hosts without them do.
func (d *Dir) MountByFile(t Tree) (*os.File, error) {
	files, clean, err := d.openAll(t)
	defer clean.Run()
	if err != nil {
		return nil, err
	}
	return mountFiles(files)
}
