// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/image"
)

// maxResumes bounds the resumptions of one blob, progress or not.
const maxResumes = 200

// blob streams exactly d.Size bytes of a blob into w. A connection that ends
// early or falls below the pace is taken up again at the offset reached;
// attempts are counted afresh whenever as much arrived as the pace asks for, so
// a bad line makes progress, and a dead one or a drip ends.
func (s *session) blob(ctx context.Context, d wire.Content, w io.Writer) error {
	if err := image.ValidDigest(digest.Digest(d.Digest)); err != nil {
		return err
	}
	var done, mark int64
	for attempt, total := 0, 0; ; attempt, total = attempt+1, total+1 {
		n, err := s.blobFrom(ctx, d, done, w)
		done += n
		if err == nil {
			return nil
		}
		if done-mark >= s.pace.least {
			attempt, mark = 0, done
		}
		if !resumable(err) || attempt+1 >= maxAttempts || total >= maxResumes {
			return err
		}
		if err := pause(ctx, backoff(attempt)); err != nil {
			return err
		}
	}
}

// errPipe marks failures of the parent's pipe, where trying again is no use.
var errPipe = errors.New("hand bytes to gantry")

func resumable(err error) bool {
	if errors.Is(err, errPipe) || errors.Is(err, syscall.EPIPE) {
		return false
	}
	switch classify(err) {
	case wire.Cut, wire.Timeout, wire.Slow:
		return true
	}
	return false
}

// blobFrom requests the bytes from offset on and reports how many reached w.
func (s *session) blobFrom(ctx context.Context, d wire.Content, offset int64, w io.Writer) (int64, error) {
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := s.get(ctx, http.MethodGet, "blobs/"+d.Digest, header)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if err := position(resp, d, offset, resp.Body); err != nil {
		return 0, err
	}
	n, err := copyOut(w, io.LimitReader(resp.Body, d.Size-offset))
	if err == nil && n < d.Size-offset {
		err = fmt.Errorf("%s ended after %d of %d bytes: %w", s.origin.Host, offset+n, d.Size, io.ErrUnexpectedEOF)
	}
	if err == nil {
		err = s.nothingMore(resp, d)
	}
	return n, err
}

// nothingMore refuses a body that goes on after the declared size, unless
// the connection is merely held open.
func (s *session) nothingMore(resp *http.Response, d wire.Content) error {
	if resp.ContentLength >= 0 {
		return nil // the length was checked, and net/http reads no further
	}
	if n, _ := resp.Body.Read(make([]byte, 1)); n > 0 {
		return fail(wire.BadContent, "%s sends more than the %d bytes declared for %s", s.origin.Host, d.Size, d.Digest)
	}
	return nil
}

// position makes sure that the next byte of the body is the one at offset.
// A server without ranges starts again; its prefix is read and dropped (the
// parent's hash is over what it has already).
func position(resp *http.Response, d wire.Content, offset int64, body io.Reader) error {
	switch {
	case resp.StatusCode == http.StatusOK:
		if resp.ContentLength >= 0 && resp.ContentLength != d.Size {
			return fail(wire.BadContent, "%s has %d bytes for %s, the manifest says %d",
				resp.Request.URL.Host, resp.ContentLength, d.Digest, d.Size)
		}
		_, err := io.CopyN(io.Discard, body, offset)
		return err
	case resp.StatusCode == http.StatusPartialContent && offset > 0:
		want := fmt.Sprintf("bytes %d-%d/", offset, d.Size-1)
		got := resp.Header.Get("Content-Range")
		total, found := strings.CutPrefix(got, want)
		if !found || total != "*" && total != strconv.FormatInt(d.Size, 10) {
			return fail(wire.BadContent, "%s was asked to go on at byte %d and answered range %q",
				resp.Request.URL.Host, offset, got)
		}
		return nil
	}
	return statusError(resp)
}

// copyOut tells failures of the pipe from failures of the network.
func copyOut(w io.Writer, r io.Reader) (int64, error) {
	buf := make([]byte, 256<<10)
	var done int64
	for {
		n, readErr := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return done, fmt.Errorf("%w: %w", errPipe, err)
			}
			done += int64(n)
		}
		if readErr == io.EOF {
			return done, nil
		}
		if readErr != nil {
			return done, readErr
		}
	}
}

// errorsIn decodes a registry's error body, if it is one.
func errorsIn(body []byte) errcode.Errors {
	var doc struct {
		Errors errcode.Errors `json:"errors"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return nil
	}
	for i := range doc.Errors {
		doc.Errors[i].Detail = nil // free-form and often long
	}
	return doc.Errors[:min(len(doc.Errors), 3)]
}
