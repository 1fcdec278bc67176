// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"time"

	netspec "github.com/gantryrun/gantry/netns/network"

	"github.com/gantryrun/gantry/stage0/bundle"
	"github.com/gantryrun/gantry/stage1"
)

// ProofDirectory is the level of a root that is a plain directory, because the
// host cannot mount EROFS: it was made from verified files, and nothing checks
// it after that.
const ProofDirectory = "directory"

// Launch is what was proven about an image at one launch: which bytes, who
// signed them, which rule of which file accepted that, and how much of the
// chain this host's kernel can enforce from here on.
type Launch struct {
	Version   int       `json:"version"`
	Reference string    `json:"reference"`
	Name      string    `json:"name"` // the reference without tag and digest: what policy rules match
	Index     string    `json:"index,omitempty"`
	Manifest  string    `json:"manifest"`
	Config    string    `json:"config"`
	Platform  string    `json:"platform"`
	Reason    string    `json:"reason"`         // of the verdict, in a word
	Rule      string    `json:"rule,omitempty"` // file:line and prefix
	Signers   []string  `json:"signers,omitempty"`
	Policy    string    `json:"policy"` // hash of the policy that was current
	Insecure  bool      `json:"insecure,omitempty"`
	Tree      string    `json:"tree"`  // digest of the root's index
	Proof     string    `json:"proof"` // level reached: see tree.Proof, and ProofDirectory
	Time      time.Time `json:"time"`
}

// launchName is the file beside an app's bundle that holds a launchFile.
const launchName = "launch.json"

// launchVersion is the version of the launch record and of its file.
const launchVersion = 1

// launchFile is all that running an app needs beside its bundle. The pod
// manifest binds it by digest.
type launchFile struct {
	Version int            `json:"version"`
	Launch  Launch         `json:"launch"` // as of prepare; run-prepared proves anew
	Options bundle.Options `json:"options"`

	Insecure    bool            `json:"insecure,omitempty"` // asked for at prepare
	Platform    string          `json:"platform,omitempty"`
	LogDriver   string          `json:"logDriver"`
	Log         stage1.Log      `json:"log,omitzero"` // what --log-opt says
	Health      *bundle.Health  `json:"health,omitempty"`
	StopSignal  string          `json:"stopSignal"`
	StopTimeout uint            `json:"stopTimeout"` // seconds
	Strict      map[string]bool `json:"strict,omitempty"`
	Binds       []string        `json:"binds,omitempty"` // host paths that must exist at launch
	Mounts      []bundle.Mount  `json:"mounts,omitempty"`
	Images      []mountedImage  `json:"images,omitempty"`
	Contents    contents        `json:"contents"`

	Network  netspec.Choice `json:"network"`
	Fallback bool           `json:"fallback,omitempty"` // it may run without it
	Ports    []netspec.Port `json:"ports,omitempty"`

	IDs string `json:"ids,omitempty"` // the range leased for its user namespace
}
