// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/signature"
)

// TagOptions say how names are given.
type TagOptions struct {
	Platform string
	Insecure bool         // give the name though no rule trusts the image under it
	Warn     func(string) // told when Insecure mattered; may be nil
}

// TagImage gives an image of the store further names. What was proven under
// the old name says nothing about the new one: the policy of this moment
// judges the signatures that were kept under each new name, and a receipt with
// that verdict is sealed for it. Every launch under the name judges again. Without
// a platform that goes for each of which the store has the image; the host's must
// hold, or the only one there is.
func TagImage(e Env, from string, names []string, o TagOptions) error {
	l, err := e.library()
	if err != nil {
		return err
	}
	defer l.close()
	ref, err := image.Parse(from)
	if err != nil {
		return err
	}
	// Until the name is set nobody else knows what its receipt is for.
	release, err := l.trees.Hold()
	if err != nil {
		return err
	}
	defer release()
	named, err := l.toName(ref, o.Platform)
	if err != nil {
		return err
	}
	refs := make([]image.Reference, len(names))
	for i, n := range names {
		if refs[i], err = newName(n); err != nil {
			return err
		}
	}
	for _, to := range refs {
		if err := l.tag(named, to, o); err != nil {
			return err
		}
	}
	return nil
}

// proven is an image for one platform, and what was proven of it.
type proven struct {
	store.Image
	receipt signature.Receipt
}

// toName is what gets the new name, the one that must be trusted under it first.
func (l *library) toName(ref image.Reference, platform string) ([]proven, error) {
	img, receipt, err := l.read(ref, platform)
	if err != nil {
		return nil, err
	}
	named := []proven{{img, receipt}}
	if platform != "" {
		return named, nil
	}
	all, err := l.images(ref)
	if err != nil {
		return nil, unreadable(ref, err)
	}
	for _, other := range all {
		if other.ManifestDescriptor.Digest == img.ManifestDescriptor.Digest {
			continue
		}
		if receipt, err := l.receipt(other); err == nil {
			named = append(named, proven{other, receipt})
		}
	}
	return named, nil
}

// newName reads a name to give: one of a registry, because others are places.
func newName(s string) (image.Reference, error) {
	ref, err := image.Parse(s)
	switch {
	case err != nil:
		return ref, err
	case ref.Transport != image.Registry:
		return ref, hint.With(fmt.Errorf("tag %s: it names a place, not an image", s), "an image is called as on a registry: registry.example.com/acme/web:1")
	case ref.Digest != "":
		return ref, hint.With(fmt.Errorf("tag %s: a digest cannot be given", s), "leave out what follows the @")
	}
	return ref, nil
}

func (l *library) tag(named []proven, to image.Reference, o TagOptions) error {
	if err := l.seal(named[0].receipt, to, o); err != nil {
		return err
	}
	for _, other := range named[1:] {
		// One that is not trusted under this name is refused at its launch.
		if err := l.seal(other.receipt, to, o); err != nil && !errors.Is(err, signature.ErrUntrusted) {
			return err
		}
	}
	if err := l.store.Tag(to, named[0].Descriptor); err != nil {
		return fmt.Errorf("tag %s: %w", to.Familiar(), err)
	}
	return nil
}

// seal writes the receipt of an image under a new name.
func (l *library) seal(r signature.Receipt, to image.Reference, o TagOptions) error {
	from := r.Reference
	r.Reference, r.Name, r.Seal = to.String(), to.Name(), ""
	r.Verdict, r.PolicyHash, r.Insecure = l.policy.Judge(r.Subject(), r.Signatures), l.policy.Hash(), false
	if err := r.Verdict.Err(); err != nil {
		if !o.Insecure {
			return hint.With(err, fmt.Sprintf("a name is judged by its own rule, with the signatures kept of the old one; 'gantry fetch %s --as %s' looks at all there are", familiar(from), to.Familiar()))
		}
		if o.Warn != nil {
			o.Warn("naming it " + to.Familiar() + " without trusting it as that, as --insecure-options=image asks: " + strings.TrimSpace(r.Platform+" "+string(r.Verdict.Reason)))
		}
		r.Insecure = true
	}
	return l.receipts.Save(r)
}

func familiar(s string) string {
	if ref, err := image.Parse(s); err == nil {
		return ref.Familiar()
	}
	return s
}

// HistoryLine is one step in which an image was made.
type HistoryLine struct {
	Layer     digest.Digest `json:"layer,omitempty"` // empty: the step made none
	Created   *time.Time    `json:"created,omitempty"`
	CreatedBy string        `json:"createdBy,omitempty"`
	Size      int64         `json:"size"` // bytes of the layer's files
	Comment   string        `json:"comment,omitempty"`
}

// ImageHistory returns how an image was made, as the image says, the newest
// step first. Sizes are gantry's own.
func ImageHistory(e Env, name, platform string) ([]HistoryLine, error) {
	l, err := e.library()
	if err != nil {
		return nil, err
	}
	defer l.close()
	ref, err := image.Parse(name)
	if err != nil {
		return nil, err
	}
	img, receipt, err := l.read(ref, platform)
	if err != nil && img.ManifestDescriptor.Digest == "" {
		return nil, err
	}
	return history(img, sizes(receipt)), nil
}

func sizes(r signature.Receipt) map[digest.Digest]int64 {
	out := map[digest.Digest]int64{}
	var t tree.Tree
	if json.Unmarshal(r.Tree, &t) != nil {
		return out // without proof sizes are not known
	}
	for _, l := range t.Layers {
		out[l.Blob] = l.Summary.Bytes
	}
	return out
}

// history ties steps to layers. Many tools write none, or too few.
func history(img store.Image, size map[digest.Digest]int64) []HistoryLine {
	layers := img.Manifest.Layers
	lines := []HistoryLine{}
	next := 0
	add := func(line HistoryLine, layer bool) {
		if layer {
			line.Layer, line.Size = layers[next].Digest, size[layers[next].Digest]
			next++
		}
		lines = append([]HistoryLine{line}, lines...)
	}
	for _, h := range img.Config.History {
		add(HistoryLine{Created: h.Created, CreatedBy: h.CreatedBy, Comment: h.Comment}, !h.EmptyLayer && next < len(layers))
	}
	for next < len(layers) {
		add(HistoryLine{}, true)
	}
	return lines
}
