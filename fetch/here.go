// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/signature"
)

// here finds what the store has under the name, complete: manifest,
// configuration, every layer's blob, the tree, a receipt whose seal holds.
// Otherwise it says what is missing.
func (f *fetcher) here() (*Result, error) {
	img, err := f.Store.Manifest(f.Ref, f.Platform)
	if errors.Is(err, store.ErrNotFound) {
		return nil, errors.New("it is not here")
	}
	if err != nil {
		return nil, fmt.Errorf("what is here cannot be used (%w)", err)
	}
	rc, err := f.Receipts.LoadAny(img.Names(), img.ManifestDescriptor.Digest)
	if err != nil {
		return nil, fmt.Errorf("it is here without proof (%w)", err)
	}
	res := &Result{Image: img, Receipt: rc}
	if err := json.Unmarshal(rc.Tree, &res.Tree); err != nil {
		return nil, fmt.Errorf("it is here, but its receipt names no tree (%w)", err)
	}
	for _, l := range img.Manifest.Layers {
		if !f.Store.Has(l) {
			return nil, fmt.Errorf("it is here without layer %s", l.Digest)
		}
	}
	if !f.treePresent(res.Tree) {
		return nil, errors.New("it is here without its file system tree")
	}
	return res, nil
}

// treePresent looks only for the files. What is in them is proven at every
// launch; hashing them here would cost each of those a second time.
func (f *fetcher) treePresent(t tree.Tree) bool {
	files := []tree.File{t.Image}
	for _, l := range t.Layers {
		files = append(files, l.Data, l.Index)
	}
	for _, want := range files {
		fi, err := os.Lstat(filepath.Join(f.Trees.Path(), filepath.FromSlash(want.Path)))
		if err != nil || !fi.Mode().IsRegular() || fi.Size() != want.Size {
			return false
		}
	}
	return t.Image.Path != ""
}

func sameTree(a, b tree.Tree) bool {
	return a.Version == b.Version && a.Key == b.Key && a.Image == b.Image &&
		slices.EqualFunc(a.Layers, b.Layers, func(x, y tree.Layer) bool { return x.Data == y.Data && x.Index == y.Index })
}

// keep judges what is here under the policy of now, from the signatures kept
// in its receipt, without the source. A verdict that changed is written down.
func (f *fetcher) keep(here *Result) (Result, error) {
	if here == nil {
		return Result{}, ErrNotFound
	}
	res := *here
	if f.Insecure.Image {
		return res, nil
	}
	current := !res.Receipt.Insecure && res.Receipt.Verdict.Accepted && res.Receipt.PolicyHash == f.policyHash()
	if current {
		return res, nil
	}
	v := f.Policy.Judge(res.Receipt.Subject(), res.Receipt.Signatures)
	if err := v.Err(); err != nil {
		return Result{}, err
	}
	res.Receipt.Verdict, res.Receipt.PolicyHash, res.Receipt.Insecure = v, f.policyHash(), false
	if err := f.Receipts.Save(res.Receipt); err != nil {
		return Result{}, err
	}
	return res, nil
}

// counting keeps, of all that was found, the signatures that made the verdict:
// those, judged alone, give the same. The rest is noise a receipt need not
// carry.
func counting(p *signature.Policy, s signature.Subject, sigs []signature.Signature) ([]signature.Signature, signature.Verdict) {
	var kept []signature.Signature
	for _, sig := range sigs {
		if p.Judge(s, []signature.Signature{sig}).Accepted {
			kept = append(kept, sig)
		}
	}
	return kept, p.Judge(s, kept)
}
