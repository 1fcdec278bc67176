// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"fmt"
	"os"

	"github.com/gantryrun/gantry/cgroups"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/userns"
)

// checksOfOrdinary are those of the host that an ordinary user's pods need, and
// what these are without since it takes the host's root, which no command of the
// user's mends.
func checksOfOrdinary() []func(Env) CheckItem {
	return []func(Env) CheckItem{
		checkDelegation, checkControllers, checkCgroupKill, checkOverlay,
		rootOnly("erofs", "roots are plain directories, made from what was verified, and not checked again at launch"),
		rootOnly("loop devices", "pods of one image share its page cache all the same: it is one directory"),
		rootOnly("project quotas", "volumes have no limits: 'gantry volume create --opt size=' is refused"),
		rootOnly("mapped ids", "no --userns: the pods are in a user namespace of yours"),
		checkSeccomp, checkUserNamespaces, checkLandlock, checkResource, checkPastaThere,
	}
}

func rootOnly(name, means string) func(Env) CheckItem {
	return func(Env) CheckItem {
		return CheckItem{Name: name, State: no, Have: "it takes the host's root", Means: means}
	}
}

// checkOrdinary tells what an ordinary user's pods can be.
func checkOrdinary(c CheckItem) CheckItem {
	c.State, c.Have = no, fmt.Sprintf("uid %d", os.Geteuid())
	uids, gids, err := ownMaps()
	if err == nil {
		var ns *os.File
		if ns, err = userns.New(uids, gids); err == nil {
			_ = ns.Close()
		}
	}
	if err != nil {
		c.Have += ": " + err.Error()
		c.Mend = hint.Of(err)
		return c
	}
	n := uint64(0)
	for _, m := range uids {
		n += uint64(m.Size)
	}
	c.State, c.Have = partly, fmt.Sprintf("uid %d, root of a user namespace with %d ids", os.Geteuid(), n)
	c.Means, c.Mend = "what takes the host's root is refused", ""
	if n == 1 {
		c.Have = fmt.Sprintf("uid %d, root of a user namespace with one id", os.Geteuid())
		c.Means, c.Mend = "images have no user but root", "a range in /etc/subuid and /etc/subgid, and the package uidmap"
	}
	return c
}

// checkDelegation looks for a group that the user may divide.
func checkDelegation(Env) CheckItem {
	c := CheckItem{Name: "cgroups", Means: "pods have no limits, and those asked for by name are refused"}
	s, err := cgroups.Probe()
	c.Have = s.Mode
	switch {
	case err != nil:
		c.State, c.Have = no, err.Error()
	case s.Writable:
		c.State, c.Means = yes, ""
	case s.Mode == "v2":
		c.State, c.Have = no, s.Mode+", none that is yours"
		c.Mend = "run gantry in a unit of your own systemd with Delegate=yes: systemd-run --user --scope -p Delegate=yes gantry run …"
	default:
		c.State, c.Have = no, s.Mode+", none that is yours"
		c.Mend = "version 2 alone can be given to an ordinary user: boot with systemd.unified_cgroup_hierarchy=1"
	}
	return c
}

// checkPastaThere looks for what carries an ordinary user's packets.
func checkPastaThere(Env) CheckItem {
	c := CheckItem{Name: pastaName, State: yes}
	path, err := findPasta()
	c.Have = path
	if err != nil {
		c.State, c.Have, c.Means = no, err.Error(), "pods are on --net=none or --net=host"
		c.Mend = hint.Of(err)
	}
	return c
}
