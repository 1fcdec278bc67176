// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image"
	"github.com/gantryrun/gantry/internal/bounded"
	"github.com/gantryrun/gantry/internal/version"
	"github.com/gantryrun/gantry/signature"
)

// source is where an image comes from. Everything it returns is foreign.
type source interface {
	// Resolve says what the reference stands for, if that is cheaper than the
	// bytes. It is a claim.
	Resolve(ctx context.Context) (ispec.Descriptor, error)
	// Manifest returns a manifest or index: what d describes, or, when d is
	// zero, what the reference names. Bytes are not checked; the media type
	// is what the source said.
	Manifest(ctx context.Context, d ispec.Descriptor) (b []byte, mediaType string, err error)
	// Signatures returns what is attached to any of subjects, and notes on
	// what was left alone.
	Signatures(ctx context.Context, subjects []ispec.Descriptor) ([]signature.Signature, []string, error)
	// Blob streams a blob. Its end is EOF only if the source says that it was
	// the whole.
	Blob(ctx context.Context, d ispec.Descriptor) (io.ReadCloser, error)
	Close()
}

// openSource starts the worker for a reference's transport.
func openSource(ctx context.Context, r Request) (source, error) {
	switch t := r.source().Transport; t {
	case image.Registry:
		return openRegistry(ctx, r)
	case image.Layout:
		return openLayout(ctx, r)
	case image.OCIArchive, image.DockerArchive, image.AnyArchive:
		return openArchive(ctx, r)
	default:
		return nil, fmt.Errorf("transport %q is not supported", t)
	}
}

// registry is a source behind the net worker.
type registry struct {
	*client
	ref  image.Reference
	auth credentials
}

func openRegistry(ctx context.Context, r Request) (*registry, error) {
	ref := r.source()
	if file := r.Registries.Blocked(ref.Host, ref.Repository); file != "" {
		return nil, &Problem{What: fmt.Sprintf("fetch %s: %s says that it is not to be asked", ref.Familiar(), file), Mend: "take Blocked=yes out of that file, if it is yours to decide"}
	}
	set, gives, err := r.Registries.Settings(ref.Host, ref.Repository)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", ref.Familiar(), err)
	}
	if gives != "" && r.Progress != nil {
		r.Progress.Line(fmt.Sprintf("warning: %s: %s may be somebody else, by Insecure= of %s", ref.Familiar(), ref.Host, gives))
	}
	cred, err := findCredentials(ctx, r.AuthFile, ref.Host, ref.Repository)
	if err != nil {
		return nil, err
	}
	p, err := launch(ctx, r.Libexec, wire.Net)
	if err != nil {
		return nil, err
	}
	c, err := converse(p, wire.NetStart{
		Host: ref.Host, Repository: ref.Repository, Credential: cred.Credential,
		PlainHTTP: r.Insecure.HTTP || set.PlainHTTP, InsecureTLS: r.Insecure.TLS || set.InsecureTLS,
		Authorities: set.Authorities, Certificate: set.Certificate, Key: set.Key, UserAgent: "gantry/" + version.String(),
	}, r.Ref.Familiar(), r.Progress)
	if err != nil {
		p.stop()
		return nil, err
	}
	return &registry{client: c, ref: ref, auth: cred}, nil
}

func (s *registry) Close() { s.p.stop() }

// name is the tag or digest by which the registry is asked.
func (s *registry) name() string {
	if s.ref.Digest != "" {
		return string(s.ref.Digest)
	}
	return s.ref.Tag
}

func (s *registry) Resolve(ctx context.Context) (ispec.Descriptor, error) {
	var c wire.Content
	if err := s.call(ctx, wire.OpResolve, wire.Named{Reference: s.name()}, &c); err != nil {
		return ispec.Descriptor{}, s.explain(err)
	}
	d := ispec.Descriptor{MediaType: c.MediaType, Digest: digest.Digest(c.Digest), Size: c.Size}
	return d, image.ValidDigest(d.Digest)
}

func (s *registry) Manifest(ctx context.Context, d ispec.Descriptor) ([]byte, string, error) {
	ask := wire.Named{Reference: s.name(), Max: image.MaxManifest}
	if d.Digest != "" {
		ask.Reference = string(d.Digest)
	}
	st, err := s.stream(ctx, wire.OpManifest, ask)
	if err != nil {
		return nil, "", err
	}
	defer st.Close()
	var c wire.Content
	st.answer = &c
	b, err := bounded.All(st, image.MaxManifest)
	if err != nil {
		return nil, "", s.explain(err)
	}
	return b, c.MediaType, nil
}

func (s *registry) Signatures(ctx context.Context, subjects []ispec.Descriptor) ([]signature.Signature, []string, error) {
	st, err := s.stream(ctx, wire.OpSignatures, discovery(subjects))
	if err != nil {
		return nil, nil, err
	}
	defer st.Close()
	sigs, notes, err := readSignatures(st)
	return sigs, notes, s.explain(err)
}

func (s *registry) Blob(ctx context.Context, d ispec.Descriptor) (io.ReadCloser, error) {
	st, err := s.stream(ctx, wire.OpBlob, wire.Content{Digest: string(d.Digest), Size: d.Size})
	if err != nil {
		return nil, err
	}
	return &explained{st, s.explain}, nil
}

// explained words a stream's errors for people.
type explained struct {
	*stream
	explain func(error) error
}

func (e *explained) Read(b []byte) (int, error) {
	n, err := e.stream.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = e.explain(err)
	}
	return n, err
}

// discovery asks for every kind of signature within the bounds of package
// signature.
func discovery(subjects []ispec.Descriptor) wire.Discover {
	d := wire.Discover{Legacy: true, Count: signature.MaxSignatures, Each: signature.MaxSignature, Total: signature.MaxTotal}
	for _, s := range subjects {
		d.Subjects = append(d.Subjects, wire.Content{Digest: string(s.Digest), Size: s.Size, MediaType: s.MediaType})
	}
	return d
}

// readSignatures takes in a discovery stream. The worker's frames are bounded
// again here.
func readSignatures(st *stream) ([]signature.Signature, []string, error) {
	var found wire.Discovered
	st.answer = &found
	var sigs []signature.Signature
	err := wire.ReadSignatures(st, func(h wire.SignatureHead, manifest, payload []byte) {
		sigs = append(sigs, signature.Signature{
			Format: h.Format, Digest: digest.Digest(h.Digest),
			Manifest: manifest, Payload: payload, Annotations: h.Annotations,
		})
	})
	if err != nil {
		return nil, nil, err
	}
	return sigs, cleanNotes(found.Notes), nil
}

// cleanNotes makes a worker's notes fit to print: few, short, a line each.
func cleanNotes(notes []string) []string {
	notes = notes[:min(len(notes), 16)]
	for i, n := range notes {
		notes[i] = wire.Line(n, wire.MaxNote)
	}
	return notes
}
