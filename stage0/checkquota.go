// SPDX-License-Identifier: Apache-2.0

package stage0

import "github.com/gantryrun/gantry/stage0/volume"

// checkQuota asks the file system that volumes are on, or will be.
func checkQuota(e Env) CheckItem {
	c := CheckItem{Name: "project quotas", State: yes, Have: "on " + e.Dir}
	if err := volume.Limits(existing(e.Dir)); err != nil {
		c.State, c.Have, c.Means = no, "none on "+e.Dir, "volumes have no limits: 'gantry volume create --opt size=' is refused"
		c.Mend = "keep the directory on xfs, or on ext4 made with -O quota,project; mount it with prjquota"
	}
	return c
}
