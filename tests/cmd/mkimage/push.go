// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/gantryrun/gantry/tests/imagetest"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
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
	ref, err := name.ParseReference(target, name.Insecure)
	if err != nil {
		return d, err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return d, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return d, err
	}
	login := remote.WithAuthFromKeychain(authn.DefaultKeychain)
	h := manifest.Manifests[0].Digest
	if manifest.Manifests[0].MediaType.IsIndex() {
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
