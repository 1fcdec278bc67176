// SPDX-License-Identifier: Apache-2.0

package cli

import "github.com/spf13/pflag"

// registerVolumes adds what the app finds mounted.
func (f *runFlags) registerVolumes(s *pflag.FlagSet) {
	o := &f.Options
	s.StringArrayVarP(&o.Volumes, "volume", "v", nil, "mount a host path, or a named volume: `SOURCE:DEST[:OPTIONS]`; DEST alone is a volume of the pod's own")
	s.StringArrayVar(&o.Mounts, "mount", nil, "mount `type=bind|volume|tmpfs|image|devpts,…` as podman spells it")
	s.StringArrayVar(&o.Tmpfs, "tmpfs", nil, "mount a tmpfs at `DEST[:OPTIONS]`")
	s.StringArrayVar(&o.VolumesFrom, "volumes-from", nil, "mount what `POD[:ro|rw]` mounts by --volume and --mount")
	s.StringVar(&o.ImageVolume, "image-volume", "", "give the image's volumes `MODE` anonymous (default), tmpfs or ignore")
	s.BoolVar(&o.ReadOnly, "read-only", false, "mount the root read-only")
	s.BoolVar(&f.readOnlyTmpfs, "read-only-tmpfs", true, "with --read-only, keep /tmp, /var/tmp and /run writable")
	s.StringVar(&o.ShmSize, "shm-size", "", "size of /dev/shm, as in 64m")
}
