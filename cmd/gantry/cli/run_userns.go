// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/pflag"

	"github.com/gantryrun/gantry/stage0/bundle"
)

// registerUserns adds what chooses the ids behind those of the pod.
func registerUserns(s *pflag.FlagSet, o *bundle.Options) {
	s.StringVar(&o.Userns, "userns", "", "`MODE` of the user namespace: host (default), or auto[:size=N,uidmapping=C:H:N,gidmapping=C:H:N] for ids that no other pod has")
	s.StringArrayVar(&o.UIDMaps, "uidmap", nil, "map user ids `CONTAINER:HOST:SIZE` in a user namespace of the pod's own")
	s.StringArrayVar(&o.GIDMaps, "gidmap", nil, "map group ids `CONTAINER:HOST:SIZE` (default as --uidmap)")
	s.StringVar(&o.SubUIDName, "subuidname", "", "map the user ids that /etc/subuid gives to `NAME`")
	s.StringVar(&o.SubGIDName, "subgidname", "", "map the group ids that /etc/subgid gives to `NAME` (default as --subuidname)")
}
