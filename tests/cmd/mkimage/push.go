// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/tests/imagetest"
)

// push writes the image to a throw-away layout first, so that there is one way
// to make it.
func push(image imagetest.Image, target string, o options) (ispec.Descriptor, error) {
	dir, err := os.MkdirTemp("", "mkimage")
	if err != nil {
		return ispec.Descriptor{}, err
	}
	defer os.RemoveAll(dir)
	d, err := writeLayout(image, dir, "push", o)
	if err != nil {
		return d, err
	}
	return pushLayout(dir, "push", target)
}

// pushLayout copies the image of that name to a registry.
func pushLayout(dir, tag, target string) (ispec.Descriptor, error) {
	ref, err := name.ParseReference(target, name.Insecure)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	found, err := imagetest.Layout(dir).Index()
	if err != nil {
		return ispec.Descriptor{}, err
	}
	at := slices.IndexFunc(found.Manifests, func(m ispec.Descriptor) bool { return m.Annotations[ispec.AnnotationRefName] == tag })
	if at < 0 {
		return ispec.Descriptor{}, fmt.Errorf("no image %q in %s", tag, dir)
	}
	d := found.Manifests[at]
	h, err := v1.NewHash(d.Digest.String())
	if err != nil {
		return d, err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return d, err
	}
	login := remote.WithAuthFromKeychain(authn.DefaultKeychain)
	if d.MediaType == ispec.MediaTypeImageIndex {
		child, err := index.ImageIndex(h)
		if err != nil {
			return d, err
		}
		return d, remote.WriteIndex(ref, child, login)
	}
	child, err := index.Image(h)
	if err != nil {
		return d, err
	}
	return d, remote.Write(ref, child, login)
}
