// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image"
)

// session is one registry and one repository: a net worker never talks about
// a second one.
type session struct {
	origin *url.URL
	repo   string
	client *auth.Client
	remote *remote.Repository
	ref    registry.Reference
	pace   pace
}

// serveNet answers requests, several at a time, until the parent hangs up.
func serveNet(ctx context.Context, c *wire.Conn) error {
	var order wire.NetStart
	if _, err := start(c, &order); err != nil {
		return err
	}
	var notes atomic.Int32
	s, openErr := openSession(ctx, order, usual(), func(text string) {
		if notes.Add(1) > wire.MaxNotes {
			return
		}
		// When it cannot be sent nobody is left to tell; the answer will notice.
		_ = c.Send(wire.Message{Op: wire.OpNote, Body: wire.Body(wire.Note{Text: wire.Line(text, wire.MaxNote)})})
	})
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		m, files, err := c.Recv(true)
		if err != nil {
			return err
		}
		wg.Go(func() {
			reply := wire.Message{ID: m.ID, Op: wire.OpDone}
			result, err := any(nil), openErr
			if err == nil {
				result, err = s.serve(ctx, m, files)
			}
			for _, f := range files {
				f.Close() // end of stream first, then the verdict on it
			}
			if err != nil {
				reply.Error = describe(err)
			} else {
				reply.Body = wire.Body(result)
			}
			if c.Send(reply) != nil {
				cancel()
			}
		})
	}
}

// openSession prepares for one repository. tell gets a sentence for people
// whenever they wait for the registry.
func openSession(ctx context.Context, o wire.NetStart, p pace, tell func(string)) (*session, error) {
	u, err := origin(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &session{origin: u, repo: o.Repository, pace: p}
	s.ref = registry.Reference{Registry: u.Host, Repository: o.Repository}
	if err := s.ref.ValidateRepository(); err != nil {
		return nil, fmt.Errorf("repository %s: %w", o.Repository, err)
	}
	guarded, err := newTransport(u, o, p)
	if err != nil {
		return nil, err
	}
	transport := retry.NewTransport(guarded)
	waits := &patience{tell: tell}
	transport.Policy = func() retry.Policy { return waits }
	cred := auth.Credential{
		Username: o.Credential.Username, Password: o.Credential.Password,
		RefreshToken: o.Credential.IdentityToken, AccessToken: o.Credential.RegistryToken,
	}
	s.client = &auth.Client{
		Client: &http.Client{Transport: transport, CheckRedirect: checkRedirect},
		Cache:  auth.NewCache(),
		Header: http.Header{"User-Agent": {o.UserAgent}},
		// The one credential we were given goes to the one host it is for.
		Credential: func(_ context.Context, hostport string) (auth.Credential, error) {
			if hostport != u.Host {
				return auth.EmptyCredential, nil
			}
			return cred, nil
		},
	}
	s.remote = &remote.Repository{
		Client: s.client, Reference: s.ref, PlainHTTP: u.Scheme == "http",
		MaxMetadataBytes: wire.MaxSignatureBytes, ReferrerListMaxPages: 32, SkipReferrersGC: true,
	}
	return s, nil
}

func (s *session) serve(ctx context.Context, m wire.Message, files []*os.File) (any, error) {
	one := func() (*os.File, error) {
		if len(files) != 1 {
			return nil, fmt.Errorf("%s with %d descriptors: %w", m.Op, len(files), wire.ErrProtocol)
		}
		return files[0], nil
	}
	switch m.Op {
	case wire.OpResolve:
		return with(m, func(n wire.Named) (any, error) { return s.resolve(ctx, n.Reference) })
	case wire.OpManifest, wire.OpBlob, wire.OpSignatures, wire.OpPushBlob, wire.OpPushManifest:
	default:
		return nil, fmt.Errorf("unknown request %q: %w", m.Op, wire.ErrProtocol)
	}
	f, err := one()
	if err != nil {
		return nil, err
	}
	switch m.Op {
	case wire.OpManifest:
		return with(m, func(n wire.Named) (any, error) { return s.manifest(ctx, n, f) })
	case wire.OpBlob:
		return with(m, func(d wire.Content) (any, error) { return nil, s.blob(ctx, d, f) })
	case wire.OpSignatures:
		return with(m, func(d wire.Discover) (any, error) { return discover(ctx, remoteSource{s}, d, f) })
	case wire.OpPushBlob:
		return with(m, func(d wire.Content) (any, error) { return nil, s.pushBlob(ctx, d, f) })
	}
	return with(m, func(d wire.Content) (any, error) { return nil, s.pushManifest(ctx, d, f) })
}

// with decodes a request's body for its handler.
func with[T any](m wire.Message, handle func(T) (any, error)) (any, error) {
	var v T
	if err := m.Decode(&v); err != nil {
		return nil, err
	}
	return handle(v)
}

// get sends one authorised request below the repository.
func (s *session) get(ctx context.Context, method, path string, header http.Header) (*http.Response, error) {
	ctx = auth.AppendRepositoryScope(ctx, s.ref, auth.ActionPull)
	u := *s.origin
	u.Path = "/v2/" + s.repo + "/" + path
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	return s.client.Do(req)
}

// accept lists what we can use, so that a registry does not convert for us.
func accept() http.Header {
	return http.Header{"Accept": {strings.Join(image.ManifestMediaTypes(), ", ")}}
}

// resolve asks what a name stands for, without the bytes. The answer is a
// claim; a registry that does not answer it has its manifest fetched.
func (s *session) resolve(ctx context.Context, ref string) (wire.Content, error) {
	resp, err := s.get(ctx, http.MethodHead, "manifests/"+ref, accept())
	if err != nil {
		return wire.Content{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return wire.Content{}, statusError(resp)
	}
	d := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if err := image.ValidDigest(d); err != nil {
		return wire.Content{}, fmt.Errorf("%s names no digest for %s: %w", s.origin.Host, ref, err)
	}
	return wire.Content{Digest: string(d), Size: resp.ContentLength, MediaType: mediaType(resp)}, nil
}

// manifest hands over a manifest's bytes as the registry sends them. It is
// small enough to be asked for again as a whole when the connection is cut.
func (s *session) manifest(ctx context.Context, n wire.Named, w io.Writer) (wire.Content, error) {
	for attempt := 0; ; attempt++ {
		var b bytes.Buffer
		c, err := s.manifestOnce(ctx, n, &b)
		if err == nil {
			_, err = b.WriteTo(w)
			return c, err
		}
		if !resumable(err) || attempt+1 >= maxAttempts {
			return c, err
		}
		if err := pause(ctx, backoff(attempt)); err != nil {
			return c, err
		}
	}
}

func (s *session) manifestOnce(ctx context.Context, n wire.Named, w io.Writer) (wire.Content, error) {
	resp, err := s.get(ctx, http.MethodGet, "manifests/"+n.Reference, accept())
	if err != nil {
		return wire.Content{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return wire.Content{}, statusError(resp)
	}
	size, err := io.Copy(w, io.LimitReader(resp.Body, n.Max+1))
	if err != nil {
		return wire.Content{}, err
	}
	if size > n.Max {
		return wire.Content{}, fail(wire.TooBig, "%s sends a manifest of more than %d bytes", s.origin.Host, n.Max)
	}
	return wire.Content{Size: size, MediaType: mediaType(resp), Digest: resp.Header.Get("Docker-Content-Digest")}, nil
}

func mediaType(resp *http.Response) string {
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// statusError reads a bounded error body.
func statusError(resp *http.Response) error {
	e := &errcode.ErrorResponse{Method: resp.Request.Method, URL: resp.Request.URL, StatusCode: resp.StatusCode}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<10))
	if err == nil {
		e.Errors = errorsIn(body)
	}
	return e
}

// notThere reports whether a registry simply does not have something.
func notThere(err error) bool {
	var e *errcode.ErrorResponse
	return errors.As(err, &e) && e.StatusCode == http.StatusNotFound
}
