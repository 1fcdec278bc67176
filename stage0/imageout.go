// SPDX-License-Identifier: Apache-2.0

package stage0

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/image/tree"
	"github.com/gantryrun/gantry/internal/hint"
	"github.com/gantryrun/gantry/signature"
)

// Export opens images of the store to be written somewhere else. The caller
// closes it.
type Export struct {
	l      *library
	images []store.Exported
	// Notes say what does not go along.
	Notes []string
}

// OpenExport reads what the names stand for. With signatures those go along
// that are kept, so that who reads the export can judge it again.
func OpenExport(e Env, names []string, platform string, signatures bool) (*Export, error) {
	l, err := e.library()
	if err != nil {
		return nil, err
	}
	x := &Export{l: l}
	for _, name := range names {
		if err := x.add(name, platform, signatures); err != nil {
			l.close()
			return nil, err
		}
	}
	return x, nil
}

// Close ends the export.
func (x *Export) Close() { x.l.close() }

func (x *Export) add(name, platform string, signatures bool) error {
	ref, err := image.Parse(name)
	if err != nil {
		return err
	}
	img, receipt, err := x.l.read(ref, platform)
	if err != nil && img.ManifestDescriptor.Digest == "" {
		return err
	}
	e := store.Exported{Image: img, Loose: map[digest.Digest][]byte{}}
	if ref.Transport == image.Registry && ref.Tag != "" {
		e.Name = image.Reference{Host: ref.Host, Repository: ref.Repository, Tag: ref.Tag}.Familiar()
		e.Tags = []string{e.Name}
	} else if ref.Transport == image.Layout || ref.Transport == image.OCIArchive {
		e.Name = ref.Tag
	}
	left := 0
	for _, s := range receipt.Signatures {
		if !signatures {
			break
		}
		if !attach(&e, s) {
			left++
		}
	}
	if left > 0 {
		x.Notes = append(x.Notes, fmt.Sprintf("%s: %d signatures in cosign's older form stay behind", ref.Familiar(), left))
	}
	x.images = append(x.images, e)
	return nil
}

// attach adds a signature as the manifest that carried it. One of the older
// form is a part of a manifest whose other parts are not kept.
func attach(e *store.Exported, s signature.Signature) bool {
	var m ispec.Manifest
	if s.Format != signature.FormatBundle || json.Unmarshal(s.Manifest, &m) != nil || len(m.Layers) != 1 {
		return false
	}
	empty := []byte("{}")
	if m.Config.Digest != digest.FromBytes(empty) || m.Layers[0].Digest != digest.FromBytes(s.Payload) {
		return false
	}
	d := ispec.Descriptor{
		MediaType: ispec.MediaTypeImageManifest, ArtifactType: m.ArtifactType,
		Digest: digest.FromBytes(s.Manifest), Size: int64(len(s.Manifest)),
	}
	e.Attached = append(e.Attached, d)
	e.Loose[d.Digest], e.Loose[m.Config.Digest], e.Loose[m.Layers[0].Digest] = s.Manifest, empty, s.Payload
	return true
}

// Archive writes an archive: of an OCI layout, and with docker one that docker
// load reads too.
func (x *Export) Archive(ctx context.Context, w io.Writer, docker bool) error {
	if err := x.l.store.Archive(ctx, w, docker, x.images); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

// Layout adds the images to the OCI layout in dir, made if it is not there.
func (x *Export) Layout(ctx context.Context, dir string) error {
	to, err := store.MakeLayout(dir)
	if err != nil {
		return err
	}
	if err := x.l.store.CopyTo(ctx, to, x.images); err != nil {
		_ = to.Close()
		return fmt.Errorf("export: %w", err)
	}
	return to.Close()
}

// ExtractOptions say what is taken out of an image, and how.
type ExtractOptions struct {
	AdmitOptions
	Path   string // in the image; empty for all
	Owners bool   // keep the owners the image names
}

// ExtractImage writes files of an image into a new or empty directory, after
// the image was admitted as for a launch: what lies there may be run.
func ExtractImage(ctx context.Context, e Env, ref, dest string, o ExtractOptions) (tree.Extracted, error) {
	if base := filepath.Base(filepath.Clean(dest)); base == "." || base == ".." || base == "/" {
		return tree.Extracted{}, hint.With(
			fmt.Errorf("extract to %s: the directory is to be replaced, and that names none that can be", dest),
			"write its name, as in ./web: it may be new, or empty",
		)
	}
	v, err := Admit(ctx, e, ref, o.AdmitOptions)
	if err != nil {
		return tree.Extracted{}, err
	}
	trees, err := e.trees()
	if err != nil {
		return tree.Extracted{}, err
	}
	defer trees.Close()
	return trees.Extract(ctx, v.Tree, o.Path, dest, o.Owners)
}
