// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryrun/gantry/stage1/launch"
)

// UserMappings are those that a bundle has for its new user namespace. Who is
// not root works as root in that, and so needs one.
func UserMappings(bundle string) (uids, gids []specs.LinuxIDMapping, err error) {
	bundle, err = filepath.Abs(bundle)
	if err != nil {
		return nil, nil, err
	}
	_, spec, err := loadBundle(bundle)
	if err != nil {
		return nil, nil, err
	}
	if spec.Linux == nil || !hasNamespace(spec, specs.UserNamespace) {
		return nil, nil, errors.New("linux.namespaces: an ordinary user needs a user namespace: 'gantry-oci spec --rootless' writes a bundle with one")
	}
	for i, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.UserNamespace && ns.Path != "" {
			return nil, nil, fmt.Errorf("linux.namespaces[%d].path: an ordinary user cannot make containers in a user namespace that exists", i)
		}
	}
	if err := launch.CheckNamespaces(spec.Linux); err != nil {
		return nil, nil, err
	}
	return spec.Linux.UIDMappings, spec.Linux.GIDMappings, nil
}

// users gives the user namespace we are in, nil for the host's, and what is to
// be made of a bundle in it.
func (o *CreateOptions) users(spec *specs.Spec) (*specs.Spec, *launch.Userns, error) {
	own, err := launch.OwnUserns()
	if err == nil && o.InUserns {
		spec, err = insideUserns(spec, own)
	}
	return spec, own, err
}

// insideUserns takes out of a bundle the user namespace that was made for it,
// after a look whether it was: nobody is to work as the host's root by mistake.
func insideUserns(spec *specs.Spec, own *launch.Userns) (*specs.Spec, error) {
	l := spec.Linux
	if own == nil || l == nil || !slices.Equal(own.UIDs, l.UIDMappings) || !slices.Equal(own.GIDs, l.GIDMappings) {
		return nil, errors.New("linux.uidMappings: are not those of the user namespace that was made for them")
	}
	inner, linux := *spec, *l
	linux.UIDMappings, linux.GIDMappings = nil, nil
	linux.Namespaces = slices.DeleteFunc(slices.Clone(l.Namespaces), func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.UserNamespace
	})
	inner.Linux = &linux
	return &inner, nil
}

// ownerOf is who makes a container, as the namespace outside numbers users.
func ownerOf(own *launch.Userns) uint32 {
	uid := uint32(os.Geteuid())
	if own == nil {
		return uid
	}
	for _, m := range own.UIDs {
		if uid >= m.ContainerID && uid-m.ContainerID < m.Size {
			return m.HostID + uid - m.ContainerID
		}
	}
	return uid
}
