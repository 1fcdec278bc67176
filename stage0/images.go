// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/internal/flock"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/signature"
	"github.com/gantryrun/gantry/stage0/pod"
)

// ImageRecord is one name in the store, and what the policy of this moment
// says about it.
type ImageRecord struct {
	Reference string        `json:"reference"`
	Digest    digest.Digest `json:"digest"`             // of what the name stands for: an index or a manifest
	Manifest  digest.Digest `json:"manifest,omitempty"` // of the platform's image
	Platform  string        `json:"platform,omitempty"`
	Size      int64         `json:"size"` // bytes of the compressed layers
	Created   *time.Time    `json:"created,omitempty"`
	Fetched   time.Time     `json:"fetched,omitzero"`
	// Trust is the verdict's reason in a word: signed, insecure-rule, no-rule,
	// untrusted, …; "unproven" when there is no receipt.
	Trust   string `json:"trust"`
	Problem string `json:"problem,omitempty"`
}

// library is the store, its trees and its receipts, open together.
type library struct {
	e        Env
	store    *store.Store
	trees    *tree.Dir
	receipts *signature.Receipts
	policy   *signature.Policy
}

func (e Env) library() (*library, error) {
	l := &library{e: e}
	var err error
	if l.policy, err = signature.LoadPolicy(e.ConfigPath); err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	if l.store, err = store.Open(filepath.Join(e.Dir, "store")); err != nil {
		return nil, err
	}
	if l.trees, err = e.trees(); err != nil {
		l.close()
		return nil, err
	}
	if l.receipts, err = signature.OpenReceipts(filepath.Join(e.Dir, "receipts"), filepath.Join(e.Dir, "host.key")); err != nil {
		l.close()
		return nil, fmt.Errorf("open receipts: %w", err)
	}
	return l, nil
}

// close accepts a library that is open in part.
func (l *library) close() {
	if l.receipts != nil {
		_ = l.receipts.Close()
	}
	if l.trees != nil {
		_ = l.trees.Close()
	}
	if l.store != nil {
		_ = l.store.Close()
	}
}

// ListImages returns the images of the store by name.
func ListImages(e Env) ([]ImageRecord, error) {
	l, err := e.library()
	if err != nil {
		return nil, err
	}
	defer l.close()
	entries, err := l.store.Entries()
	if err != nil {
		return nil, fmt.Errorf("list store: %w", err)
	}
	out := []ImageRecord{}
	for _, entry := range entries {
		if entry.Name == "" {
			continue // a signature, attached to an image by its subject
		}
		out = append(out, l.record(entry, ""))
	}
	return out, nil
}

func (l *library) record(entry store.Entry, platform string) ImageRecord {
	r := ImageRecord{Reference: entry.Name, Digest: entry.Descriptor.Digest, Trust: "unproven"}
	img, receipt, err := l.read(entry.Reference, platform)
	if img.ManifestDescriptor.Digest != "" {
		r.Manifest = img.ManifestDescriptor.Digest
		r.Platform = image.FormatPlatform(img.Config.Platform)
		r.Created = img.Config.Created
		for _, layer := range img.Manifest.Layers {
			r.Size += layer.Size
		}
	}
	if err != nil {
		r.Problem = err.Error()
		return r
	}
	r.Fetched = receipt.Time
	r.Trust = string(l.policy.Judge(receipt.Subject(), receipt.Signatures).Reason)
	return r
}

// read returns an image of the store and its receipt. The image is there,
// also when the receipt is not. Without a platform it is this host's or, when
// that was not fetched, the first that was.
func (l *library) read(ref image.Reference, platform string) (store.Image, signature.Receipt, error) {
	p, err := platformOf(platform)
	if err != nil {
		return store.Image{}, signature.Receipt{}, err
	}
	img, err := l.store.Manifest(ref, p)
	if err != nil && platform == "" {
		if others, _ := l.images(ref); len(others) > 0 {
			img, err = others[0], nil
		}
	}
	if errors.Is(err, store.ErrNotFound) {
		return img, signature.Receipt{}, &notHere{ref.Familiar(), store.ErrNotFound}
	}
	if err != nil {
		return img, signature.Receipt{}, unreadable(ref, err)
	}
	receipt, err := l.receipt(img)
	return img, receipt, err
}

func (l *library) receipt(img store.Image) (signature.Receipt, error) {
	receipt, err := l.receipts.LoadAny(img.Names(), img.ManifestDescriptor.Digest)
	if errors.Is(err, signature.ErrNoReceipt) || errors.Is(err, signature.ErrSeal) {
		err = &notHere{img.Reference.Familiar(), err}
	}
	return receipt, err
}

// images returns what was fetched under a name, for each platform. Others may be
// in the store because another name has them; they count when nothing tells
// what was fetched.
func (l *library) images(ref image.Reference) ([]store.Image, error) {
	all, err := l.store.Images(ref)
	if err != nil {
		return nil, err
	}
	fetched := slices.DeleteFunc(slices.Clone(all), func(img store.Image) bool {
		_, err := l.receipt(img)
		return errors.Is(err, signature.ErrNoReceipt)
	})
	if len(fetched) == 0 {
		return all, nil
	}
	return fetched, nil
}

// ImageInspection is everything known of an image in the store.
type ImageInspection struct {
	ImageRecord
	Config     any               `json:"config"`   // the image's configuration
	Document   any               `json:"document"` // its manifest
	Verdict    signature.Verdict `json:"verdict"`  // under the policy of this moment
	Proof      string            `json:"proof"`    // how the tree's bytes are proven on this host
	Tree       *tree.Tree        `json:"tree,omitempty"`
	Layers     []digest.Digest   `json:"layers"`
	FetchedBy  string            `json:"fetchedBy,omitempty"`
	Signatures int               `json:"signatures"` // kept with the receipt
}

// InspectImage returns everything known of an image in the store.
func InspectImage(e Env, name, platform string) (ImageInspection, error) {
	l, err := e.library()
	if err != nil {
		return ImageInspection{}, err
	}
	defer l.close()
	ref, err := image.Parse(name)
	if err != nil {
		return ImageInspection{}, err
	}
	img, receipt, err := l.read(ref, platform)
	if err != nil && img.ManifestDescriptor.Digest == "" {
		return ImageInspection{}, err
	}
	i := ImageInspection{
		ImageRecord: l.record(store.Entry{Name: img.Reference.String(), Reference: img.Reference, Descriptor: img.Descriptor}, platform),
		Config:      json.RawMessage(img.ConfigBytes), Document: json.RawMessage(img.ManifestBytes),
	}
	for _, layer := range img.Manifest.Layers {
		i.Layers = append(i.Layers, layer.Digest)
	}
	if err != nil {
		return i, nil // the record names the problem
	}
	i.Verdict = l.policy.Judge(receipt.Subject(), receipt.Signatures)
	i.FetchedBy, i.Signatures = receipt.By, len(receipt.Signatures)
	v := &Verified{}
	proof, err := e.verifyTree(receipt, v)
	if err != nil {
		i.Problem = err.Error()
		return i, nil
	}
	i.Proof, i.Tree = string(proof.Level), &v.Tree
	return i, nil
}

// Explain judges an image of the store under the policy of this moment. The
// error tells that nothing was ever proven of it here.
func Explain(e Env, name, platform string) (signature.Verdict, error) {
	l, err := e.library()
	if err != nil {
		return signature.Verdict{}, err
	}
	defer l.close()
	ref, err := image.Parse(name)
	if err != nil {
		return signature.Verdict{}, err
	}
	_, receipt, err := l.read(ref, platform)
	if err != nil {
		return signature.Verdict{}, err
	}
	return l.policy.Judge(receipt.Subject(), receipt.Signatures), nil
}

// ImageCheck is the result of verifying one image from its name to the last
// byte of its files.
type ImageCheck struct {
	Reference string   `json:"reference"`
	Platform  string   `json:"platform,omitempty"` // none when its documents cannot be read
	OK        bool     `json:"ok"`
	Problems  []string `json:"problems,omitempty"`
	Proof     string   `json:"proof,omitempty"`
}

// VerifyImages reads everything the store has of the named images (none: of
// all), for each platform that was fetched, and checks it: blobs, seal, current
// policy, and each file of the tree, whatever was checked before.
func VerifyImages(ctx context.Context, e Env, names []string) ([]ImageCheck, error) {
	l, err := e.library()
	if err != nil {
		return nil, err
	}
	defer l.close()
	var refs []image.Reference
	for _, n := range names {
		ref, err := image.Parse(n)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	if len(names) == 0 {
		entries, err := l.store.Entries()
		if err != nil {
			return nil, fmt.Errorf("list store: %w", err)
		}
		for _, entry := range entries {
			if entry.Name != "" {
				refs = append(refs, entry.Reference)
			}
		}
	}
	out := []ImageCheck{}
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		out = append(out, l.verify(ref)...)
	}
	return out, nil
}

func (l *library) verify(ref image.Reference) []ImageCheck {
	images, err := l.images(ref)
	if err == nil && len(images) == 0 || errors.Is(err, store.ErrNotFound) {
		err = &notHere{ref.Familiar(), store.ErrNotFound}
	}
	if err != nil {
		return []ImageCheck{{Reference: ref.String(), Problems: []string{err.Error()}}}
	}
	checks := make([]ImageCheck, len(images))
	for i, img := range images {
		checks[i] = l.verifyImage(img)
	}
	return checks
}

func (l *library) verifyImage(img store.Image) ImageCheck {
	c := ImageCheck{Reference: img.Reference.String(), Platform: image.FormatPlatform(img.Config.Platform)}
	bad := func(format string, args ...any) { c.Problems = append(c.Problems, fmt.Sprintf(format, args...)) }
	for _, d := range append([]ispec.Descriptor{img.ManifestDescriptor, img.Manifest.Config}, img.Manifest.Layers...) {
		if err := l.store.Verify(d); err != nil {
			bad("blob %s: %v", d.Digest, err)
		}
	}
	if receipt, err := l.receipt(img); err != nil {
		bad("%v", err)
	} else {
		l.verifyReceipt(&c, img, receipt, bad)
	}
	c.OK = len(c.Problems) == 0
	return c
}

func (l *library) verifyReceipt(c *ImageCheck, img store.Image, receipt signature.Receipt, bad func(string, ...any)) {
	if err := sameImage(receipt, img); err != nil {
		bad("%v", err)
	}
	if v := l.policy.Judge(receipt.Subject(), receipt.Signatures); !v.Accepted {
		bad("the policy refuses it: %s", v.Reason)
	}
	var t tree.Tree
	if err := json.Unmarshal(receipt.Tree, &t); err != nil {
		bad("tree: %v", err)
		return
	}
	proof, err := l.trees.Verify(t, l.e.RunDir, tree.LevelFull)
	if err != nil {
		bad("tree: %v", err)
	}
	c.Proof = string(proof.Level)
}

// ImageFreed is what removing or collecting images gave back.
type ImageFreed struct {
	Names []string `json:"names"` // no longer in the store
	Blobs int      `json:"blobs"`
	Trees int      `json:"trees"` // files of trees
	Bytes int64    `json:"bytes"`
	// Fetching means that trees and receipts were left alone because a fetch
	// goes on, which may want them.
	Fetching bool `json:"fetching,omitempty"`
}

// ImageInUse is returned for an image that prepared or running pods are made
// from.
type ImageInUse struct {
	Reference string
	Pods      []string // their UUIDs
}

func (u *ImageInUse) Error() string {
	return fmt.Sprintf("image %s is used by pod %s", u.Reference, pod.Short(u.Pods[0]))
}

// Hint says what to do about it.
func (u *ImageInUse) Hint() string {
	return fmt.Sprintf("'gantry rm --force %s' removes the pod, 'gantry image rm --force' the image all the same: a running pod keeps its files until it ends", u.Pods[0])
}

// RemoveImages takes names out of the store and frees what nothing else needs.
// Without force an image that pods are made from keeps its last name. It needs
// no room on the disk.
func RemoveImages(e Env, names []string, force bool) (ImageFreed, error) {
	l, err := e.library()
	if err != nil {
		return ImageFreed{}, err
	}
	defer l.close()
	freed := ImageFreed{Names: []string{}}
	pins, err := l.pins()
	if err != nil {
		return freed, err
	}
	var errs []error
	for _, name := range names {
		if err := l.untag(name, pins, force); err != nil {
			errs = append(errs, err)
			continue
		}
		freed.Names = append(freed.Names, name)
	}
	if len(freed.Names) > 0 {
		errs = append(errs, l.collect(&freed, pins))
	}
	return freed, errors.Join(errs...)
}

func (l *library) untag(name string, pins needs[digest.Digest], force bool) error {
	ref, err := image.Parse(name)
	if err != nil {
		return err
	}
	if images, err := l.images(ref); err == nil && !force {
		for _, img := range images {
			users := pins.by[img.ManifestDescriptor.Digest]
			if len(users) == 0 {
				continue
			}
			if more, err := l.otherName(ref, img.Descriptor.Digest); err != nil || !more {
				return errors.Join(&ImageInUse{ref.Familiar(), users}, err)
			}
		}
		if err := pins.doubt("image " + ref.Familiar()); err != nil {
			return err
		}
	}
	if err := l.store.Untag(ref); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return hint.With(fmt.Errorf("image %s: %w", ref.Familiar(), store.ErrNotFound), l.whatIs(ref))
		}
		return fmt.Errorf("remove %s: %w", ref.Familiar(), err)
	}
	return nil
}

// whatIs helps who names what is no name of the store: a digest is found under
// its tags, and goes with them.
func (l *library) whatIs(ref image.Reference) string {
	if images, err := l.store.Images(ref); err == nil && len(images) > 0 {
		if names := images[0].Names(); len(names) > 1 {
			return "it is there by the name " + familiar(names[1]) + ", which can be removed"
		}
	}
	return "'gantry image ls' lists what is"
}

// otherName tells whether the store has the image under another name, too.
func (l *library) otherName(ref image.Reference, d digest.Digest) (bool, error) {
	entries, err := l.store.Entries()
	return slices.ContainsFunc(entries, func(e store.Entry) bool {
		return e.Name != "" && e.Name != ref.String() && e.Descriptor.Digest == d
	}), err
}

// GCImages frees what no name and no pod needs: blobs, receipts and trees of
// replaced and removed images, and what interrupted fetches left.
func GCImages(e Env) (ImageFreed, error) {
	l, err := e.library()
	if err != nil {
		return ImageFreed{}, err
	}
	defer l.close()
	freed := ImageFreed{Names: []string{}}
	pins, err := l.pins()
	if err != nil {
		return freed, err
	}
	return freed, l.collect(&freed, pins)
}

// pins are the manifests that prepared and running pods are made from, with
// the pods. The fetch of one that is being made holds a lease.
func (l *library) pins() (needs[digest.Digest], error) {
	var pins needs[digest.Digest]
	err := l.e.pods().List(func(p *pod.Pod) error {
		pins.add(p, func(m pod.Manifest) (of []digest.Digest) {
			for _, a := range m.Apps {
				of = append(of, digest.Digest(a.Manifest))
			}
			for _, i := range m.Images {
				of = append(of, digest.Digest(i.Manifest))
			}
			return of
		})
		return nil
	}, pod.Prepare, pod.Prepared, pod.Run)
	return pins, err
}

// collect sweeps the store, then the receipts of what is gone, then the trees
// no receipt names: in this order a kill in between leaves more than needed,
// never less. Receipts and trees stay while a fetch goes on, which seals its
// receipt before it sets the name, and are left to the next that collects.
func (l *library) collect(freed *ImageFreed, pins needs[digest.Digest]) error {
	if err := pins.doubt("what no name needs"); err != nil {
		return fmt.Errorf("collect images: %w", err)
	}
	f, err := l.store.GC(func(d digest.Digest) bool { return len(pins.by[d]) > 0 })
	freed.Blobs += f.Blobs
	freed.Bytes += f.Bytes
	if err != nil {
		return fmt.Errorf("collect blobs: %w", err)
	}
	g, err := l.trees.GC(func() ([]tree.Tree, error) { return l.collectReceipts(pins) })
	freed.Trees += g.Files
	freed.Bytes += g.Bytes
	if errors.Is(err, flock.ErrLocked) {
		freed.Fetching = true
		return nil
	}
	return err
}

// collectReceipts removes the receipts that neither a name nor a pod needs, and
// returns the trees of the others.
func (l *library) collectReceipts(pins needs[digest.Digest]) ([]tree.Tree, error) {
	receipts, err := l.receipts.List()
	if err := mayHold(err); err != nil {
		return nil, hint.With(err, "the trees stay, since it may be about one of them: use the gantry that wrote it, or fetch the image again")
	}
	var keep []tree.Tree
	for _, r := range receipts {
		if !l.named(r) && len(pins.by[r.Manifest]) == 0 {
			if err := l.receipts.Remove(r.Reference, r.Manifest); err != nil {
				return nil, err
			}
			continue
		}
		var t tree.Tree
		if err := json.Unmarshal(r.Tree, &t); err == nil {
			keep = append(keep, t)
		}
	}
	return keep, nil
}

// mayHold returns the first fault of a receipt that may be good, as one of a
// newer gantry is. One whose seal is broken proves nothing, and pins nothing.
func mayHold(err error) error {
	var all interface{ Unwrap() []error }
	if !errors.As(err, &all) {
		return err
	}
	for _, one := range all.Unwrap() {
		if !errors.Is(one, signature.ErrSeal) {
			return one
		}
	}
	return nil
}

// named tells whether the receipt's reference still is a name of the store, and
// of the image that the receipt is about.
func (l *library) named(r signature.Receipt) bool {
	ref, err := image.Parse(r.Reference)
	if err != nil {
		return false
	}
	d, err := l.store.Resolve(ref)
	return err == nil && (d.Digest == r.Manifest || d.Digest == r.Index)
}
