// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/image/tree"
)

// parallel layers: enough to hide a registry's latency, few enough to bound
// memory (a converter each).
const parallel = 4

// convertTime is what a converter may take after its last byte, and for any
// one write of ours: it works at the speed of its input, so this is for one
// that stands still.
const convertTime = 10 * time.Minute

// layers brings every layer that is not here and converts every one that is
// not converted, each distinct blob once.
func (f *fetcher) layers(ctx context.Context, img store.Image) ([]tree.Layer, error) {
	diffIDs := img.Config.RootFS.DiffIDs
	out := make([]tree.Layer, len(diffIDs))
	first := map[digest.Digest]int{}
	for i, d := range img.Manifest.Layers {
		j, seen := first[d.Digest]
		if !seen {
			first[d.Digest] = i
		} else if diffIDs[i] != diffIDs[j] {
			return nil, f.refuse(fmt.Errorf("layer %s has two diff IDs", d.Digest))
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, d := range img.Manifest.Layers {
		if first[d.Digest] != i {
			continue
		}
		f.Progress.Layer(d.Digest, 0, d.Size, Waiting)
		g.Go(func() error {
			l, err := f.layer(ctx, d, diffIDs[i])
			if err != nil {
				return f.inLayer(d, err)
			}
			out[i] = l
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, d := range img.Manifest.Layers {
		out[i] = out[first[d.Digest]]
	}
	return out, nil
}

// inLayer names the layer in an error that does not name it yet.
func (f *fetcher) inLayer(d ispec.Descriptor, err error) error {
	var p *Problem
	if errors.As(err, &p) || errors.Is(err, context.Canceled) {
		return err
	}
	return f.refuse(fmt.Errorf("layer %s: %w", d.Digest, err))
}

// layer makes sure of one blob and its conversion. Locks are taken in the
// order blob, tree, here and in every other gantry, so two fetches of one
// image wait for each other's work instead of repeating it.
func (f *fetcher) layer(ctx context.Context, d ispec.Descriptor, diffID digest.Digest) (tree.Layer, error) {
	w, err := f.writer(ctx, d)
	if err != nil {
		return tree.Layer{}, err
	}
	if w != nil {
		defer w.Abort()
	}
	have, st, err := f.stage(ctx, d.Digest)
	if err != nil {
		return tree.Layer{}, err
	}
	if st != nil {
		defer st.Abort()
	} else if have.DiffID != diffID {
		return tree.Layer{}, fmt.Errorf("wrong diff ID: the configuration says %s, it is %s", diffID, have.DiffID)
	}
	if w == nil && st == nil {
		f.Progress.Layer(d.Digest, d.Size, d.Size, Exists)
		return have, nil
	}
	src, err := f.bytes(ctx, d, w != nil)
	if err != nil {
		return tree.Layer{}, err
	}
	defer src.Close()
	j := job{f: f, d: d, diffID: diffID, src: src, blob: w, staging: st, sum: d.Digest.Verifier()}
	l := have
	if st == nil {
		err = j.download()
	} else {
		l, err = j.run(ctx)
	}
	if err == nil {
		f.Progress.Layer(d.Digest, d.Size, d.Size, Done)
	}
	return l, err
}

// stage returns the layer if it is converted, else what to convert it into.
func (f *fetcher) stage(ctx context.Context, blob digest.Digest) (tree.Layer, *tree.Staging, error) {
	if l, ok := f.Trees.Layer(blob); ok {
		return l, nil, nil
	}
	st, err := f.Trees.Stage(ctx, blob)
	if errors.Is(err, tree.ErrExists) {
		if l, ok := f.Trees.Layer(blob); ok {
			return l, nil, nil
		}
		return tree.Layer{}, nil, fmt.Errorf("converted layer %s has gone meanwhile; fetch again", blob)
	}
	return tree.Layer{}, st, err
}

func (f *fetcher) bytes(ctx context.Context, d ispec.Descriptor, foreign bool) (io.ReadCloser, error) {
	if foreign {
		return f.src.Blob(ctx, d)
	}
	return f.Store.Blob(d.Digest)
}

// job moves one blob: source → hash → store, and source → converter.
type job struct {
	f       *fetcher
	d       ispec.Descriptor
	diffID  digest.Digest
	src     io.Reader
	blob    *store.Writer   // nil: it is in the store
	staging *tree.Staging   // nil: it is converted
	sum     digest.Verifier // of bytes from the store; the blob's writer has its own
	done    int64
}

// download is for a layer whose conversion is here without its blob.
func (j *job) download() error {
	if err := j.pump(nil); err != nil {
		return err
	}
	return j.blob.Commit()
}

// run brings the blob, or reads it in the store, and has it converted.
func (j *job) run(ctx context.Context) (tree.Layer, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return tree.Layer{}, fmt.Errorf("make pipe: %w", err)
	}
	widen(out)
	defer out.Close()
	p, err := launch(ctx, j.f.Libexec, wire.Convert, in, j.staging.Data(), j.staging.Index())
	in.Close()
	if err != nil {
		return tree.Layer{}, err
	}
	defer p.stop()
	return j.convert(p, out)
}

// convert feeds the worker and believes it only when the blob's digest was
// right: what it made is then committed under that digest.
func (j *job) convert(p *process, out *os.File) (tree.Layer, error) {
	limits, err := json.Marshal(j.f.Limits)
	if err != nil {
		return tree.Layer{}, fmt.Errorf("encode limits: %w", err)
	}
	var sum tree.Summary
	answer := make(chan error, 1)
	go func() {
		defer close(answer)
		answer <- p.order(wire.ConvertStart{MediaType: j.d.MediaType, DiffID: string(j.diffID), Limits: limits}, 0, &sum)
	}()
	pumpErr := j.pump(out)
	out.Close()
	if errors.Is(pumpErr, errConverter) {
		// It closed its end or stood still: it has, or is about to have, a reason.
		p.patience(settleTime)
		said := <-answer
		// It is no wonder that it cannot convert what is not the layer.
		if err := j.rest(); err != nil {
			return tree.Layer{}, err
		}
		if said != nil {
			return tree.Layer{}, said
		}
		return tree.Layer{}, pumpErr
	}
	if pumpErr != nil {
		drop(p, answer)
		return tree.Layer{}, pumpErr
	}
	j.f.Progress.Layer(j.d.Digest, j.d.Size, j.d.Size, Convert)
	if j.blob != nil {
		if err := j.blob.Commit(); err != nil {
			drop(p, answer)
			return tree.Layer{}, err
		}
	} else if !j.sum.Verified() {
		drop(p, answer)
		return tree.Layer{}, &Problem{
			What: fmt.Sprintf("layer %s is damaged in the store", j.d.Digest), Err: store.ErrCorrupt,
			Mend: "it was whole a moment ago: gantry fetch " + j.f.Ref.Familiar() + " brings it again, and the disk may be failing",
		}
	}
	p.patience(convertTime)
	if err := <-answer; err != nil {
		return tree.Layer{}, err
	}
	p.stop() // what is sealed now has no writer any more
	return j.staging.Commit(j.diffID, sum)
}

// maxRest is how much more of a layer is brought only to know whose fault it
// is that it cannot be converted.
const maxRest = 64 << 20

// rest reads a layer that will not be used to its end and says if it is not
// the one that was promised. Where nothing can be said it is silent.
func (j *job) rest() error {
	if j.d.Size-j.done > maxRest {
		return nil
	}
	err := j.pump(nil)
	var p *Problem
	switch {
	case errors.As(err, &p) && errors.Is(err, ErrUnreachable):
		return nil
	case errors.As(err, &p), errors.Is(err, store.ErrCorrupt):
		return err
	case err == nil && j.blob != nil:
		if err := j.blob.Check(); err != nil {
			return fmt.Errorf("wrong digest: %w", err)
		}
	}
	return nil
}

// drop ends a worker whose answer does not matter any more.
func drop(p *process, answer <-chan error) {
	p.kill()
	for range answer { // whatever it says, it was stopped for another reason
	}
}

// errConverter marks failures of the converter's pipe; its own answer says
// more.
var errConverter = errors.New("hand the layer to its converter")

// pump copies exactly the declared bytes to the store and the converter.
func (j *job) pump(conv *os.File) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := j.src.Read(buf)
		if n > 0 {
			if err := j.take(conv, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if j.done != j.d.Size {
		return fmt.Errorf("wrong size: %d bytes where %d must be: %w", j.done, j.d.Size, store.ErrCorrupt)
	}
	return nil
}

func (j *job) take(conv *os.File, b []byte) error {
	if j.done += int64(len(b)); j.done > j.d.Size {
		return fmt.Errorf("wrong size: more than the %d bytes the manifest says: %w", j.d.Size, store.ErrCorrupt)
	}
	if j.blob != nil {
		if _, err := j.blob.Write(b); err != nil {
			return err
		}
	} else if _, err := j.sum.Write(b); err != nil {
		return err
	}
	if conv != nil {
		if err := conv.SetWriteDeadline(time.Now().Add(convertTime)); err != nil {
			return err
		}
		if _, err := conv.Write(b); err != nil {
			return fmt.Errorf("%w: %w", errConverter, err)
		}
	}
	j.f.Progress.Layer(j.d.Digest, j.done, j.d.Size, Download)
	return nil
}

// merge makes the image's tree out of its layers, or finds it.
func (f *fetcher) merge(ctx context.Context, layers []tree.Layer) (tree.Tree, error) {
	if t, ok := f.Trees.Tree(layers); ok {
		return t, nil
	}
	st, err := f.Trees.StageImage(ctx, layers)
	if errors.Is(err, tree.ErrExists) {
		if t, ok := f.Trees.Tree(layers); ok {
			return t, nil
		}
	}
	if err != nil {
		return tree.Tree{}, err
	}
	defer st.Abort()
	limits, err := json.Marshal(f.Limits)
	if err != nil {
		return tree.Tree{}, fmt.Errorf("encode limits: %w", err)
	}
	in := st.Inputs()
	p, err := launch(ctx, f.Libexec, wire.Merge, append([]*os.File{st.Out()}, in...)...)
	if err != nil {
		return tree.Tree{}, err
	}
	defer p.stop()
	if err := p.order(wire.MergeStart{Layers: len(in), Limits: limits}, mergeTime, nil); err != nil {
		return tree.Tree{}, f.refuse(fmt.Errorf("merge layers: %w", err))
	}
	p.stop() // what is sealed now has no writer any more
	return st.Commit()
}
