// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image/store"
	"github.com/gantryrun/gantry/internal/bounded"
	"github.com/gantryrun/gantry/signature"
)

// maxVerdict bounds what the verify worker answers.
const maxVerdict = 4 << 20

// judge finds signatures and has them judged. The worker reads everything
// that was found, whatever it is; of what it accepts the parent judges again,
// alone, only what counted: a worker that was taken over cannot make an image
// trusted.
func (f *fetcher) judge(ctx context.Context, img store.Image) (signature.Verdict, []signature.Signature, error) {
	subject := f.subject(img)
	if f.Insecure.Image {
		return signature.Verdict{Subject: subject, Insecure: true}, nil, nil
	}
	sigs, notes, err := f.signatures(ctx, img, f.Policy.Match(subject.Name).Decision)
	if err != nil {
		return signature.Verdict{}, nil, err
	}
	sigs = f.withStored(img, sigs)
	said, err := f.ask(ctx, subject, sigs)
	if err != nil {
		return signature.Verdict{}, nil, err
	}
	if err := said.Err(); err != nil {
		return said, nil, refusal(err, notes)
	}
	kept, own := counting(f.Policy, subject, counted(said, sigs))
	if err := own.Err(); err != nil {
		return own, nil, fmt.Errorf("the verify worker accepted what does not hold: %w", err)
	}
	own.Findings = said.Findings
	return own, kept, nil
}

func (f *fetcher) subject(img store.Image) signature.Subject {
	return signature.Subject{
		Reference: f.Ref.String(), Name: f.Ref.Name(),
		Index: img.Index, Manifest: img.ManifestDescriptor.Digest,
	}
}

// signatures looks for them only where they can matter.
func (f *fetcher) signatures(ctx context.Context, img store.Image, d signature.Decision) ([]signature.Signature, []string, error) {
	if d == signature.DecideReject {
		return nil, nil, nil
	}
	subjects := []ispec.Descriptor{img.Descriptor}
	if img.Index != "" {
		subjects = append(subjects, img.ManifestDescriptor)
	}
	sigs, notes, err := f.src.Signatures(ctx, subjects)
	if err != nil {
		return nil, nil, fmt.Errorf("look for signatures: %w", err)
	}
	return sigs, notes, nil
}

// withStored adds the signatures kept of this very image that the source does
// not show any more: they are dropped only when they do not count any more.
func (f *fetcher) withStored(img store.Image, sigs []signature.Signature) []signature.Signature {
	if f.local == nil || f.local.Receipt.Manifest != img.ManifestDescriptor.Digest {
		return sigs
	}
	for _, old := range f.local.Receipt.Signatures {
		known := slices.ContainsFunc(sigs, func(s signature.Signature) bool {
			return s.Format == old.Format && s.Digest == old.Digest && bytes.Equal(s.Payload, old.Payload) &&
				maps.Equal(s.Annotations, old.Annotations)
		})
		if !known && len(sigs) < signature.MaxSignatures {
			sigs = append(sigs, old)
		}
	}
	return sigs
}

// counted picks by the worker's findings, which are in the order of what it
// was given.
func counted(v signature.Verdict, sigs []signature.Signature) []signature.Signature {
	var out []signature.Signature
	for i, f := range v.Findings[:min(len(v.Findings), len(sigs))] {
		if f.Counts {
			out = append(out, sigs[i])
		}
	}
	return out
}

// ask puts the question to a verify worker.
func (f *fetcher) ask(ctx context.Context, s signature.Subject, sigs []signature.Signature) (signature.Verdict, error) {
	var v signature.Verdict
	question, err := encodeQuestion(f.Policy, s, sigs)
	if err != nil {
		return v, err
	}
	qr, qw, err := os.Pipe()
	if err != nil {
		return v, fmt.Errorf("make pipe: %w", err)
	}
	defer qw.Close()
	ar, aw, err := os.Pipe()
	if err != nil {
		qr.Close()
		return v, fmt.Errorf("make pipe: %w", err)
	}
	defer ar.Close()
	p, err := launch(ctx, f.Libexec, wire.Verify, qr, aw)
	qr.Close()
	aw.Close()
	if err != nil {
		return v, err
	}
	defer p.stop()
	go func() {
		_, _ = qw.Write(question) // a worker that does not read does not answer
		qw.Close()
	}()
	type answer struct {
		b   []byte
		err error
	}
	got := make(chan answer, 1)
	go func() {
		b, err := bounded.All(ar, maxVerdict)
		ar.Close()
		got <- answer{b, err}
	}()
	if err := p.order(nil, verifyTime, nil); err != nil {
		return v, err
	}
	p.kill() // it has said all; its end closes the pipe if it did not
	a := <-got
	if a.err == nil {
		a.err = json.Unmarshal(a.b, &v)
	}
	if a.err != nil {
		return v, p.failure(errors.Join(wire.ErrProtocol, a.err))
	}
	return v, nil
}

func encodeQuestion(p *signature.Policy, s signature.Subject, sigs []signature.Signature) ([]byte, error) {
	var q wire.Question
	for _, part := range []struct {
		to   *json.RawMessage
		from any
	}{{&q.Policy, p}, {&q.Subject, s}, {&q.Signatures, sigs}} {
		b, err := json.Marshal(part.from)
		if err != nil {
			return nil, fmt.Errorf("encode question to the verify worker: %w", err)
		}
		*part.to = b
	}
	return json.Marshal(q)
}

// refusal adds what discovery left alone to what the policy says.
func refusal(err error, notes []string) error {
	if len(notes) == 0 {
		return err
	}
	return &noted{err, notes}
}

// noted is a refusal with the notes of the search that led to it.
type noted struct {
	error
	notes []string
}

func (n *noted) Unwrap() error { return n.error }

func (n *noted) Error() string {
	return n.error.Error() + "\n  passed over: " + strings.Join(n.notes, "\n               ")
}
