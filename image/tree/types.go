// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/image/tree/index"
)

// Version is the converter's version. It is part of every file name, so that
// a better converter never meets the files of an older one.
const Version = 1

// Limits bound what a layer may ask for.
type Limits = index.Limits

// DefaultLimits returns the limits used where nobody set others.
func DefaultLimits() Limits { return index.DefaultLimits() }

// Summary says what a conversion met.
type Summary = index.Summary

// File is one file of a tree and what it must contain.
type File struct {
	Path   string        `json:"path"` // relative to the trees directory
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	// Verity is the fs-verity digest the kernel measured when the file was
	// sealed, "sha256:<hex>", or empty where the file system has none.
	Verity string `json:"verity,omitempty"`
}

// Layer is one converted layer. Blob is the compressed blob it came from and
// DiffID what its tar hashed to.
type Layer struct {
	Version int           `json:"version"`
	Blob    digest.Digest `json:"blob"`
	DiffID  digest.Digest `json:"diffID"`
	Data    File          `json:"data"`
	Index   File          `json:"index"`
	Summary Summary       `json:"summary"`
}

// Tree is the read-only root file system of one image: what a receipt records
// and a launch verifies.
type Tree struct {
	Version int    `json:"version"`
	Key     string `json:"key"`
	// Image is the merged EROFS metadata; its device table names the data
	// files of Layers in order, without those that are empty.
	Image  File    `json:"image"`
	Layers []Layer `json:"layers"` // bottom first

	proven map[string]string // identities of the files that were verified
}

// Proven returns the tree as p verified it: Mount then takes no file but those,
// whatever was put in their places since.
func (t Tree) Proven(p Proof) Tree {
	t.proven = p.identities
	return t
}
