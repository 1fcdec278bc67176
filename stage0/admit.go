// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/internal/jsonin"
	"github.com/gantryrun/gantry/signature"
)

// AdmitOptions narrow what is admitted.
type AdmitOptions struct {
	Platform string // os/arch[/variant]; empty means this host's
	// Manifest, when set, is the only one admitted: what a prepared pod was
	// made from, whatever the reference names today.
	Manifest digest.Digest
	Insecure bool         // admit it though the policy refuses; the record says so
	Warn     func(string) // told when Insecure mattered, every time; may be nil
}

// Verified is an image that was proven fit for one launch. The proof is about
// now: it is made again for the next.
type Verified struct {
	Launch Launch
	Health *image.Healthcheck // of the configuration
	Config ispec.ImageConfig  // zero for a bound manifest: its bundle exists
	Tree   tree.Tree
}

// Admit proves, at every launch and without a network, that an image may run:
// the reference is in the store; its receipt was sealed by this host; the
// policy as it is now accepts the signatures of the receipt, each verified
// again; manifest and configuration are the bytes the receipt is about; and
// the root's files are those that were made from them.
func Admit(ctx context.Context, e Env, ref string, o AdmitOptions) (*Verified, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := image.Parse(ref)
	if err != nil {
		return nil, err
	}
	platform, err := platformOf(o.Platform)
	if err != nil {
		return nil, err
	}
	v := &Verified{}
	manifest, names := o.Manifest, []string{r.String()}
	var img store.Image
	if manifest == "" {
		if img, err = e.storedImage(r, platform); err != nil {
			return nil, err
		}
		manifest, names, v.Config = img.ManifestDescriptor.Digest, img.Names(), img.Config.Config
		if v.Health, err = image.ParseHealthcheck(img.ConfigBytes); err != nil {
			return nil, err
		}
	}
	receipt, err := e.receipt(r, names, manifest)
	if err != nil {
		return nil, err
	}
	if o.Manifest == "" {
		if err := sameImage(receipt, img); err != nil {
			return nil, err
		}
	}
	verdict, hash, err := e.judge(receipt, o)
	if err != nil {
		return nil, err
	}
	proof, err := e.verifyTree(receipt, v)
	if err != nil {
		return nil, err
	}
	v.Launch = launchRecord(receipt, verdict, hash, v.Tree, proof)
	v.Launch.Platform = image.FormatPlatform(platform)
	return v, nil
}

func platformOf(s string) (ispec.Platform, error) {
	if s == "" {
		return image.HostPlatform(), nil
	}
	return image.ParsePlatform(s)
}

// notHere says that an image must be fetched before it can be launched.
type notHere struct {
	ref string
	err error
}

func (e *notHere) Error() string { return fmt.Sprintf("image %s: %v", e.ref, e.err) }
func (e *notHere) Unwrap() error { return e.err }
func (e *notHere) Hint() string  { return fmt.Sprintf("'gantry fetch %s' brings it", e.ref) }

// damaged says that the files on the disk are not those that were sealed.
type damaged struct {
	ref string
	err error
}

func (e *damaged) Error() string { return fmt.Sprintf("verify root of %s: %v", e.ref, e.err) }
func (e *damaged) Unwrap() error { return e.err }
func (e *damaged) Hint() string {
	return fmt.Sprintf("somebody changed the file, or the disk is failing; 'gantry fetch %s' makes it again from its source", e.ref)
}

// storedImage reads what the reference means from the store, every document
// checked against its digest.
func (e Env) storedImage(r image.Reference, p ispec.Platform) (store.Image, error) {
	s, err := store.Open(filepath.Join(e.Dir, "store"))
	if err != nil {
		return store.Image{}, err
	}
	defer s.Close()
	img, err := s.Manifest(r, p)
	if errors.Is(err, store.ErrNotFound) {
		return store.Image{}, &notHere{r.Familiar(), store.ErrNotFound}
	}
	return img, unreadable(r, err)
}

// unreadable says what to do about a document that is not what was stored.
func unreadable(r image.Reference, err error) error {
	if errors.Is(err, store.ErrCorrupt) {
		return hint.With(err, fmt.Sprintf("somebody changed the file, or the disk is failing; 'gantry fetch %s' brings it again", r.Familiar()))
	}
	return err
}

// receipt loads what was proven when the image was fetched, if the seal holds.
// Rules are about names without tag and digest: what was proven of a digest under
// one tag of a repository is proven of it under all.
func (e Env) receipt(r image.Reference, names []string, manifest digest.Digest) (signature.Receipt, error) {
	rs, err := signature.OpenReceipts(filepath.Join(e.Dir, "receipts"), filepath.Join(e.Dir, "host.key"))
	if err != nil {
		return signature.Receipt{}, fmt.Errorf("open receipts: %w", err)
	}
	defer rs.Close()
	receipt, err := rs.LoadAny(names, manifest)
	if errors.Is(err, signature.ErrNoReceipt) || errors.Is(err, signature.ErrSeal) {
		return signature.Receipt{}, &notHere{r.Familiar(), err}
	}
	return receipt, err
}

// sameImage checks that the receipt is about the very documents in the store.
func sameImage(r signature.Receipt, img store.Image) error {
	switch {
	case r.Manifest != img.ManifestDescriptor.Digest, r.Config != img.Manifest.Config.Digest, r.Index != img.Index:
		return &notHere{img.Reference.Familiar(), errors.New("the store holds another image than the one proven")}
	case len(r.Layers) != len(img.Manifest.Layers):
		return fmt.Errorf("image %s: its receipt has %d layers, its manifest %d", img.Reference.Familiar(), len(r.Layers), len(img.Manifest.Layers))
	}
	for i, l := range r.Layers {
		if l.Digest != img.Manifest.Layers[i].Digest {
			return fmt.Errorf("image %s: layer %d of its receipt is not that of its manifest", img.Reference.Familiar(), i)
		}
	}
	return nil
}

// SignedSince tells what may mend the refusal of an image in the store: it was
// judged by the signatures kept of it, and may have been signed since, as when a
// key is rotated. It is empty where no signature would help.
func SignedSince(ref string, v signature.Verdict) string {
	if v.Reason != signature.ReasonUntrusted && v.Reason != signature.ReasonUnsigned {
		return ""
	}
	return fmt.Sprintf("judged are the signatures that were kept when it was fetched; 'gantry fetch %s' looks for those made since", familiar(ref))
}

// judge asks the policy as it is now about the signatures as they were found.
func (e Env) judge(r signature.Receipt, o AdmitOptions) (signature.Verdict, string, error) {
	policy, err := signature.LoadPolicy(e.ConfigPath)
	if err != nil {
		return signature.Verdict{}, "", fmt.Errorf("load policy: %w", err)
	}
	verdict := policy.Judge(r.Subject(), r.Signatures)
	if err := verdict.Err(); err != nil {
		if !o.Insecure {
			if next := SignedSince(r.Reference, verdict); next != "" {
				err = hint.With(err, next)
			}
			return verdict, "", err
		}
		verdict.Insecure = true
		if o.Warn != nil {
			o.Warn("running " + r.Reference + " without trusting it, as --insecure-options=image asks: " + string(verdict.Reason))
		}
	}
	return verdict, policy.Hash(), nil
}

// verifyTree checks the bytes that will be the root.
func (e Env) verifyTree(r signature.Receipt, v *Verified) (tree.Proof, error) {
	if err := jsonin.Unmarshal(r.Tree, &v.Tree); err != nil {
		return tree.Proof{}, fmt.Errorf("read tree of %s: %w", r.Reference, err)
	}
	// The layers are what ties the root's files to the signed manifest.
	if len(v.Tree.Layers) != len(r.Layers) {
		return tree.Proof{}, fmt.Errorf("tree of %s: it has %d layers, the manifest %d", r.Reference, len(v.Tree.Layers), len(r.Layers))
	}
	for i, l := range v.Tree.Layers {
		if l.Blob != r.Layers[i].Digest {
			return tree.Proof{}, fmt.Errorf("tree of %s: layer %d was made from another blob", r.Reference, i)
		}
	}
	trees, err := e.trees()
	if err != nil {
		return tree.Proof{}, err
	}
	defer trees.Close()
	proof, err := trees.Verify(v.Tree, e.RunDir, tree.LevelCached)
	if errors.Is(err, tree.ErrChanged) {
		return proof, &damaged{r.Reference, err}
	}
	if err != nil {
		return proof, fmt.Errorf("verify root of %s: %w", r.Reference, err)
	}
	v.Tree = v.Tree.Proven(proof)
	return proof, nil
}

func (e Env) trees() (*tree.Dir, error) {
	d, err := tree.Open(filepath.Join(e.Dir, "trees"), nil)
	if err != nil {
		return nil, fmt.Errorf("open trees: %w", err)
	}
	return d, nil
}

func launchRecord(r signature.Receipt, v signature.Verdict, hash string, t tree.Tree, p tree.Proof) Launch {
	l := Launch{
		Version: launchVersion, Reference: r.Reference, Name: r.Name,
		Index: r.Index.String(), Manifest: r.Manifest.String(), Config: r.Config.String(),
		Reason: string(v.Reason), Policy: hash, Insecure: v.Insecure,
		Tree: t.Image.Digest.String(), Proof: p.Level, Time: time.Now().UTC(),
	}
	if v.Rule.File != "" {
		l.Rule = fmt.Sprintf("%s:%d (%s)", v.Rule.File, v.Rule.Line, v.Rule.Prefix)
	}
	for _, s := range v.By {
		l.Signers = append(l.Signers, fmt.Sprintf("%s %s (%s)", s.Format, s.KeyID, s.KeyFile))
	}
	return l
}
