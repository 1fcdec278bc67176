// SPDX-License-Identifier: Apache-2.0

// Package fetch brings an image into the store and refuses what the policy
// refuses: name to digest, digest to signatures, signatures to verdict, and
// only then configuration and layers.
//
// It runs as root and is linked into gantry, so it handles foreign bytes only
// as bytes: it copies, counts and hashes them. Whatever has to understand them
// before they are known to be what a trusted digest says runs in workers (see
// fetch/worker), which it starts, bounds, and does not believe. There is no
// TLS, no HTTP and no decompression in here.
package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/fetch/registries"
	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/internal/version"
	"github.com/gantryrun/gantry/signature"
)

// Pull says when the source is asked.
type Pull string

// Pull policies. The zero value is Missing.
const (
	Missing Pull = "missing" // only when something is not here
	Always  Pull = "always"  // the name is resolved again
	Newer   Pull = "newer"   // as always, but what is here will do when the source cannot be reached
	Never   Pull = "never"
)

// ParsePull reads --pull.
func ParsePull(s string) (Pull, error) {
	switch p := Pull(s); p {
	case Missing, Always, Newer, Never:
		return p, nil
	case "":
		return Missing, nil
	}
	return "", fmt.Errorf("--pull=%s: must be always, missing, newer or never", s)
}

// Insecure is what --insecure-options gives up, one by one.
type Insecure struct {
	Image bool // no verdict is asked for
	TLS   bool // any certificate will do
	HTTP  bool // plain HTTP will do
}

// Progress is told how a fetch goes on. Calls come from several goroutines.
type Progress interface {
	// Layer reports bytes done of total in a phase. Total is the blob's size.
	Layer(d digest.Digest, done, total int64, phase Phase)
	// Line is a sentence for people: a warning, a decision.
	Line(string)
}

// Phase of a layer.
type Phase string

// Phases, in order. A layer that is here already goes straight to Exists.
const (
	Waiting  Phase = "waiting"
	Download Phase = "download"
	Convert  Phase = "convert" // all bytes are here, the tree is being finished
	Done     Phase = "done"
	Exists   Phase = "exists"
)

// Request is one fetch. Store, Trees and Receipts stay the caller's.
type Request struct {
	Ref image.Reference
	// From is where the bytes and the signatures come from when that is not
	// what the image is to be called: it is stored, and judged, as Ref. The
	// zero value is Ref.
	From     image.Reference
	Platform ispec.Platform // zero: this host's
	Policy   *signature.Policy
	Pull     Pull
	Insecure Insecure
	AuthFile string // --authfile
	// Registries are what this host knows of registries; nil is nothing.
	Registries *registries.Registries
	Libexec    string // directory of gantry-fetch
	Limits     tree.Limits
	Store      *store.Store
	Trees      *tree.Dir
	Receipts   *signature.Receipts
	Progress   Progress // nil for silence
	Stdin      *os.File // what a source called "-" is read from
}

// source is where the bytes come from.
func (r Request) source() image.Reference {
	if r.From != (image.Reference{}) {
		return r.From
	}
	return r.Ref
}

// Result is an image that is here, verified and ready to mount.
type Result struct {
	Image   store.Image
	Tree    tree.Tree
	Receipt signature.Receipt
	Fetched bool // false: nothing had to be brought
}

// fetcher is one run.
type fetcher struct {
	Request
	src    source
	local  *Result // what is here already under this name, judged or not
	mirror bool    // there is another place to ask
}

// Fetch brings an image, or makes sure that it is here. The name is tagged
// and the receipt written last: whatever ends a fetch early leaves blobs
// nobody refers to, never an image half trusted.
func Fetch(ctx context.Context, r Request) (Result, error) {
	if r.Platform.OS == "" {
		r.Platform = image.HostPlatform()
	}
	if r.Progress == nil {
		r.Progress = silent{}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &fetcher{Request: r}
	res, err := f.run(ctx)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("fetch %s: %w", r.Ref.Familiar(), context.Cause(ctx))
	}
	return res, err
}

type silent struct{}

func (silent) Layer(digest.Digest, int64, int64, Phase) {}
func (silent) Line(string)                              {}

func (f *fetcher) run(ctx context.Context) (Result, error) {
	if f.Insecure.Image {
		f.Progress.Line("warning: --insecure-options=image: " + f.Ref.Familiar() + " is not checked against any signature")
	}
	here, why := f.here()
	switch {
	case f.Pull == Never && here == nil:
		return Result{}, missing(f.Ref, why.Error())
	case f.Pull == Never || f.Pull == Missing || f.Pull == "":
		if res, err := f.keep(here); err == nil || f.Pull == Never {
			return res, err
		}
	}
	f.local = here
	res, done, refused := f.fromMirrors(ctx)
	if done {
		return res, nil
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	res, err := f.fromSource(ctx)
	if err != nil {
		return res, besides(err, refused)
	}
	f.tell(refused)
	return res, nil
}

// fromSource brings the image from where it lives.
func (f *fetcher) fromSource(ctx context.Context) (Result, error) {
	src, err := openSource(ctx, f.Request)
	if err != nil {
		return f.without(err)
	}
	defer src.Close()
	f.src = src
	return f.bring(ctx)
}

// bring does the whole way. For a digest that is here already that is its
// signatures again (a key may have been rotated) and hashing what is here.
func (f *fetcher) bring(ctx context.Context) (Result, error) {
	img, raw, err := f.resolve(ctx)
	if err != nil {
		return f.without(err)
	}
	verdict, sigs, err := f.judge(ctx, img)
	if err != nil {
		return Result{}, err
	}
	if err := f.config(ctx, &img); err != nil {
		return Result{}, err
	}
	// Until the receipt is saved nobody else knows that the layers are wanted.
	release, err := f.Trees.Hold()
	if err != nil {
		return Result{}, err
	}
	defer release()
	layers, err := f.layers(ctx, img)
	if err != nil {
		return Result{}, err
	}
	t, err := f.merge(ctx, layers)
	if err != nil {
		return Result{}, err
	}
	for _, m := range raw {
		if err := f.put(ctx, m.d, m.b); err != nil {
			return Result{}, err
		}
	}
	return f.finish(img, t, verdict, sigs)
}

// finish writes what makes the image usable.
func (f *fetcher) finish(img store.Image, t tree.Tree, v signature.Verdict, sigs []signature.Signature) (Result, error) {
	treeJSON, err := json.Marshal(t)
	if err != nil {
		return Result{}, fmt.Errorf("encode tree: %w", err)
	}
	rc := signature.Receipt{
		Reference: f.Ref.String(), Name: f.Ref.Name(),
		Index: img.Index, Manifest: img.ManifestDescriptor.Digest, Config: img.Manifest.Config.Digest,
		Platform: image.FormatPlatform(f.Platform), Layers: img.Manifest.Layers, Tree: treeJSON,
		Signatures: sigs, Verdict: v, PolicyHash: f.policyHash(), Insecure: f.Insecure.Image,
		Time: time.Now(), By: version.String(),
	}
	if err := f.Receipts.Save(rc); err != nil {
		return Result{}, err
	}
	if err := f.Store.Tag(f.Ref, img.Descriptor); err != nil {
		return Result{}, err
	}
	return Result{Image: img, Tree: t, Receipt: rc, Fetched: !f.had(img, t)}, nil
}

// had tells whether the very same was here before.
func (f *fetcher) had(img store.Image, t tree.Tree) bool {
	return f.local != nil && f.local.Image.Descriptor.Digest == img.Descriptor.Digest && sameTree(f.local.Tree, t)
}

func (f *fetcher) policyHash() string {
	if f.Policy == nil {
		return ""
	}
	return f.Policy.Hash()
}

// without falls back on what is here when the source cannot be asked and the
// user said that this will do.
func (f *fetcher) without(err error) (Result, error) {
	if f.mirror || f.Pull != Newer || f.local == nil || !errors.Is(err, ErrUnreachable) {
		return Result{}, err
	}
	res, keepErr := f.keep(f.local)
	if keepErr != nil {
		return Result{}, errors.Join(err, keepErr)
	}
	f.Progress.Line(fmt.Sprintf("warning: %v; using what is here", err))
	return res, nil
}
