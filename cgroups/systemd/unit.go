// SPDX-License-Identifier: Apache-2.0

// Package systemd has systemd make a container's control group: as a transient
// scope, so that systemd knows whose it is and leaves it alone.
package systemd

import (
	"errors"
	"fmt"
	"strings"
)

// Name is the place of a container among systemd's units.
type Name struct {
	Slice string
	Unit  string
}

// prefix is that of units whose bundle names none.
const prefix = "gantry-oci"

const (
	sliceSuffix = ".slice"
	scopeSuffix = ".scope"
	rootSlice   = "-" + sliceSuffix
)

// ParseName reads linux.cgroupsPath as SLICE:PREFIX:NAME, for a container of
// that id. What is empty is as in runc: system.slice, user.slice of a user's
// systemd; without any of it the unit is called after the id.
func ParseName(cgroupsPath, id string, user bool) (Name, error) {
	slice, before, name := "", prefix, id
	if cgroupsPath != "" {
		parts := strings.Split(cgroupsPath, ":")
		if len(parts) != 3 {
			return Name{}, fmt.Errorf("%q is not SLICE:PREFIX:NAME, as --systemd-cgroup wants it", cgroupsPath)
		}
		slice, before, name = parts[0], parts[1], parts[2]
	}
	switch slice {
	case "":
		slice = "system.slice"
		if user {
			slice = "user.slice"
		}
	case "-":
		slice = rootSlice
	}
	n := Name{Slice: slice, Unit: before + "-" + name + scopeSuffix}
	switch {
	case name == "":
		return Name{}, fmt.Errorf("%q has no NAME after the second colon", cgroupsPath)
	case strings.HasSuffix(name, sliceSuffix):
		return Name{}, fmt.Errorf("%q names a slice, and a container's unit is a scope", cgroupsPath)
	}
	if _, err := expand(slice); err != nil {
		return Name{}, err
	}
	return n, validUnit(n.Unit)
}

// validUnit: systemd.unit(5), "valid unit names".
func validUnit(name string) error {
	if len(name) > 255 {
		return fmt.Errorf("unit %.40q… is longer than the 255 characters systemd takes", name)
	}
	for _, c := range name {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.ContainsRune(`:-_.\@`, c):
		default:
			return fmt.Errorf(`unit %q may have letters, digits and :-_.\@ only`, name)
		}
	}
	return nil
}

// expand gives the path of a slice: each dash goes one deeper, a-b.slice is in
// a.slice (systemd.slice(5)).
func expand(slice string) (string, error) {
	if slice == rootSlice {
		return "/", nil
	}
	name, ok := strings.CutSuffix(slice, sliceSuffix)
	if err := validUnit(slice); err != nil || !ok || name == "" {
		return "", errors.Join(fmt.Errorf("slice %q is not the name of one, like system.slice", slice), err)
	}
	dir, parent := "", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", fmt.Errorf("slice %q has a dash with nothing beside it", slice)
		}
		parent += part
		dir += "/" + parent + sliceSuffix
		parent += "-"
	}
	return dir, nil
}
